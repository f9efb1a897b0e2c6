"""The local sandbox: runs a task's tests in one bubblewrap a program, and tells what each test did.

`open()` chooses interpreter and isolation by trying them, best first; `run(task)` yields a TestRun a test. Expected
outputs are not known here.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, field

from phase1.files import BadInput
from phase1.judge import interpreters
from phase1.judge.box import Box, Died, Exit
from phase1.judge.inside import protocol
from phase1.judge.interpreters import Interpreter
from phase1.judge.launcher import TMP_BYTES, Cgroups, Plan
from phase1.judge.outcomes import (
    ATTEMPTS,
    BLAMED,
    MAX_ENDED,
    MAX_TIMEOUTS,
    PROCESSES,
    CompileFailed,
    Running,
    SandboxFailed,
    SandboxInfo,
    Task,
    TestRun,
    assert_runs,
    over_memory,
    stdin_verdict,
)
from phase1.judge.probes import ESSENTIAL, MEANING, probe
from phase1.judge.workers import ANY, CONTINUES, SLOW, Course, Workers

LAUNCHER_ENDS = 10.0  # seconds that a launcher may take to end once its socket is closed
OUTPUT_CAP = 32 << 20  # bytes of stdout a test; more where the expected output is long
# Bytes that several processes together may hold beyond the memory limit: each counts the pages they share again.
FAMILY_SLACK = 128 << 20
# The wall limit: so many times the limit of CPU, and s. Waiting for a processor does not count.
WALL_FACTOR, WALL_MORE = 10, 10.0
# Seconds without a word after which a sandbox is given up: it says every ALIVE_EVERY that a test still runs. Compiling
# it cannot say, so the first try is given up sooner; the next one compiles in a process that has limits.
SILENCE, SILENCE_COMPILING = 120.0, 30.0
CONTROL = Task("print(6 * 7)", kind="stdin", count=1, limit=10.0, memory=512 << 20, inputs=[""])

# The launcher sees the standard library first, and this project behind it.
_LAUNCHER = """
import sys
sys.path.append(sys.argv[1])
from phase1.judge.launcher import main
main(int(sys.argv[2]))
"""
_NUMBERS = itertools.count(1)  # of all sandboxes of this process: taken in one step, so that no two starts share one


@dataclass(frozen=True)
class InterpreterInfo:
    """The interpreter that runs the programs."""

    path: str
    version: str


@dataclass(frozen=True)
class LocalInfo(SandboxInfo):
    """What the local sandbox is here, and which of its guarantees were seen to hold."""

    cgroup: str | None  # version of the memory cgroups, "1" or "2"; None where none can be made
    cpu_account: str  # what counts CPU time (launcher.Cgroups)
    proc: bool  # whether /proc is there
    seccomp: bool  # whether system calls are filtered
    interpreter: InterpreterInfo
    packages: dict[str, str]  # shown to programs; name: version
    probes: dict[str, bool] = field(default_factory=dict)  # guarantee: whether it holds
    leaks: dict[str, str] = field(default_factory=dict)  # of those that do not: what was seen

    @property
    def missing(self) -> list[str]:
        return [f"{name} ({self.leaks[name][:200]})" for name in ESSENTIAL if name in self.leaks]

    def lines(self) -> list[str]:
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        lines = [
            *super().lines(),
            f"interpreter  {self.interpreter.version} {self.interpreter.path}",
            f"packages     {packages or 'none'}",
            f"cpu account  {self.cpu_account}",
            "",
        ]
        for name, held in self.probes.items():
            seen = "" if held else f": {self.leaks[name]}"
            lines.append(f"{name:16} {'holds' if held else 'FAILS'}  {MEANING[name]}{seen}")
        return lines


class LocalSandbox:
    """Sandboxes on this machine.

    Args:
        workers: how many run at a time.
        unsafe: where no isolation works, run programs without.
    """

    def __init__(self, workers: int, unsafe: bool = False):
        self.workers, self.unsafe = workers, unsafe
        self.pool = Workers(workers)
        self.boxes: dict[int, Box] = {}
        self.spare: list[Box] = []  # started and waiting for a task: starting is mostly waiting for the kernel
        self.lost = 0  # sandboxes that ended without a word; each costs its program a second try
        self.path: list[str] = []  # sys.path of the programs
        self.process: subprocess.Popen[bytes] | None = None
        self._info: LocalInfo | None = None

    @property
    def info(self) -> LocalInfo:
        """What it is; there is none before `open`."""
        assert self._info is not None
        return self._info

    # ------------------------------------------------------------------------------------------- opening and closing
    async def open(self) -> None:
        """Take the best isolation that runs a program here, and try its guarantees. Raises BadInput where none does
        and `unsafe` was not given."""
        bwrap = shutil.which("bwrap")
        problems = [] if bwrap else ["bubblewrap is not installed (apt-get install bubblewrap)"]
        for executable in interpreters.candidates():
            interpreter = interpreters.inspect(executable)
            if interpreter is None:
                continue
            for plan in self._plans(bwrap):
                if not (problem := await self._try(interpreter, plan)):
                    return
                problems.append(problem)
        raise BadInput(
            f"no sandbox works here: {problems[-1] if problems else 'no interpreter'}; "
            "install bubblewrap on a host that allows user namespaces, use --judge sandbox_fusion, or --unsafe "
            "to do without"
        )

    def _plans(self, bwrap: str | None) -> list[Plan]:
        """Plans to try, best first; interpreter and mounts are still to be filled in."""
        plans = []
        if bwrap:
            base = Plan(bwrap, _features(bwrap), python=[], mounts=[], hidden=[], proc=True, seccomp=True, cgroup=True)
            plans = [base, base._replace(proc=False), base._replace(seccomp=False)]
            plans.append(base._replace(proc=False, seccomp=False))
        if self.unsafe:
            plans.append(
                Plan(None, features=[], python=[], mounts=[], hidden=[], proc=False, seccomp=False, cgroup=False)
            )
        return plans

    async def _try(self, interpreter: Interpreter, plan: Plan) -> str:
        """Open with this plan and run a program. Returns the problem, empty if it works."""
        shown = interpreters.shown_to_programs(interpreter)
        self.path = [*interpreter.path, *interpreter.site]
        if plan.bwrap:
            packages = ["/packages"] if shown.packages else []
            self.path = ["/tmp", *interpreter.path, *packages, *interpreter.site]
        plan = plan._replace(
            mounts=shown.mounts,
            hidden=interpreters.hidden_from_programs(interpreter),
            python=[interpreter.executable, "-S", "-s", "-B"],
        )
        made = await self._launch(plan, interpreter.code)
        try:
            [run] = [run async for run in self.run(CONTROL)]
            said = f"{run.detail} {run.stderr.decode(errors='replace')[-200:]}"
            problem = "" if run.output == b"42\n" else said
        except (SandboxFailed, CompileFailed) as e:
            problem = str(e) or type(e).__name__
        if problem:
            await self.close()
            return problem
        mode = "rlimits only (unsafe)"
        if plan.bwrap:
            mode = "bubblewrap" + ("+cgroup" if made.cgroup else "") + ("" if plan.proc else " without /proc")
        self.pool.run_ahead = self._ahead if plan.bwrap else None  # elsewhere the tests of a program share /tmp
        seen = await probe(self, [target for _, target in shown.mounts])
        self._info = LocalInfo(
            mode=mode,
            cgroup=made.cgroup,
            cpu_account=made.cpu_account,
            proc=plan.proc,
            seccomp=plan.seccomp,
            interpreter=InterpreterInfo(interpreter.executable, interpreter.version),
            packages=shown.packages,
            probes={name: not leak for name, leak in seen.items()},
            leaks={name: leak for name, leak in seen.items() if leak},
        )
        return ""

    async def _launch(self, plan: Plan, code: str) -> Cgroups:
        """Start the launcher with this plan. Returns what it says of the cgroups that it can make."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(interpreters.PROJECT), str(theirs.fileno())]
            # A session of its own: a signal to the judge's group must not end the one process that cleans up.
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.channel = ours
        ours.settimeout(20)
        try:
            with tempfile.TemporaryFile() as file:  # too long for a packet
                file.write(bytes.fromhex(code))
                file.flush()
                request = json.dumps({"op": "plan", "plan": plan._asdict()}).encode()
                socket.send_fds(ours, [request], [file.fileno()])
            made = Cgroups(**json.loads(ours.recv(1 << 16) or b"{}"))
        except (OSError, ValueError, TypeError) as e:
            raise BadInput(f"the sandbox launcher did not start ({e})") from None
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)
        return made

    def _hear(self) -> None:
        """Messages of the launcher: a sandbox ended."""
        try:
            data = self.channel.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # the launcher is gone, and every sandbox with it
            asyncio.get_running_loop().remove_reader(self.channel.fileno())
            for box in self.boxes.values():
                box.ended(Exit(-1, False, "the sandbox launcher died"))
            self.boxes.clear()
            return
        message = json.loads(data)
        if message["id"] in self.boxes:
            self.boxes.pop(message["id"]).ended(Exit(message["status"], message["oom"], message["stderr"]))

    async def _ask(self, request: dict[str, object], *fds: int) -> None:
        """Send the launcher a request, with files."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        while True:
            try:
                self.channel.sendmsg([json.dumps(request).encode()], ancillary)
                return
            except BlockingIOError:
                await asyncio.sleep(0.002)
            except OSError as e:
                # The kernel closes a killed process's socket a moment before the process has ended; who sees this
                # failure then asks whether it has.
                if self.process is not None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        await asyncio.to_thread(self.process.wait, LAUNCHER_ENDS)
                raise SandboxFailed(f"the sandbox launcher is gone ({e})") from None

    async def close(self) -> None:
        """Kill what runs and wait until it is gone."""
        if self.process is None:
            return
        with contextlib.suppress(ValueError, OSError):
            asyncio.get_running_loop().remove_reader(self.channel.fileno())
        self.channel.close()
        for box in list(self.boxes.values()):
            box.writer.close()
            box.ended(Exit(-1, False, "the judge was closed"))
        self.boxes.clear()
        self.spare.clear()
        await asyncio.to_thread(self.process.wait)
        self.process = None

    # ------------------------------------------------------------------------------------------------------- running
    def running(self) -> list[Running]:
        """As `Sandbox.running`."""
        return self.pool.running()

    async def run(self, task: Task) -> AsyncGenerator[TestRun, None]:
        """As `Sandbox.run`."""
        async with self.pool.course(task) as course:
            rank, failures, ended = SLOW if task.slow else ANY, 0, 0
            while course.done < task.count and course.late < MAX_TIMEOUTS and ended < MAX_ENDED:
                if (known := await self.pool.ran_ahead(course)) is not None:
                    for run in known:
                        self.lost, failures = self.lost + failures, 0
                        course.told(run, time.monotonic())
                        yield run
                    continue
                async with self.pool.taken(rank):
                    rank = CONTINUES
                    box, finished = await self._take(task), False
                    try:
                        course.careful = failures > 0
                        async with contextlib.aclosing(self._tests(box, course, course.done, task.count)) as runs:
                            async for run in runs:
                                self.lost, failures = self.lost + failures, 0
                                course.told(run, time.monotonic())
                                yield run
                                if task.kind == "stdin" and course.done in course.ahead:  # which began it earlier
                                    break
                            else:
                                finished = True
                    except Died as e:
                        if e.exit.oom and course.done < task.count:  # the kernel's choice was PID 1 itself
                            if not box.compiled:
                                ended = MAX_ENDED  # the next test would compile the same
                            run = TestRun(
                                "runtime_error", over_memory(task.memory), cpu=0.0, wall=0.0, peak_rss=task.memory
                            )
                            course.told(run, time.monotonic())
                            yield run
                            continue
                        failures += 1
                        said = str(e.exit.stderr or e.exit.status)
                        if failures >= BLAMED and await self._works():
                            when = "while it ran" if box.compiled else "before it ran"
                            detail = f"the program ended the sandbox twice {when}: {said}"
                            ended = MAX_ENDED if e.silent else ended + 1  # silence is waited for, and not again
                            run = TestRun("runtime_error", detail[:300], cpu=0.0, wall=0.0, peak_rss=0)
                            failures = 0
                            course.told(run, time.monotonic())
                            yield run
                        elif failures == ATTEMPTS:
                            self.lost += failures
                            raise SandboxFailed(f"the sandbox died: {said}") from None
                    finally:
                        await self._stop(box, finished)

    async def _ahead(self, course: Course, first: int) -> list[TestRun]:
        """Run the tests that a new sandbox would begin with `first`, before their turn: of a stdin task that one, since
        each has a fresh process and nothing of the one before; of an assert task all to the end or the first that ends
        the program.

        Raises:
            Died, CompileFailed, SandboxFailed: what the serial way will meet, and judge, itself.
        """
        task = course.task
        box, finished = await self._take(task), False
        try:
            behind = first + 1 if task.kind == "stdin" else task.count
            async with contextlib.aclosing(self._tests(box, course, first, behind)) as runs:
                found = [run async for run in runs]
            finished = True
            return found
        finally:
            await self._stop(box, finished)

    async def _works(self) -> bool:
        """Whether a trivial program runs in a fresh sandbox: then the one that failed did so by its program."""
        if self.process is None or self.process.poll() is not None:
            return False
        box, finished = (
            await self._start(CONTROL.memory + FAMILY_SLACK + 2 * TMP_BYTES + self._output_cap(CONTROL)),
            False,
        )
        try:
            runs = [run async for run in self._tests(box, Course(CONTROL), 0, CONTROL.count)]
            finished = True
            return [run.output for run in runs] == [b"42\n"]
        except (Died, SandboxFailed, CompileFailed):
            return False
        finally:
            await self._stop(box, finished)

    async def _take(self, task: Task) -> Box:
        """A sandbox for this task, if possible one that was started while the last task ran. Starts the next one."""
        memory = task.memory + FAMILY_SLACK + 2 * TMP_BYTES + self._output_cap(task)
        self.spare = [b for b in self.spare if not b.exited.done()]
        box = next((b for b in self.spare if (b.memory, b.headers) == (memory, task.headers)), None)
        if box is None:
            box = await self._start(memory, task.headers)
        else:
            self.spare.remove(box)
        if task.headers:  # which few programs need
            return box
        if len(self.spare) >= self.workers:  # of another memory limit, left from earlier tasks
            self.spare.pop(0).writer.close()
        spare = await self._start(memory)
        self.spare.append(spare)
        return box

    async def _start(self, memory: int, headers: bool = False) -> Box:
        number = next(_NUMBERS)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for end in (ours, theirs):  # big tests in fewer turns
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
            reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
            box = self.boxes[number] = Box(
                number=number, memory=memory, headers=headers, reader=reader, writer=writer, exited=exited
            )
            request = {"op": "start", "id": box.number, "memory": memory, "headers": headers}
            await self._ask(request, theirs.fileno())
        finally:
            theirs.close()
        return box

    async def _stop(self, box: Box, finished: bool) -> None:
        box.writer.close()  # PID 1 ends when it sees this; its namespace ends with it
        if not finished and not box.exited.done():
            with contextlib.suppress(SandboxFailed):
                await self._ask({"op": "kill", "id": box.number})

    @staticmethod
    def _output_cap(task: Task) -> int:
        return max(OUTPUT_CAP, 4 * task.longest_output + (1 << 20))

    async def _tests(self, box: Box, course: Course, first: int, behind: int) -> AsyncGenerator[TestRun, None]:
        """Feed one sandbox the tests from `first` to just before `behind` and yield what comes back.

        Where the course is careful, the compilation is tried under the limits of a test first.

        Raises:
            Died: when the sandbox ends before it said that it is done.
        """
        task, careful = course.task, course.careful
        cap = self._output_cap(task)
        longest_input = max((len(text) for text in task.inputs), default=0) * 4
        marker = secrets.token_hex(16).encode()
        file_size = max(cap + 4096, longest_input, TMP_BYTES)
        job = {
            "program": task.program,
            "kind": task.kind,
            "count": behind,
            "first": first,
            "late": course.late if first == course.done else 0,
            "path": self.path,
            "cpu": task.limit,
            "idle": task.limit + 1,
            "wall": WALL_FACTOR * task.limit + WALL_MORE,
            "wall_blind": 4 * task.limit + 5,
            "memory": task.memory,
            "memory_family": task.memory + FAMILY_SLACK,
            "file_size": file_size,
            "processes": PROCESSES,
            "output_cap": cap,
            "max_timeouts": MAX_TIMEOUTS,
            "careful": careful,
        }
        tests: dict[str, object] | None = None
        if task.asserts is not None:
            job |= {"shared": task.asserts.shared, "classes": task.asserts.classes}
            tests = asdict(task.asserts) | {"first": first, "marker": marker}
        feeding = asyncio.create_task(box.feed(job, task.inputs[first:behind], tests))
        try:
            done = first
            while True:
                end = await box.frame(SILENCE if box.compiled or careful else SILENCE_COMPILING)
                if end.kind == protocol.ALIVE:
                    continue
                if end.kind == protocol.COMPILED:
                    box.compiled = True
                    course.compiled(time.monotonic())
                    if end.code:
                        raise CompileFailed(end.err.decode(errors="replace"))
                elif end.kind in (protocol.DONE, protocol.DIRTY):
                    return
                elif task.kind == "stdin":
                    verdict, detail = stdin_verdict(end, task, too_long=end.written > cap or end.written >= file_size)
                    yield TestRun(
                        verdict=verdict,
                        detail=detail,
                        cpu=end.cpu,
                        wall=end.wall,
                        peak_rss=end.peak_rss,
                        output=end.out,
                        stderr=end.err,
                        read=end.report == protocol.READ,
                    )
                    done += 1
                else:
                    for run in assert_runs(end, task, done, marker):
                        done += 1
                        yield run
        except Died as e:
            status = e.exit.status
            if not box.compiled and status > 0 and os.waitstatus_to_exitcode(status) in (139, 134, 132):
                raise CompileFailed("the compiler crashed on this program") from None
            raise
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await feeding


def _features(bwrap: str) -> list[str]:
    """The options that this bubblewrap knows."""
    shown = subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=20)
    return sorted({word for word in (shown.stdout + shown.stderr).split() if word.startswith("--")})
