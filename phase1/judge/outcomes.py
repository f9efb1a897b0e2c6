"""What a sandbox is asked and what it answers: tasks, how a test's process ended, and what that makes of its tests."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from phase1.contract.records import MODEL_ERRORS
from phase1.judge.inside import protocol
from phase1.judge.inside.asserts import JUDGE_FAILED

PROCESSES = 64  # processes and threads of one sandbox
MAX_TIMEOUTS = 3  # one after another; the tests behind them are not run and count as failed
ATTEMPTS = 3  # of a test whose sandbox was lost
# Lost this often at the same test, while a trivial program runs: then it is the program that ends its sandboxes.
BLAMED = 2
MAX_ENDED = 3  # tests of a program that ended their sandboxes; those behind them are not run


class CompileFailed(Exception):
    """The program does not compile: syntax_error. The message is the compiler's."""


class SandboxFailed(Exception):
    """The sandbox itself failed, after retries: sandbox_error, which is never counted as the model's failure."""


@dataclass(frozen=True)
class AssertTests:
    """The tests of an assert task.

    Attributes:
        tests: source code, ready to be executed.
        entry_point: the name of the function that they call.
        setup: code that they need.
        prompt: the problem's own code, whose helpers and imports they may use; "" where it is not known.
        names: that set-up and tests use, and that the program may define.
        standard: further names that they use, and where to import each from: `sys`, `math.isclose`.
        shared: imports and classes of the set-up, which the program sees as well.
        classes: the names of those classes.
    """

    tests: list[str]
    entry_point: str
    setup: str = ""
    prompt: str = ""
    names: list[str] = field(default_factory=list)
    standard: dict[str, str] = field(default_factory=dict)
    shared: str = ""
    classes: list[str] = field(default_factory=list)


@dataclass
class Task:
    """A program with its tests.

    Attributes:
        program: source text.
        kind: `stdin` (a test is an input for the program) or `assert` (a test is code that calls the program).
        count: number of tests.
        limit: CPU seconds a test.
        memory: bytes a test.
        inputs: of a stdin task, a text a test.
        longest_output: of a stdin task, the characters of the longest expected output.
        asserts: of an assert task, its tests.
        headers: it runs a C++ compiler, which needs /usr/include; no other program sees that.
        slow: it is expected to run into its time limit; it changes when it runs, not what comes out.
    """

    program: str
    kind: str
    count: int
    limit: float
    memory: int
    inputs: list[str] = field(default_factory=list)
    longest_output: int = 0
    asserts: AssertTests | None = None
    headers: bool = False
    slow: bool = False


class ProcessEnd(NamedTuple):
    """How the process of a test ended, as the fork-server reports it (inside/protocol.py)."""

    kind: int  # a kind of frame, a constant of protocol.py
    code: int  # exit status or number of the signal
    cpu: float  # s
    wall: float  # s
    peak_rss: int  # bytes
    written: int  # bytes of stdout in all, of which `out` may be the beginning
    out: bytes
    err: bytes  # the end of stderr
    report: bytes  # of an assert task (tests_process.Report); of a stdin test protocol.READ, or nothing


@dataclass
class TestRun:
    """What one test did. `verdict` is empty where only the comparison of `output` can tell. `read`: whether the program
    read of its input; None where it is not known."""

    verdict: str
    detail: str
    cpu: float  # s
    wall: float  # s
    peak_rss: int  # bytes
    output: bytes = b""
    stderr: bytes = b""
    read: bool | None = None


@dataclass(frozen=True)
class Running:
    """A program that is being judged: the number of the test it is at (from 1), of how many, the seconds that it has
    been there, and the CPU seconds that it may be; of asserts, which share a process, those of all that are left."""

    test: int
    tests: int
    seconds: float
    limit: float


@dataclass(frozen=True)
class SandboxInfo:
    """What a sandbox says of itself; its fields go into run.json."""

    mode: str  # how programs are isolated, in words

    @property
    def missing(self) -> list[str]:
        """Guarantees without which nothing should be judged and that do not hold, each with what was seen."""
        return []

    def lines(self) -> list[str]:
        """The same for people: what `python -m phase1.judge --probe` prints."""
        return [f"mode         {self.mode}"]


class Sandbox(Protocol):
    """Something that runs programs: LocalSandbox on this machine, FusionSandbox on servers.

    Attributes:
        lost: runs that said nothing of the program and had to be repeated; 0 is the only good figure.
    """

    lost: int

    @property
    def info(self) -> SandboxInfo:
        """What it is and what it guarantees; complete once `open` has returned."""

    async def open(self) -> None:
        """Make ready to run tasks. Raises BadInput where programs cannot be run here as asked."""

    async def close(self) -> None:
        """End what runs and wait until it is gone. Does nothing where `open` was not called or failed."""

    def running(self) -> list[Running]:
        """The programs that run now, the one that has been longest at its test first; empty where that is not known."""

    def run(self, task: Task) -> AsyncGenerator[TestRun, None]:
        """Run the tests of a task.

        Yields:
            A TestRun for each test, in order; fewer than `task.count` after MAX_TIMEOUTS timeouts one after another,
            or after MAX_ENDED tests that ended their sandboxes.

        Raises:
            CompileFailed: before the first test, when the program does not compile.
            SandboxFailed: when a test could not be run in ATTEMPTS attempts.
        """


class Outcome(NamedTuple):
    """The verdict on one test and its reason, both empty where the output decides."""

    verdict: str
    detail: str


def stdin_verdict(end: ProcessEnd, task: Task, too_long: bool = False) -> Outcome:
    """What the end of a stdin test's process says of the test. `too_long`: it wrote more than the judge reads."""
    if end.kind in (protocol.CPU, protocol.IDLE, protocol.WALL):
        return Outcome("timeout", _timeout_detail(end.kind, task))
    if end.kind == protocol.MEMORY:
        return Outcome("runtime_error", over_memory(task.memory))
    if too_long:
        return Outcome("runtime_error", "output_limit: the program wrote more than the judge reads")
    if end.kind == protocol.SIGNALLED:
        return Outcome("runtime_error", _signal_name(end.code))
    if end.code:
        lines = [line for line in end.err.decode(errors="replace").splitlines() if line.strip()]
        detail = lines[-1].strip()[:300] if lines else f"exit code {end.code}"
        if "can't start new thread" in detail:
            detail += f" ({PROCESSES} threads and processes are allowed)"
        return Outcome("runtime_error", detail)
    return Outcome("", "")


def over_memory(limit: int) -> str:
    """The detail of a test that took more memory than its limit (bytes)."""
    return f"over the memory limit of {limit / (1 << 20):g} MiB"


def _timeout_detail(kind: int, task: Task) -> str:
    if kind == protocol.WALL:
        return "far more wall time than its limit"
    return f"more than {task.limit:g} s of {'CPU time' if kind == protocol.CPU else 'waiting'}"


def _signal_name(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"


def assert_runs(end: ProcessEnd, task: Task, first: int, marker: bytes) -> list[TestRun]:
    """The runs of one process of an assert task.

    Args:
        end: how the program's process ended; `report` has a line for each test that was finished
            (`tests_process.Report`).
        first: number of the test that the process began with.
        marker: the secret word that begins each line of the report.

    Returns:
        A run for each test that was finished, and one for the test that ended the process, if one did.

    Raises:
        SandboxFailed: when the tests cannot be run.
    """
    left = task.count - first
    runs: list[TestRun] = []
    complete = False
    for line in end.report.split(b"\n"):
        if not line.startswith(marker + b" "):
            continue
        if line == marker + b" end":
            complete = True
            break
        try:
            _, number, word, seconds, *text = line.split(b" ", 4)
            verdict, cpu, detail = word.decode("ascii"), float(seconds), b"".join(text).decode(errors="replace")
            MODEL_ERRORS.index(verdict)
        except ValueError:  # cut off
            break
        if int(number) == JUDGE_FAILED:
            raise SandboxFailed(detail)
        if cpu > task.limit:
            verdict, detail = "timeout", _timeout_detail(protocol.CPU, task)
        run = TestRun(verdict, detail, cpu, wall=cpu, peak_rss=end.peak_rss, stderr=end.err)
        if number == b"-1":  # the program itself failed, before any test
            runs = [run] * left
            complete = True
            break
        runs.append(run)
    if not complete or len(runs) < left:
        verdict, detail = stdin_verdict(end, task)
        if end.kind == protocol.EXITED:
            verdict, detail = "runtime_error", f"the program ended before its tests were done (exit code {end.code})"
        elif end.kind == protocol.TESTS:  # only the program can have done that
            verdict, detail = "runtime_error", "the program ended the process of its tests"
        del runs[left - 1 :]
        runs.append(TestRun(verdict, detail, cpu=0.0, wall=0.0, peak_rss=end.peak_rss, stderr=end.err))
    del runs[left:]
    if left == 1:  # the program's CPU time is the test's: that of its other processes too, which the report has not
        runs[0].cpu = max(runs[0].cpu, end.cpu)
        if runs[0].cpu > task.limit:
            runs[0].verdict, runs[0].detail = "timeout", _timeout_detail(protocol.CPU, task)
    wall = end.wall / len(runs)
    for run in runs:
        run.wall = wall
        if end.kind == protocol.MEMORY:  # which of its tests took the memory is not known
            run.verdict, run.detail = "runtime_error", over_memory(task.memory)
    return runs
