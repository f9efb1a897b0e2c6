"""The records of an evaluation on disk, one a problem: append, resume, read.

`completions/{dataset}.jsonl` has a line for each generated answer, `results/{dataset}.jsonl` a line for each finished
problem: the answer and its verdict. A crash may leave a torn last line; it is dropped, and its problem is done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from phase1.files import BadInput, LineLog, whole_lines

# Worst first where the tests of a problem differ (contract 6); the rest are never counted as the model's own failure.
MODEL_ERRORS = ("syntax_error", "runtime_error", "timeout", "wrong_answer", "success")
EXEC_SUCCESS = ("success", "wrong_answer")  # the program ran to its end on every test (contract 6)
OTHER_ERRORS = ("empty_output", "api_error", "sandbox_error")
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


class RecordLog:
    """A file of records to append to (phase1.files.LineLog): every line in it is whole."""

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
        BadInput: a whole line is no record.
    """
    return _read(Path(path), Record)


def read_completions(path: str | Path) -> Iterator[Completion]:
    """The completions of a file, as `read_records` gives records; a record is read as the completion it holds."""
    return _read(Path(path), Completion)


def _read(path: Path, kind: type[Kept]) -> Iterator[Kept]:
    known = {f.name for f in fields(kind)}  # fields of a later version are left out
    for number, line in enumerate(whole_lines(path), 1):
        try:
            row = json.loads(line)
            yield kind(**{name: value for name, value in row.items() if name in known})
        except (ValueError, TypeError, AttributeError) as e:
            raise BadInput(
                f"{path}:{number}: not a whole record ({e}); delete this line to have its problem done again"
            ) from None
