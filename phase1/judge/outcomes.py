"""What the sandbox is asked and what it answers: tasks, test runs, and the reading of one from what the fork-server
saw."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from phase1.contract.records import MODEL_ERRORS
from phase1.judge.inside import fork_server

PROCESSES = 64  # processes and threads of one sandbox
MAX_TIMEOUTS = 3  # one after another; the rest of the tests then count as failed
ATTEMPTS = 3  # of a test whose sandbox died without a word


class CompileFailed(Exception):
    """The program does not compile: syntax_error."""


class SandboxFailed(Exception):
    """The judge itself failed, after retries: sandbox_error, never the model's."""


@dataclass
class Task:
    """A program with its tests: stdin programs have `inputs`, assert tasks `tests` (source, ready to be executed)."""

    program: str
    kind: str  # stdin | assert
    count: int
    limit: float  # CPU seconds a test
    memory: int  # bytes
    inputs: list[str] = field(default_factory=list)
    longest_output: int = 0  # of the expected ones, characters
    setup: str = ""
    tests: list[str] = field(default_factory=list)
    entry_point: str = ""
    modules: list[str] = field(default_factory=list)


@dataclass
class TestRun:
    """What one test did. `verdict` is empty where only the comparison of `output` can tell."""

    verdict: str
    detail: str
    cpu: float  # s
    wall: float  # s
    peak_rss: int  # bytes
    output: bytes = b""
    stderr: bytes = b""


class Sandbox(Protocol):
    """Something that runs programs: LocalSandbox on this machine, FusionSandbox on servers.

    `info`: what it is and what it holds, for run.json. `lost`: runs that ended without a word of the program's; each
    costs a second try, and 0 is the only good figure.
    """

    info: dict[str, JsonValue]
    lost: int

    async def open(self) -> None:
        """Get ready. Raises BadInput where no program can be run."""

    async def close(self) -> None:
        """End every process that it started."""

    def run(self, task: Task) -> AsyncGenerator[TestRun]:
        """Run the tests in order, a TestRun each; fewer after MAX_TIMEOUTS timeouts in a row.

        Raises:
            CompileFailed: the program does not compile.
            SandboxFailed: the sandbox failed, after ATTEMPTS tries.
        """
        ...


def stdin_verdict(kind: int, code: int, too_long: bool, err: bytes, rss: int, task: Task) -> tuple[str, str]:
    """(verdict, detail) of a stdin test; ("", "") where the output decides."""
    if kind in (fork_server.CPU, fork_server.IDLE, fork_server.WALL):
        return "timeout", _timeout_detail(kind, task)
    if kind == fork_server.MEMORY:
        return "runtime_error", over_memory(task.memory)
    if too_long:
        return "runtime_error", "output_limit: the program wrote more than the judge reads"
    if kind == fork_server.SIGNALLED:
        return "runtime_error", _signal_name(code)
    if code:
        lines = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
        words = lines[-1].strip()[:300] if lines else f"exit code {code}"
        return "runtime_error", words + (
            f" ({PROCESSES} threads and processes are allowed)" if "can't start new thread" in words else ""
        )
    return "", ""


def over_memory(limit: int) -> str:
    """The detail of a test that took more memory than its limit (bytes)."""
    return f"over the memory limit of {limit / (1 << 20):g} MiB"


def _timeout_detail(kind: int, task: Task) -> str:
    what = {fork_server.CPU: "CPU time", fork_server.IDLE: "waiting", fork_server.WALL: "wall time"}[kind]
    return f"more than {task.limit:g} s of {what}" if kind != fork_server.WALL else "far more wall time than its limit"


def _signal_name(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"


def assert_runs(
    kind: int, code: int, report: bytes, marker: bytes, task: Task, first: int, wall: float, rss: int, err: bytes
) -> list[TestRun]:
    """The TestRuns of one process of an assert task, which ran tests from `first` on; see
    inside/asserts.py, assert_child."""
    runs: list[TestRun] = []
    ended = False
    for line in report.split(b"\n"):
        if not line.startswith(marker + b" "):
            continue
        if line == marker + b" end":
            ended = True
            break
        try:
            _, number, word, seconds, *text = line.split(b" ", 4)
            verdict, cpu, detail = word.decode("ascii"), float(seconds), b"".join(text).decode(errors="replace")
            MODEL_ERRORS.index(verdict)
        except ValueError:  # cut off, or forged by a program that found the marker
            break
        if cpu > task.limit:
            verdict, detail = "timeout", _timeout_detail(fork_server.CPU, task)
        run = TestRun(verdict, detail, cpu, cpu, rss, b"", err)
        if number == b"-1":  # the program itself failed, before any test
            runs = [run] * (task.count - first)
            ended = True
            break
        runs.append(run)
    if not ended or len(runs) < task.count - first:
        runs = runs[: task.count - first - 1]
        verdict, detail = stdin_verdict(kind, code, False, err, rss, task)
        if kind == fork_server.EXITED:
            verdict, detail = "runtime_error", f"the program ended before its tests were done (exit code {code})"
        runs.append(TestRun(verdict, detail, 0.0, 0.0, rss, b"", err))
    runs = runs[: task.count - first]
    if kind == fork_server.MEMORY:  # which of its tests took the memory is not known
        runs = [TestRun("runtime_error", over_memory(task.memory), run.cpu, run.wall, rss, b"", err) for run in runs]
    for run in runs:
        run.wall = wall / len(runs)
    return runs
