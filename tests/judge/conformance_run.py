"""Both sides of the conformance bench: plain Python as the reference, the judge, and what differs between them.

The reference is `python3 main.py < input > output` in an empty folder, with the interpreter that the judge chose, its
fixed environment (phase1/judge/launcher.py) and no other flags. Only our own programs are run this way: it isolates
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from phase1.judge import sandbox
from phase1.judge.config import JudgeConfig
from phase1.judge.inside.protocol import EXITED, SIGNALLED
from phase1.judge.interpreters import PROGRAM_PACKAGES
from phase1.judge.judge import Judge, open_judge
from phase1.judge.launcher import ENVIRONMENT
from phase1.judge.outcomes import Outcome as TestOutcome
from phase1.judge.outcomes import ProcessEnd, Task, TestRun
from phase1.judge.verdict import Verdict
from tests.judge.conformance_programs import Program

PATIENCE = 120  # s a reference may take
REPEATS = 2  # of each program in the judge
CONFIG = JudgeConfig(workers=2, run_timeout=10.0, compare="exact")
COMPILE_ERRORS = ("SyntaxError", "IndentationError", "TabError")
_ADDRESS = re.compile(rb"0x[0-9a-f]{6,}")
_LAUNCH_ONLY = ("LD_BIND_NOW",)  # set for the fork-server, which takes it away before a program runs


@dataclass(frozen=True)
class Outcome:
    """What a run did. `status`: `exit N`, `SIGNAME`, or a word for what only one side has (`timeout`,
    `syntax_error`)."""

    stdout: bytes
    status: str
    last_words: str  # the last line of stderr that is not blank

    @property
    def succeeded(self) -> bool:
        return self.status == "exit 0"


@dataclass(frozen=True)
class Difference:
    """Where the two part. `kinds`: of stdout, status, stderr, verdict."""

    program: Program
    kinds: tuple[str, ...]
    plain: Outcome
    judged: Outcome
    verdict: str = ""

    def describe(self) -> str:
        """Two lines, the reference's and the judge's."""
        shown = [
            f"  {side}: {o.status}, stdout {_short(o.stdout)}, stderr ends {o.last_words[:120]!r}"
            for side, o in (("plain", self.plain), ("judge", self.judged))
        ]
        return f"{self.program.name}: {', '.join(self.kinds)}\n{shown[0]}\n{shown[1]}, verdict {self.verdict}"


def _short(data: bytes) -> str:
    return repr(data) if len(data) <= 160 else f"{data[:80]!r}…{data[-60:]!r} ({len(data)} bytes)"


def _last_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return _ADDRESS.sub(b"0x", lines[-1].strip().encode()).decode() if lines else ""


# ----------------------------------------------------------------------------------------------------------- reference
class Reference:
    """Runs programs as `python3 main.py`, each in a folder of its own."""

    def __init__(self, interpreter: str):
        self.interpreter = interpreter
        self.folder = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.packages = self.folder / "packages"
        self.packages.mkdir()
        for name in PROGRAM_PACKAGES:
            spec = importlib.util.find_spec(name)
            for place in spec.submodule_search_locations or () if spec else ():
                for path in (Path(place), Path(f"{place}.libs")):
                    if path.is_dir():
                        (self.packages / path.name).symlink_to(path)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: Program) -> Outcome:
        """The outcome of a program; its folder reads `/tmp` in the output, which is where programs are in the
        sandbox."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        (place / "run").mkdir()
        # As the judge gets it: a text, which is only encoded.
        (place / "run" / "main.py").write_bytes(program.code.encode("utf-8", "surrogatepass"))
        (place / "stdin").write_bytes(program.stdin.encode("utf-8", "surrogatepass"))
        environment = {k: v for k, v in ENVIRONMENT.items() if k not in _LAUNCH_ONLY}
        if program.packages:
            environment["PYTHONPATH"] = str(self.packages)
        with open(place / "stdin", "rb") as source, open(place / "out", "wb") as out, open(place / "err", "wb") as err:
            process = subprocess.Popen(
                [self.interpreter, "main.py"],
                stdin=source,
                stdout=out,
                stderr=err,
                cwd=place / "run",
                env=environment,
                start_new_session=True,
                umask=0o022,
            )
            try:
                code = process.wait(PATIENCE)
                status = f"exit {code}" if code >= 0 else signal.Signals(-code).name
            except subprocess.TimeoutExpired:
                status = "timeout"
            with contextlib.suppress(ProcessLookupError):  # also what the program left behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        run = str(place / "run").encode()
        output, errors = ((place / name).read_bytes().replace(run, b"/tmp") for name in ("out", "err"))
        shutil.rmtree(place, ignore_errors=True)
        return Outcome(output, status, _last_words(errors))

    def run_all(self, programs: Iterable[Program], at_once: int = 2) -> Iterator[Outcome]:
        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(self.run, programs)


# --------------------------------------------------------------------------------------------------------------- judge
@dataclass
class _Recorder:
    """In place of the sandbox's `run`: keeps what each test of a program did, which a verdict does not carry."""

    run_task: Callable[[Task], AsyncGenerator[TestRun, None]]
    runs: dict[str, list[TestRun]] = field(default_factory=dict)
    statuses: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def key(code: str, stdin: str) -> str:
        return f"{code}\0{stdin}"

    async def run(self, task: Task) -> AsyncGenerator[TestRun, None]:
        async with contextlib.aclosing(self.run_task(task)) as runs:
            async for run in runs:
                if task.inputs:
                    self.runs.setdefault(self.key(task.program, task.inputs[0]), []).append(run)
                yield run

    def saw(self, kind: int, code: int, task: Task) -> None:
        """How a stdin test ended, as the sandbox reads it. Called before its run is yielded."""
        if task.inputs:
            status = f"exit {code}" if kind == EXITED else signal.Signals(code).name if kind == SIGNALLED else "stopped"
            self.statuses.setdefault(self.key(task.program, task.inputs[0]), []).append(status)


class Judged:
    """The judge as the bench uses it, with what a program wrote and how it ended beside the verdict."""

    def __init__(self, judge: Judge):
        self.judge, self.recorder = judge, _Recorder(judge.backend.run)
        judge.backend.run = self.recorder.run

    async def run(self, program: Program, plain: Outcome) -> tuple[Verdict, Outcome]:
        """The verdict with the reference's output as the expected one, and the outcome.

        The test is given REPEATS times, for a fork-server may serve its first test well and its second not; the outcome
        is the first that is not the reference's.
        """
        want = plain.stdout.decode("utf-8", "replace")
        cases = {"type": "codecontests", "tests": [{"input": program.stdin, "output": want}] * REPEATS}
        verdict = await self.judge.judge(program.code, cases)
        key = self.recorder.key(program.code, program.stdin)
        runs, statuses = self.recorder.runs.pop(key, []), self.recorder.statuses.pop(key, [])
        if len(runs) != REPEATS or len(statuses) != REPEATS:  # it did not compile, or the judge failed
            return verdict, Outcome(b"", verdict.error_type, verdict.detail)
        outcomes = [
            Outcome(run.output, "timeout" if run.verdict == "timeout" else status, _last_words(run.stderr))
            for run, status in zip(runs, statuses, strict=True)
        ]
        return verdict, next((o for o in outcomes if o != plain), outcomes[-1])


@contextlib.asynccontextmanager
async def open_judged(config: JudgeConfig = CONFIG) -> AsyncGenerator[Judged, None]:
    """A Judged; while it is open, exit codes are taken where the sandbox reads them."""
    original = sandbox.stdin_verdict
    async with open_judge(config) as judge:
        judged = Judged(judge)

        def watched(end: ProcessEnd, task: Task, too_long: bool = False) -> TestOutcome:
            judged.recorder.saw(end.kind, end.code, task)
            return original(end, task, too_long)

        sandbox.stdin_verdict = watched
        try:
            yield judged
        finally:
            sandbox.stdin_verdict = original


# ---------------------------------------------------------------------------------------------------------- comparison
def compare(program: Program, plain: Outcome, verdict: Verdict, judged: Outcome) -> Difference | None:
    """What differs, or None."""
    if (
        verdict.error_type == "syntax_error"
        and plain.status == "exit 1"
        and plain.last_words.startswith(COMPILE_ERRORS)
    ):
        return None
    kinds = []
    if plain.stdout != judged.stdout:
        kinds.append("stdout")
    if plain.status != judged.status:
        kinds.append("status")
    if plain.last_words != judged.last_words:
        kinds.append("stderr")
    if verdict.accepted != plain.succeeded and _is_text(plain.stdout):
        kinds.append("verdict")
    return Difference(program, tuple(kinds), plain, judged, verdict.error_type) if kinds else None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


async def differences(programs: list[Program], config: JudgeConfig = CONFIG) -> list[Difference]:
    """Run every program on both sides, one side after the other so that neither slows the other down."""
    async with open_judged(config) as judged:
        reference = Reference(judged.judge.info["interpreter"]["path"])
        try:
            plain = await asyncio.to_thread(lambda: list(reference.run_all(programs)))
        finally:
            reference.close()

        async def one(program: Program, outcome: Outcome) -> Difference | None:
            verdict, seen = await judged.run(program, outcome)
            return compare(program, outcome, verdict, seen)

        found: list[Difference] = []
        for start in range(0, len(programs), 64):
            pairs = list(zip(programs, plain, strict=True))[start : start + 64]
            found += [d for d in await asyncio.gather(*(one(p, o) for p, o in pairs)) if d is not None]
        return found
