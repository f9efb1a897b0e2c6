"""The records of an evaluation on disk, one a problem: append, resume, read.

`completions/{dataset}.jsonl` has a line for each generated answer, `results/{dataset}.jsonl` a line for each finished
problem: the answer and its verdict. A crash may leave a torn last line; it is dropped, and its problem is done again.
What a record says of its tests together follows from what it says of each; a line in which it does not is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import JsonValue

from phase1.files import BadInput
from phase1.line_log import LineLog, whole_lines

# Worst first where the tests of a problem differ (contract 6); the rest are never counted as the model's own failure.
MODEL_ERRORS = ("syntax_error", "runtime_error", "timeout", "wrong_answer", "success")
EXEC_SUCCESS = ("success", "wrong_answer")  # the program ran to its end on every test (contract 6)
OTHER_ERRORS = ("empty_output", "api_error", "sandbox_error")
NOT_RUN = "not_run"  # of a test behind too many timeouts: it counts as failed
UNTESTED = ("syntax_error", *OTHER_ERRORS)  # how a problem can end of which no test ran
NO_ANSWER = ("error", "too_long")  # finish_reason of a completion that was never generated: api_error


@dataclass
class Completion:
    """One generated answer. Times are seconds; `finish_reason` is the server's (stop, length) or one of NO_ANSWER."""

    dataset: str
    problem_id: str
    prompt: str  # the user turn
    prompt_sha256: str
    completion: str
    finish_reason: str
    prompt_tokens: int
    gen_tokens: int
    gen_time: float
    started: float  # Unix time at which the request was sent
    session: int  # 0 for the first start of this evaluation, 1 after its first resume, …
    sample: int = 0
    error: str | None = None  # why generation failed, when finish_reason is `error`


@dataclass
class Record(Completion):
    """A finished problem: the completion and what the judge said of it."""

    code: str = ""
    error_type: str = "sandbox_error"  # one of MODEL_ERRORS or OTHER_ERRORS
    accepted: bool = False
    pass_ratio: float = 0.0
    tests_total: int = 0
    tests_run: int = 0
    tests_passed: int = 0
    judge_time: float = 0.0  # seconds spent executing this problem's tests
    form: str = ""  # of the answer, in the contract's order: code_tag, fence, whole
    rule: str = ""  # by which a careful reader found the program (phase1/contract/extraction.py); "" in older files
    # Where the other extraction takes another program: {extraction, code, error_type, accepted, pass_ratio, detail}.
    other: dict[str, JsonValue] | None = None
    detail: str = ""  # the last line of a traceback, a signal's name, …
    test_verdicts: list[str] = field(default_factory=list)
    first_failed_case: dict[str, JsonValue] | None = None
    finished: float = 0.0  # Unix time of the verdict
    tests_silent: int | None = None  # tests on which the program printed nothing; None: asserts, or an older file
    tests_unread: int | None = None  # tests on which it read nothing of its input; None: as above, or not known
    compared_by: str = ""  # the problem's own rule for outputs that its tests were compared by, in words; "" for none
    accepted_under: dict[str, bool] | None = None  # by mode of --compare; None: no outputs compared, or an older file


@dataclass(frozen=True)
class Tested:
    """What the verdicts of its tests make of a problem (contract 6)."""

    error_type: str
    accepted: bool
    pass_ratio: float
    tests_total: int
    tests_run: int
    tests_passed: int


def tested(test_verdicts: Sequence[str]) -> Tested:
    """The worst error counts, `accepted` is all or nothing.

    Args:
        test_verdicts: of each test, a word of MODEL_ERRORS or NOT_RUN; at least one.
    """
    passed, total = test_verdicts.count("success"), len(test_verdicts)
    ran = [v for v in test_verdicts if v != NOT_RUN]
    return Tested(
        error_type=min(ran, key=MODEL_ERRORS.index, default="success"),
        accepted=passed == total,
        pass_ratio=passed / total,
        tests_total=total,
        tests_run=len(ran),
        tests_passed=passed,
    )


def prints_nothing(record: Record) -> bool | None:
    """Whether the program ran to its end on every test, printed nothing on any, and so was wrong; None: not known."""
    if record.error_type != "wrong_answer":
        return False
    return None if record.tests_silent is None else record.tests_silent == record.tests_run


def reads_nothing(record: Record) -> bool | None:
    """Whether the program ran to its end on every test and read nothing of any input; None: not known."""
    if record.error_type not in EXEC_SUCCESS:
        return False
    return None if record.tests_unread is None else 0 < record.tests_run == record.tests_unread


def does_nothing(record: Record) -> bool | None:
    """Whether the program ran to its end on every test, was wrong, and printed nothing or read nothing of any input.

    None where it is not known which programs print nothing; what is not known of reading counts for nothing.
    """
    silent = prints_nothing(record)
    if silent or silent is None:
        return silent
    return record.error_type == "wrong_answer" and bool(reads_nothing(record))


def is_final(record: Record) -> bool:
    """Whether another start leaves this record alone: only failures of the generator or the judge are tried again."""
    failed = record.error_type == "sandbox_error" or (record.other or {}).get("error_type") == "sandbox_error"
    return not failed and record.finish_reason != "error"


def _contradiction(r: Record) -> str:
    """What a record says that the verdicts of its tests do not; "" where they agree."""
    words = r.test_verdicts
    if not isinstance(words, list) or any(word not in (*MODEL_ERRORS, NOT_RUN) for word in words):
        return f"test_verdicts is {str(words)[:80]}, expected a list of {', '.join((*MODEL_ERRORS, NOT_RUN))}"
    if not words:
        if r.error_type in UNTESTED and r.accepted is False and r.pass_ratio == 0:
            return ""
        return f"{r.error_type}, accepted {r.accepted}, pass_ratio {r.pass_ratio} without the verdict of any test"
    derived = tested(words)
    for name in ("error_type", "accepted", "tests_total", "tests_run", "tests_passed"):
        said, follows = getattr(r, name), getattr(derived, name)
        if type(said) is not type(follows) or said != follows:
            return f"{name} is {said!r}, the verdicts of its {len(words)} tests make it {follows!r}"
    if not isinstance(r.pass_ratio, int | float) or not math.isclose(r.pass_ratio, derived.pass_ratio, abs_tol=1e-9):
        return f"pass_ratio is {r.pass_ratio!r}, the verdicts of its {len(words)} tests make it {derived.pass_ratio!r}"
    for name in ("tests_silent", "tests_unread"):
        count = getattr(r, name)
        if count is not None and (type(count) is not int or not 0 <= count <= derived.tests_run):
            return f"{name} is {count!r}, and {derived.tests_run} tests ran"
    if r.accepted and isinstance(r.first_failed_case, dict):
        return "it is accepted, and first_failed_case names a test that failed"
    if isinstance(r.other, dict) and r.other.get("accepted") != (r.other.get("error_type") == "success"):
        return f"other.accepted is {r.other.get('accepted')!r}, other.error_type {r.other.get('error_type')!r}"
    return ""


class RecordLog:
    """A file of records to append to (phase1.line_log.LineLog): every line in it is whole."""

    def __init__(self, path: str | Path) -> None:
        self._log = LineLog(path)

    def append(self, record: Completion) -> None:
        """Append one record.

        Raises:
            OSError: the disk is full; the file then ends with the record before.
        """
        self._log.append(asdict(record))

    def close(self) -> None:
        self._log.close()


Kept = TypeVar("Kept", bound=Completion)


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of a file, without a torn last line; nothing when it does not exist.

    Raises:
        BadInput: a whole line is no record, says of its tests together what they do not say one by one, or judges an
            answer again that has its verdict.
    """
    final: dict[tuple[str, int], int] = {}  # the line by problem and sample
    for line in _read(Path(path), Record):
        r = line.kept
        wrong, key = _contradiction(r), (r.problem_id, r.sample)
        if key in final:
            wrong = f"has its verdict in line {final[key]} already"
        if wrong:
            raise BadInput(
                f"{path}:{line.number}: {r.problem_id}: {wrong}; delete this line and evaluate again, which judges the "
                "stored answer anew"
            )
        if is_final(r):
            final[key] = line.number
        yield r


def read_completions(path: str | Path) -> Iterator[Completion]:
    """The completions of a file, as `read_records` gives records; a record is read as the completion it holds."""
    return (line.kept for line in _read(Path(path), Completion))


@dataclass(frozen=True)
class _Line(Generic[Kept]):
    number: int
    kept: Kept


def _read(path: Path, kind: type[Kept]) -> Iterator[_Line[Kept]]:
    known = {f.name for f in fields(kind)}  # fields of a later version are left out
    for number, line in enumerate(whole_lines(path), 1):
        try:
            row = json.loads(line)
            found = kind(**{name: value for name, value in row.items() if name in known})
        except (ValueError, TypeError, AttributeError) as e:
            raise BadInput(
                f"{path}:{number}: not a whole record ({e}); delete this line to have its problem done again"
            ) from None
        yield _Line(number, found)
