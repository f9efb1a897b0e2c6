"""--verify_solutions: run training solutions in the judge, on a problem's tests where known, else on its examples.

Verdicts are kept as they come (phase1/data/verdict_cache.py), so a run that was killed goes on where it was and a later
run with more data judges only what is new. Delete the cache to have everything judged again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.contract.comparison import Comparison, comparison_of
from phase1.contract.extraction import extract_code
from phase1.contract.problems import Problem, check_raw_row
from phase1.data.decontaminate import id_key, statement_hash, words_of
from phase1.data.kept_records import Drop, Survivors
from phase1.data.progress import ProgressBar
from phase1.data.public_sets import (
    CODECONTESTS_COLUMNS,
    RAW_COLUMNS,
    Refused,
    codecontests_record,
    rows_of,
)
from phase1.data.statements import with_rule
from phase1.data.verdict_cache import KeptVerdict, VerdictCache
from phase1.files import BadInput, sha256_file, sha256_json
from phase1.judge.compare import PROBLEM
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all


@dataclass(frozen=True)
class VerifySettings:
    """What solutions are run on, and how.

    Attributes:
        tests_raw: problems with tests: raw files, or CodeContests' own files.
        most: tests of a problem that are run, the first ones; 0 = all.
        cache: the file of verdicts.
        judge: limits and workers.
    """

    tests_raw: Sequence[Path]
    most: int
    cache: Path
    judge: JudgeConfig


@dataclass
class Verified:
    """What running the solutions showed.

    Attributes:
        drops: the rows whose solution failed, in row order.
        counts: solutions by what they were judged by and what came out, for the report.
        rules: the same of those solutions alone whose problem has a rule of its own for outputs, by the rule in words.
        all_fail: names of problems with two solutions or more of which none passed.
    """

    drops: list[Drop] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rules: dict[str, Counter[str]] = field(default_factory=dict)
    all_fail: list[str] = field(default_factory=list)

    def told(self, settings: VerifySettings) -> dict[str, JsonValue]:
        """What sft_report.json says of it."""
        return {
            "counts": dict(sorted(self.counts.items())),
            "rules": {rule: dict(sorted(counts.items())) for rule, counts in sorted(self.rules.items())},
            "problems_where_every_solution_failed": self.all_fail,
            "cache": str(settings.cache),
            "tests_sha256": {str(path): sha256_file(path) for path in settings.tests_raw},
        }


def verify(rows: Iterable[int], survivors: Survivors, settings: VerifySettings) -> Verified:
    """Judge the solutions of `rows`.

    Raises:
        BadInput: a file of tests is damaged, or the judge itself failed on some solutions; what it could judge is in
            the cache, so the next run is short.
    """
    result = Verified()
    passed: set[int] = set()  # problems
    failed: dict[int, list[int]] = {}  # rows by problem
    with closing(VerdictCache(settings.cache, settings.judge)) as verdicts:
        todo = _Todo(list(rows), survivors, settings, verdicts)
        with ProgressBar("solutions judged", total=len(todo.rows)) as bar:
            for row, verdict, judged in todo.judged():
                bar.advance()
                reason = _fault(verdict, judged)
                outcome = f"{judged.by}_{reason or 'kept'}"
                result.counts[outcome] += 1
                if rule := judged.rule.words:
                    result.rules.setdefault(rule, Counter())[outcome] += 1
                if reason in ("sandbox_error", "any_answer", ""):
                    passed.add(survivors.problem[row])
                else:
                    failed.setdefault(survivors.problem[row], []).append(row)
                    by = f" by the statement's rule ({rule})" if rule else ""
                    told = f"{verdict.tests_passed} of {verdict.tests_total} {judged.by} passed{by}; {verdict.detail}"
                    result.drops.append(Drop(row, f"verify_{reason}", told))
        result.counts += todo.counts
    broken = sum(n for kind, n in result.counts.items() if kind.endswith("_sandbox_error"))
    if broken:
        raise BadInput(
            f"{settings.cache}: the judge failed on {broken} solutions ({todo.failure}); run again, what was judged is "
            "kept there"
        )
    hopeless = [rows[0] for problem, rows in failed.items() if len(rows) > 1 and problem not in passed]
    result.all_fail = sorted({survivors.texts(row).name for row in hopeless})
    result.drops.sort()
    return result


@dataclass(frozen=True)
class _By:
    """What a solution is judged by: `tests` of a raw file or `examples` of its statement, and the rule for outputs."""

    by: str
    rule: Comparison


@dataclass(frozen=True)
class _Case:
    """The tests a solution is run on; megabytes, so it is let go with its problem."""

    judged: _By
    cases: dict[str, JsonValue]
    digest: str
    problem: Problem | None = None


class _Judged(NamedTuple):
    row: int
    verdict: KeptVerdict
    judged: _By


def _fault(verdict: KeptVerdict, judged: _By) -> str:
    """Why a solution goes: the judge's word; "" = it stays.

    Where any of several answers is right, another answer than the recorded one is no fault ("any_answer"); a crash is.
    """
    if verdict.error_type == "success":
        return ""
    return "any_answer" if verdict.error_type == "wrong_answer" and judged.rule.many_answers else verdict.error_type


@dataclass
class _Todo:
    """The solutions still to judge, problem by problem: only the tests of the problems at work are in memory.

    `waiting`: by cache key, the rows with that program on those tests. `failure`: how the judge itself failed first.
    """

    rows: list[int]
    survivors: Survivors
    settings: VerifySettings
    cache: VerdictCache
    counts: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    waiting: dict[str, list[tuple[int, _By]]] = field(default_factory=dict)
    known: list[_Judged] = field(default_factory=list)

    def judged(self) -> Iterator[_Judged]:
        """Each row that has tests, as its verdict comes; those whose verdict was known already come last."""
        for key, verdict in judge_all(self._items(), self.settings.judge):
            kept = self.cache.add(key, verdict)
            if verdict.error_type == "sandbox_error":
                self.failure = self.failure or verdict.detail
            yield from (_Judged(row, kept, judged) for row, judged in self.waiting.pop(key))
        yield from self.known

    def _items(self) -> Iterator[tuple[str, str, dict[str, JsonValue]]]:
        """What the judge is given: cache key, program, tests."""
        for row, case in self._cases():
            code = extract_code(self.survivors.texts(row).answer)
            key = self.cache.key(code, case.digest)
            if key in self.waiting:
                self.waiting[key].append((row, case.judged))
            elif (verdict := self.cache.verdicts.get(key)) is not None:
                self.counts["from_cache"] += key in self.cache.earlier
                self.known.append(_Judged(row, verdict, case.judged))
            else:
                self.waiting[key] = [(row, case.judged)]
                yield key, case.problem.program(code) if case.problem else code, case.cases

    def _cases(self) -> Iterator[tuple[int, _Case]]:
        """Each row with the tests of its problem; those without are counted."""
        rows_of_problem: dict[int, list[int]] = {}
        for row in self.rows:
            rows_of_problem.setdefault(self.survivors.problem[row], []).append(row)
        for problem in problems_with_tests(self.settings.tests_raw, self.settings.most):
            key = statement_hash(words_of(problem.prompt))
            number = self.survivors.problem_of(id_key(problem.problem_id), key)
            rows = rows_of_problem.pop(number, []) if number is not None else []
            if rows:
                judged = _By("tests", self._rule(problem.test_cases))
                case = _Case(judged, problem.judged, _digest(problem), problem)
                yield from ((row, case) for row in rows)
        for row in (row for rows in rows_of_problem.values() for row in rows):
            texts = self.survivors.texts(row)
            if not texts.examples:
                self.counts["without_tests_or_examples"] += 1
                continue
            tests = texts.examples[: self.settings.most or None]
            cases = with_rule({"type": "codecontests", "tests": tests}, texts.user)
            yield row, _Case(_By("examples", self._rule(cases)), cases, sha256_json(cases))

    def _rule(self, cases: dict[str, JsonValue]) -> Comparison:
        """The problem's own rule as far as `--compare` follows it."""
        rule = comparison_of(cases)
        return rule if self.settings.judge.compare == PROBLEM else Comparison(many_answers=rule.many_answers)


def _digest(problem: Problem) -> str:
    return sha256_json([problem.test_cases, problem.prompt if problem.test_type == "humaneval" else ""])


def problems_with_tests(paths: Sequence[Path], most: int, refused: Counter[str] | None = None) -> Iterator[Problem]:
    """The problems of raw files, or of CodeContests' own files.

    Args:
        most: tests that are kept of each, the first ones; 0 = all.
        refused: where those without statement or tests are counted, by reason.

    Raises:
        BadInput: a file is damaged or holds something else.
    """
    for path in paths:
        for where, found in rows_of(path, (*RAW_COLUMNS, *CODECONTESTS_COLUMNS)):
            try:
                row = found if found.get("test_cases") else codecontests_record(found)
            except Refused as e:
                if refused is not None:
                    refused[str(e).replace(" ", "_")] += 1
                continue
            except (KeyError, TypeError, ValueError, AttributeError) as e:
                raise BadInput(
                    f"{where}: neither a raw file's problem nor CodeContests' schema ({type(e).__name__}: {e}); give "
                    "--tests_raw a file that prepare_eval_data.py wrote, or CodeContests' own Parquet"
                ) from None
            problem = check_raw_row(where, row, "tests_raw")
            problem = replace(problem, test_cases=with_rule(problem.test_cases, problem.prompt))
            if most:
                for key in {"tests", "test_list"} & problem.test_cases.keys():
                    problem.test_cases[key] = problem.test_cases[key][:most]
            yield problem
