"""The per-problem records of an evaluation on disk: append, resume, read.

`completions/{dataset}.jsonl` has a line a generated answer, `results/{dataset}.jsonl` a line a finished problem: the
answer and its verdict. A line is appended whole by one write; the torn last line that a crash may leave is cut off
when the file is next opened for appending and skipped by readers, and its problem is done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from phase1.files import BadInput, finite

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
    other: dict[str, Any] | None = None
    detail: str = ""  # the last line of a traceback, a signal's name, …
    test_verdicts: list[str] = field(default_factory=list)
    first_failed_case: dict[str, Any] | None = None
    finished: float = 0.0  # Unix time of the verdict


class RecordLog:
    """An append-only JSON Lines file that keeps its promise through a kill: every line in it is whole."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._cut_torn_tail()

    def _cut_torn_tail(self) -> None:
        size = os.fstat(self._fd).st_size
        end = size
        while end > 0:
            start = max(0, end - (1 << 16))
            block = os.pread(self._fd, end - start, start)
            if (at := block.rfind(b"\n")) >= 0:
                end = start + at + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._fd, end)

    def append(self, record: Completion) -> None:
        """Append one record; it is in the kernel's hands when this returns, so only a power cut can lose it."""
        line = json.dumps(finite(asdict(record)), ensure_ascii=True, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        written = os.write(self._fd, line)
        if written != len(line):  # the disk filled up in the middle of the line
            os.ftruncate(self._fd, size)
            raise OSError(28, "No space left on device", str(self.path))

    def close(self) -> None:
        os.close(self._fd)


Kept = TypeVar("Kept", bound=Completion)


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of a file, a torn last line dropped; nothing when it does not exist. BadInput for damage
    elsewhere."""
    return _read(Path(path), Record)


def read_completions(path: str | Path) -> Iterator[Completion]:
    """The same of a file of completions."""
    return _read(Path(path), Completion)


def _read(path: Path, kind: type[Kept]) -> Iterator[Kept]:
    if not path.exists():
        return
    names = {f.name for f in fields(kind)}
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                yield kind(**{k: v for k, v in row.items() if k in names})
            except (ValueError, TypeError, AttributeError) as e:
                raise BadInput(
                    f"{path}:{number}: not a whole record ({e}); delete this line to have its problem done again"
                ) from None
