"""Write the manifest and the raw file of one evaluation set: convert, leave out duplicates, draw, count."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phase1.contract.comparison import comparison_of
from phase1.contract.own_sets import NAME, OwnSet
from phase1.contract.problems import EvalSet, wrong_in
from phase1.data.checkers import CheckerFiles
from phase1.data.progress import counted
from phase1.data.public_sets import INTERACTIVE, Located, Reader, Refused, Row, row_id
from phase1.files import BadInput


@dataclass
class Tally:
    """What became of the rows of one set."""

    rows: int = 0
    duplicates: list[str] = field(default_factory=list)  # ids left out: their statement was seen before
    refused: dict[str, list[str]] = field(default_factory=dict)  # reason -> ids
    multi_answer: list[str] = field(default_factory=list)
    rules: dict[str, list[str]] = field(default_factory=dict)  # a problem's own rule for outputs, in words -> ids
    excluded: list[str] = field(default_factory=list)  # multi-answer problems kept out of the manifest
    problems: int = 0
    tests: int = 0

    def refuse(self, reason: str, problem_id: str) -> None:
        self.refused.setdefault(reason, []).append(problem_id)

    def left_out(self) -> str:
        """What was left out and why, for people; "" where nothing was."""
        told = [f"{len(self.duplicates)} duplicates"] if self.duplicates else []
        told += [f"{len(ids)} with {reason} (first {ids[0]})" for reason, ids in self.refused.items()]
        return ", ".join(told)


@dataclass
class SetFiles:
    """Makes the two files of one evaluation set.

    Attributes:
        eval_set: what it must be.
        reader: where its rows come from.
        copy: a local copy of the public data set; None for Hugging Face.
        seed: of the draw, where the set is drawn.
        exclude_multi_answer: leave problems that accept any of several answers out of the manifest.
        checkers: joined to the problems that have none yet; None for none.
        seen: prompt_sha256 of the problems that other sets of the same public data hold; this set's are added.
    """

    eval_set: EvalSet
    reader: Reader
    copy: Path | None
    seed: int
    exclude_multi_answer: bool
    seen: set[str]
    checkers: CheckerFiles | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def dataset(self) -> str:
        return self.eval_set.name

    @property
    def source(self) -> str:
        return self.reader.source(self.copy)

    def write(self, manifest: Path, raw: Path) -> Tally:
        """Write both files.

        Raises:
            BadInput: the public data set is not there or not in its schema, a problem has a test type that the judge
                cannot run, or the set would be empty.
        """
        drawn = self._draw() if self.reader.drawn else None
        entries: dict[str, Row] = {}  # lines of the manifest by id
        with open(raw, "w", encoding="utf-8") as file:
            for record in self._records() if drawn is None else self._drawn_records(drawn):
                problem_id = record["problem_id"]
                entry: Row = {"problem_id": problem_id, "prompt_sha256": record["prompt_sha256"]}
                cases = record["test_cases"]
                self.tally.problems += 1
                # HumanEval's tests are one function.
                self.tally.tests += len(cases.get("tests") or cases.get("test_list") or (1,))
                rule = comparison_of(cases)
                if rule.words:
                    self.tally.rules.setdefault(rule.words, []).append(problem_id)
                if rule.many_answers:
                    record["multi_answer"] = entry["multi_answer"] = True
                    self.tally.multi_answer.append(problem_id)
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                if rule.many_answers and self.exclude_multi_answer:
                    self.tally.excluded.append(problem_id)
                else:
                    entries[problem_id] = entry
        if not entries:
            raise BadInput(
                f"{self.source}: holds no problem of {self.dataset}; "
                "give that data set's files, or leave it out with --datasets"
            )
        # In the order drawn, so that the first N (--limit N of an evaluation) are a random sample too.
        order = list(entries) if drawn is None else [i for i in drawn if i in entries]
        with open(manifest, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(entries[i], ensure_ascii=False) + "\n" for i in order)
        return self.tally

    def check_size(self) -> None:
        """Compare the number of problems with the contract's.

        The contract counts a set's interactive problems as well; a drawn set has others in their place.

        Raises:
            BadInput: they differ; the message says what was left out.
        """
        expected, left_out = self.eval_set.size, self.tally.left_out()
        if not expected:  # a set of one's own that says nothing of it
            return
        interactive = 0 if self.reader.drawn else len(self.tally.refused.get(INTERACTIVE, ()))
        if self.tally.problems + interactive != expected:
            whose = f"{NAME} says" if isinstance(self.eval_set, OwnSet) else "the contract says"
            because = f" after leaving out {left_out}" if left_out else ""
            raise BadInput(
                f"{self.source}: {self.tally.problems} problems for {self.dataset}{because}, "
                f"{whose} {expected}; use the whole public data set or --allow_size_mismatch"
            )

    def _records(self) -> Iterator[Row]:
        """The records of a set that is not drawn, each statement and each id once."""
        ids: set[str] = set()
        for found in self._rows():
            self.tally.rows += 1
            record = self._convert(found)
            if record is None:
                continue
            problem_id, digest = record["problem_id"], record["prompt_sha256"]
            if digest in self.seen:
                self.tally.duplicates.append(problem_id)
            elif problem_id in ids:
                self.tally.refuse("an id that stood before, on another statement", problem_id)
            else:
                ids.add(problem_id)
                self.seen.add(digest)
                yield record

    def _draw(self) -> list[str]:
        """The ids of a drawn set, in the order drawn; reads the split once and keeps ids only.

        Ids are sorted before the draw, so it depends on the seed and the problems, not on the order of files.
        """
        candidates: set[str] = set()
        statements = set(self.seen)
        for found in self._rows():
            self.tally.rows += 1
            record = self._convert(found)
            if record is None or (self.exclude_multi_answer and comparison_of(record["test_cases"]).many_answers):
                continue
            problem_id, digest = record["problem_id"], record["prompt_sha256"]
            if problem_id in candidates:
                continue
            if digest in statements:
                self.tally.duplicates.append(problem_id)
                continue
            candidates.add(problem_id)
            statements.add(digest)
        size = min(self.eval_set.size, len(candidates))
        return random.Random(self.seed).sample(sorted(candidates), size)

    def _drawn_records(self, drawn: list[str]) -> Iterator[Row]:
        """The records with the ids in `drawn`, in the order of the files; of an id that stands twice the first."""
        wanted = set(drawn)
        for found in self._rows():
            if row_id(found.row) not in wanted:
                continue
            record = self._convert(found)
            if record is not None:
                wanted.discard(record["problem_id"])
                self.seen.add(record["prompt_sha256"])
                yield record

    def _rows(self) -> Iterator[Located]:
        return counted(self.reader.rows(self.copy), self.dataset)

    def _convert(self, found: Located) -> Row | None:
        """The raw record of a row; None where it is refused, which is tallied."""
        try:
            record = self.reader.record(found.row)
        except Refused as e:
            self.tally.refuse(str(e), row_id(found.row))
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            reason = f"{type(e).__name__}: {e}"
            raise BadInput(f"{found.where}: not in the public schema ({reason}); check the file") from None
        cases = record["test_cases"]
        if self.checkers and cases["type"] == "codecontests" and (checker := self.checkers.of(record["problem_id"])):
            cases.setdefault("checker", checker)
        if fault := wrong_in(record["test_cases"]):
            raise BadInput(f"{found.where}: {self.dataset}: {fault}")
        return record
