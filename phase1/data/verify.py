"""--verify_solutions: run training solutions in the judge, on a problem's tests where they are known, else on its
examples.

Verdicts are appended to a cache as they come, by the hash of program, tests and limits, so a run that was killed goes
on where it was and a later run with more data judges only what is new. Delete the cache to have everything judged
again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from phase1.contract.problems import Problem, check_raw_row
from phase1.contract.prompts import extract_code
from phase1.data.decontaminate import id_key, statement_hash, words_of
from phase1.data.public_sets import Refused, accepts_any_answer, codecontests_record, rows_of
from phase1.data.survivors import Drop, Survivors
from phase1.files import BadInput, sha256_json, sha256_text
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all
from phase1.judge.verdict import Verdict


@dataclass
class Verified:
    """What running the solutions showed. `counts` goes into the report."""

    drops: list[Drop] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    all_fail: list[str] = field(default_factory=list)  # problems with two solutions or more of which none passed


def verify(
    rows: Iterable[int], survivors: Survivors, tests_raw: list[Path], cache: Path, config: JudgeConfig, most: int
) -> Verified:
    """Judge the solutions of `rows`; `most` tests of a problem are run, 0 = all.

    BadInput when the judge itself failed on some: what it could judge is in the cache, so the next run is short.
    """
    result = Verified()
    passed: Counter[int] = Counter()  # by problem
    failed: dict[int, list[int]] = {}
    with closing(VerdictCache(cache, config)) as verdicts:
        todo = _Todo(list(rows), survivors, tests_raw, most, verdicts)
        with tqdm(total=len(todo.rows), desc="solutions judged", unit="", mininterval=1) as bar:
            for row, verdict, judged in todo.judged(config):
                bar.update(result.counts.total() + todo.counts["without_tests_or_examples"] + 1 - bar.n)
                reason = _fault(verdict, judged)
                result.counts[f"{judged.by}_{reason or 'kept'}"] += 1
                if reason in ("sandbox_error", "any_answer", ""):
                    passed[survivors.problem[row]] += 1
                else:
                    failed.setdefault(survivors.problem[row], []).append(row)
                    told = (
                        f"{verdict['tests_passed']} of {verdict['tests_total']} {judged.by} passed; {verdict['detail']}"
                    )
                    result.drops.append((row, f"verify_{reason}", told))
        result.counts += todo.counts
    broken = sum(n for kind, n in result.counts.items() if kind.endswith("_sandbox_error"))
    if broken:
        raise BadInput(
            f"{cache}: the judge failed on {broken} solutions ({todo.failure}); run again, what was judged is "
            "kept there"
        )
    result.all_fail = sorted({survivors.texts(r[0]).name for p, r in failed.items() if len(r) > 1 and not passed[p]})
    result.drops.sort()
    return result


@dataclass(frozen=True)
class _By:
    """What a solution is judged by: `tests` of a raw file or `examples` of its statement; and whether any answer is
    right."""

    by: str
    any_answer: bool


@dataclass(frozen=True)
class _Case:
    """The tests a solution is run on; megabytes, so it is let go with its problem."""

    judged: _By
    cases: dict[str, Any]
    digest: str
    problem: Problem | None = None


def _fault(verdict: dict, judged: _By) -> str:
    """Why a solution goes: the judge's word; "" = it stays. Where any of several answers is right, another answer than
    the recorded one is no fault ("any_answer"), a crash still is."""
    if verdict["error_type"] == "success":
        return ""
    return "any_answer" if verdict["error_type"] == "wrong_answer" and judged.any_answer else verdict["error_type"]


class _Todo:
    """The solutions still to judge, problem by problem: only the tests of the problems at work are in memory."""

    def __init__(self, rows: list[int], survivors: Survivors, tests_raw: list[Path], most: int, cache: VerdictCache):
        self.rows, self.survivors, self.tests_raw, self.most, self.cache = rows, survivors, tests_raw, most, cache
        self.counts: Counter[str] = Counter()
        self.failure = ""
        self.waiting: dict[str, list[tuple[int, _By]]] = {}  # cache key -> the rows with that program on those tests

    def judged(self, config: JudgeConfig) -> Iterator[tuple[int, dict, _By]]:
        """(row, verdict, by what) of each row that has tests, as they finish; cached verdicts come at the end."""
        known: list[tuple[int, dict, _By]] = []
        for key, verdict in judge_all(self._items(known), config):
            told = self.cache.add(key, verdict)
            self.failure = self.failure or (verdict.detail if verdict.error_type == "sandbox_error" else "")
            yield from ((row, told, judged) for row, judged in self.waiting.pop(key))
        yield from known

    def _items(self, known: list) -> Iterator[tuple[str, str, dict]]:
        for row, case in self._cases():
            code = extract_code(self.survivors.texts(row).answer)
            key = self.cache.key(code, case.digest)
            if key in self.waiting:
                self.waiting[key].append((row, case.judged))
            elif (verdict := self.cache.verdicts.get(key)) is not None:
                self.counts["from_cache"] += key in self.cache.earlier
                known.append((row, verdict, case.judged))
            else:
                self.waiting[key] = [(row, case.judged)]
                yield key, case.problem.program(code) if case.problem else code, case.cases

    def _cases(self) -> Iterator[tuple[int, _Case]]:
        of: dict[int, list[int]] = {}
        for row in self.rows:
            of.setdefault(self.survivors.problem[row], []).append(row)
        for problem in _problems(self.tests_raw, self.most):
            key = statement_hash(words_of(problem.prompt))
            number = self.survivors.problem_of(id_key(problem.problem_id), key)
            if number is not None and (rows := of.pop(number, [])):
                case = _Case(
                    _By("tests", accepts_any_answer(problem.prompt)), problem.test_cases, _digest(problem), problem
                )
                yield from ((row, case) for row in rows)
        for row in (row for rows in of.values() for row in rows):
            texts = self.survivors.texts(row)
            if not texts.examples:
                self.counts["without_tests_or_examples"] += 1
                continue
            tests = texts.examples[: self.most or None]
            cases = {"type": "codecontests", "tests": tests}
            yield row, _Case(_By("examples", accepts_any_answer(texts.user)), cases, sha256_json(tests))


def _digest(problem: Problem) -> str:
    return sha256_json([problem.test_cases, problem.prompt if problem.test_type == "humaneval" else ""])


def _problems(paths: list[Path], most: int) -> Iterator[Problem]:
    """The problems of raw files, or of CodeContests' own files, each cut to its first `most` tests."""
    columns = [
        "problem_id",
        "prompt",
        "test_cases",
        "name",
        "description",
        "source",
        "cf_contest_id",
        "cf_index",
        "public_tests",
        "private_tests",
        "generated_tests",
    ]
    for path in paths:
        for where, row in rows_of(path, columns):
            try:
                row = row if row.get("test_cases") else codecontests_record(row)
            except Refused:
                continue
            except (KeyError, TypeError, ValueError, AttributeError) as e:
                raise BadInput(
                    f"{where}: neither a raw file's problem nor CodeContests' schema ({type(e).__name__}: {e})"
                ) from None
            problem = check_raw_row(where, row, "tests_raw")
            if most:
                for key in {"tests", "test_list"} & problem.test_cases.keys():
                    problem.test_cases[key] = problem.test_cases[key][:most]
            yield problem


class VerdictCache:
    """An append-only file of verdicts; its torn last line, which a kill may leave, is cut off."""

    def __init__(self, path: Path, config: JudgeConfig):
        self.path = path
        limits = {
            k: v for k, v in asdict(config).items() if k in ("judge", "compare", "run_timeout", "memory_limit_mb")
        }
        self._limits = sha256_json(limits)
        self.verdicts: dict[str, dict] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by `close`
        self._read()
        self.earlier = frozenset(self.verdicts)  # of earlier runs

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        with open(self.path, "rb") as f:
            for number, line in enumerate(f, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    row = json.loads(line)
                    self.verdicts[row["key"]] = {
                        k: row[k] for k in ("error_type", "tests_passed", "tests_total", "detail")
                    }
                except (ValueError, KeyError, TypeError):
                    raise BadInput(
                        f"{self.path}:{number}: not a cached verdict; delete this line, or the file to judge all again"
                    ) from None
                whole += len(line)
        self._file.truncate(whole)

    def key(self, program: str, tests: str) -> str:
        """The hash under which a verdict on `program` lies; `tests` is the digest of its tests."""
        return sha256_text(f"{self._limits}\0{tests}\0{program}")

    def add(self, key: str, verdict: Verdict) -> dict:
        """What is kept of a verdict; written down unless the judge itself failed."""
        kept = {k: getattr(verdict, k) for k in ("error_type", "tests_passed", "tests_total")} | {
            "detail": verdict.detail[:200]
        }
        if verdict.error_type != "sandbox_error":
            self.verdicts[key] = kept
            line = json.dumps({"key": key, **kept}).encode() + b"\n"
            if self._file.write(line) != len(line):
                raise OSError(28, os.strerror(28), str(self.path))
        return kept

    def close(self) -> None:
        self._file.close()
