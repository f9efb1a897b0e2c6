"""The local sandbox: runs a task's tests in a bubblewrap a program and tells what each did; judging is not its
business.

`LocalSandbox.open()` chooses interpreter and isolation by trying them, best first; `run(task)` yields a TestRun a test.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import marshal
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from phase1.files import BadInput
from phase1.judge.inside import asserts, ending, fork_server, stage
from phase1.judge.launcher import PROGRAM_PACKAGES, TMP_BYTES
from phase1.judge.outcomes import (
    ATTEMPTS,
    MAX_TIMEOUTS,
    PROCESSES,
    CompileFailed,
    SandboxFailed,
    Task,
    TestRun,
    assert_runs,
    over_memory,
    stdin_verdict,
)
from phase1.judge.seccomp import seccomp_filter

OUTPUT_CAP = 32 << 20  # bytes of stdout a test; more where the expected output is long
FAMILY_SLACK = (
    128 << 20
)  # bytes that several processes may hold beyond the memory limit: each counts shared pages again

_RESULT = struct.Struct(fork_server.RESULT)
_INSPECT = """
import json, marshal, os, site, sys
code = marshal.dumps([(name, compile(source, name, "exec")) for name, source in json.load(sys.stdin)])
executable = os.path.realpath(sys.executable)
print(json.dumps({"version": sys.version.split()[0], "executable": executable, "prefix": sys.base_prefix,
                  "path": [p for p in sys.path if p], "site": site.getsitepackages(), "code": code.hex()}))
"""


# What runs inside, in the order of its imports.
_INSIDE = (
    ("phase1.judge.inside.asserts", asserts),
    ("phase1.judge.inside.ending", ending),
    ("phase1.judge.inside.stage", stage),
    ("__main__", fork_server),
)


_NUMBERS = itertools.count(1)  # of all sandboxes of this process: taken in one step, so that no two starts share one


@dataclass
class _Box:
    """A running sandbox."""

    number: int
    memory: int  # bytes its cgroup may hold
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    exited: asyncio.Future
    ahead: bytes = b""  # read and not yet taken


class _Died(Exception):
    def __init__(self, exit_message: dict):
        super().__init__(exit_message)
        self.exit = exit_message


class LocalSandbox:
    """Sandboxes on this machine, at most `workers` at a time."""

    def __init__(self, workers: int, unsafe: bool = False):
        self.workers, self.unsafe = workers, unsafe
        self.slots = asyncio.Semaphore(workers)
        self.boxes: dict[int, _Box] = {}
        self.spare: list[_Box] = []  # started and waiting for a task: starting is mostly waiting for the kernel
        self.lost = 0  # sandboxes that ended without a word; each costs its program a second try
        self.info: dict[str, JsonValue] = {}
        self.plan: dict[str, Any] = {}
        self.process: subprocess.Popen | None = None

    # ------------------------------------------------------------------------------------------- opening and closing
    async def open(self) -> None:
        """Take the best isolation that runs a program here. BadInput where none does and `unsafe` was not given."""
        bwrap = shutil.which("bwrap")
        problems = [] if bwrap else ["bubblewrap is not installed (apt-get install bubblewrap)"]
        for executable in _interpreters():
            python = _inspect(executable)
            if python is None:
                continue
            for proc, seccomp in ((True, True), (False, True), (True, False), (False, False)) if bwrap else ():
                problem = await self._try(python, bwrap, proc, seccomp)
                if problem is None:
                    return
                problems.append(problem)
            if self.unsafe:
                problem = await self._try(python, None, proc=False, seccomp=False)
                if problem is None:
                    return
                problems.append(problem)
        raise BadInput(
            f"no sandbox works here: {problems[-1] if problems else 'no interpreter'}; "
            "install bubblewrap on a host that allows user namespaces, use --judge sandbox_fusion, or --unsafe "
            "to do without"
        )

    async def _try(self, python: dict, bwrap: str | None, proc: bool, seccomp: bool) -> str | None:
        """Open with this plan and run a program; returns the problem, None if it works."""
        mounts, packages = _mounts(python)
        self.path = ["/tmp", *python["path"], *(["/packages"] if packages else []), *python["site"]]
        if not bwrap:
            self.path = [*python["path"], *python["site"]]
        self.plan = {
            "bwrap": bwrap,
            "features": sorted(_features(bwrap)) if bwrap else [],
            "python": [python["executable"], "-S", "-s", "-B"],
            "mounts": mounts,
            "proc": proc,
            "filter": ((seccomp_filter() if seccomp else None) or b"").hex(),
            "cgroup": bool(bwrap),
        }
        planned = await self._launch(python["code"])
        task = Task("print(6 * 7)", "stdin", 1, 10.0, 512 << 20, inputs=[""])
        try:
            runs = [run async for run in self.run(task)]
            problem = (
                None
                if runs[0].output == b"42\n"
                else f"{runs[0].detail} {runs[0].stderr.decode(errors='replace')[-200:]}"
            )
        except (SandboxFailed, CompileFailed) as e:
            problem = str(e)
        if problem is not None:
            await self.close()
            return problem
        mode = (
            ("bubblewrap" + ("+cgroup" if planned["cgroup"] else "") + ("" if proc else " without /proc"))
            if bwrap
            else "rlimits only (unsafe)"
        )
        self.info = {
            "mode": mode,
            "cgroup": planned["cgroup"],
            "proc": proc,
            "seccomp": seccomp,
            "interpreter": {"path": python["executable"], "version": python["version"]},
            "packages": packages,
        }
        return None

    async def _launch(self, code: str) -> dict:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py")), str(theirs.fileno())]
            # A session of its own: a signal to the judge's group must not take the one who cleans up with it.
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.channel = ours
        ours.settimeout(20)
        try:
            ours.sendall(json.dumps({"op": "plan", "plan": self.plan, "code": code}).encode())
            planned = json.loads(ours.recv(1 << 16) or b"{}")
        except (OSError, ValueError) as e:
            raise BadInput(f"the sandbox launcher did not start ({e})") from None
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)
        return planned

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
                if not box.exited.done():
                    box.exited.set_result({"status": -1, "oom": False, "stderr": "the sandbox launcher died"})
            self.boxes.clear()
            return
        message = json.loads(data)
        if message["id"] in self.boxes and not (box := self.boxes.pop(message["id"])).exited.done():
            box.exited.set_result(message)

    async def _ask(self, request: dict, *fds: int) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        while True:
            try:
                self.channel.sendmsg([json.dumps(request).encode()], ancillary)
                return
            except BlockingIOError:
                await asyncio.sleep(0.002)
            except OSError as e:
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
            if not box.exited.done():
                box.exited.set_result({"status": -1, "oom": False, "stderr": "the judge was closed"})
        self.boxes.clear()
        self.spare.clear()
        await asyncio.to_thread(self.process.wait)
        self.process = None

    # ------------------------------------------------------------------------------------------------------- running
    async def run(self, task: Task) -> AsyncGenerator[TestRun, None]:
        """Yield a TestRun a test, in order; fewer than `task.count` after MAX_TIMEOUTS timeouts one after another.

        CompileFailed before the first; SandboxFailed when a test's sandbox died ATTEMPTS times without a word.
        """
        async with self.slots:
            done = late = failures = 0
            while done < task.count and late < MAX_TIMEOUTS:
                box = await self._take(task)
                finished = False
                try:
                    async with contextlib.aclosing(self._tests(box, task, done, late)) as runs:
                        async for run in runs:
                            done, failures = done + 1, 0
                            late = late + 1 if run.verdict == "timeout" else 0
                            yield run
                    finished = True
                except _Died as e:
                    if e.exit["oom"] and done < task.count:  # the kernel's choice was PID 1 itself
                        done, late = done + 1, 0
                        yield TestRun("runtime_error", over_memory(task.memory), 0.0, 0.0, task.memory)
                        continue
                    self.lost += 1
                    failures += 1
                    if failures == ATTEMPTS:
                        raise SandboxFailed(f"the sandbox died: {e.exit['stderr'] or e.exit['status']}") from None
                finally:
                    await self._stop(box, finished)

    async def _take(self, task: Task) -> _Box:
        """A sandbox for this task, if possible one that was started while the last task ran; and the next one's
        start."""
        memory = task.memory + FAMILY_SLACK + 2 * TMP_BYTES + self._output_cap(task)
        self.spare = [b for b in self.spare if not b.exited.done()]
        box = next((b for b in self.spare if b.memory == memory), None)
        if box is None:
            box = await self._start(memory)
        else:
            self.spare.remove(box)
        if len(self.spare) >= self.workers:  # of another memory limit, left from earlier tasks
            self.spare.pop(0).writer.close()
        spare = await self._start(memory)
        self.spare.append(spare)
        return box

    async def _start(self, memory: int) -> _Box:
        number = next(_NUMBERS)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for end in (ours, theirs):  # big tests in fewer turns
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            exited = asyncio.get_running_loop().create_future()
            reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
            box = self.boxes[number] = _Box(number, memory, reader, writer, exited)
            await self._ask({"op": "start", "id": box.number, "memory": memory}, theirs.fileno())
        finally:
            theirs.close()
        return box

    async def _stop(self, box: _Box, finished: bool) -> None:
        box.writer.close()  # PID 1 ends when it sees this; its namespace ends with it
        if not finished and not box.exited.done():
            with contextlib.suppress(SandboxFailed):
                await self._ask({"op": "kill", "id": box.number})

    @staticmethod
    def _output_cap(task: Task) -> int:
        return max(OUTPUT_CAP, 4 * task.longest_output + (1 << 20))

    async def _tests(self, box: _Box, task: Task, first: int, late: int) -> AsyncGenerator[TestRun, None]:
        """Feed one sandbox from test `first` on and yield what comes back; _Died when it ends without having said
        so."""
        cap = self._output_cap(task)
        longest_input = max((len(text) for text in task.inputs), default=0) * 4
        marker = secrets.token_hex(16).encode()
        wall = 10 * task.limit + 10
        job = {
            "program": task.program,
            "kind": task.kind,
            "count": task.count,
            "first": first,
            "late": late,
            "path": self.path,
            "cpu": task.limit,
            "idle": task.limit + 1,
            "wall": wall,
            "wall_blind": 4 * task.limit + 5,
            "memory": task.memory,
            "memory_family": task.memory + FAMILY_SLACK,
            "file_size": max(cap + 4096, longest_input, TMP_BYTES),
            "processes": PROCESSES,
            "output_cap": cap,
            "max_timeouts": MAX_TIMEOUTS,
            "setup": task.setup,
            "tests": task.tests,
            "entry_point": task.entry_point,
            "modules": task.modules,
            "marker": marker,
        }
        feeding = asyncio.create_task(self._feed(box, job, task.inputs[first:]))
        patience = (wall + 30) * (1 if task.kind == "stdin" else task.count)
        try:
            done, compiled = first, False
            while True:
                kind, code, cpu, wall, rss, total, out, err, report = await self._frame(box, patience)
                if kind == fork_server.COMPILED:
                    compiled = True
                    if code:
                        raise CompileFailed(err.decode(errors="replace"))
                elif kind == fork_server.DONE:
                    if code:
                        raise SandboxFailed(err.decode(errors="replace"))
                    return
                elif kind == fork_server.DIRTY:
                    return
                elif task.kind == "stdin":
                    verdict, detail = stdin_verdict(
                        kind, code, total > cap or total >= job["file_size"], err, rss, task
                    )
                    yield TestRun(verdict, detail, cpu, wall, rss, out, err)
                    done += 1
                else:
                    for run in assert_runs(kind, code, report, marker, task, done, wall, rss, err):
                        done += 1
                        yield run
        except _Died as e:
            status = e.exit["status"]
            if not compiled and status > 0 and os.waitstatus_to_exitcode(status) in (139, 134, 132):
                raise CompileFailed("the compiler crashed on this program") from None
            raise
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await feeding

    async def _feed(self, box: _Box, job: dict, inputs: list[str]) -> None:
        """Write job and inputs at the pace at which the sandbox takes them, so that big tests never pile up."""
        data = marshal.dumps(job, 2)
        ready = [len(data).to_bytes(4, "little"), data]
        held = len(data)
        with contextlib.suppress(ConnectionError):
            for text in inputs:
                data = text.encode("utf-8", "surrogatepass")
                ready += len(data).to_bytes(8, "little"), data
                held += len(data)
                if held > 1 << 16:
                    box.writer.write(b"".join(ready))  # not writelines, which spins on an empty input in 3.12.1
                    await box.writer.drain()
                    ready, held = [], 0
            box.writer.write(b"".join(ready))
            await box.writer.drain()

    async def _frame(self, box: _Box, patience: float) -> tuple:
        """The next frame: kind, code, cpu, wall, rss, bytes of stdout, stdout, stderr, report."""
        try:
            if len(box.ahead) < _RESULT.size:
                box.ahead += await self._read(box, _RESULT.size - len(box.ahead), patience)
            head = _RESULT.unpack_from(box.ahead)
            size = _RESULT.size + sum(head[6:])
            if len(box.ahead) < size:
                box.ahead += await self._read(box, size - len(box.ahead), patience)
            frame, box.ahead = box.ahead[_RESULT.size : size], box.ahead[size:]
            out, err = head[6], head[6] + head[7]
            return (*head[:2], head[2] / 1e6, head[3] / 1e6, *head[4:6], frame[:out], frame[out:err], frame[err:])
        except TimeoutError:
            raise _Died({"status": -1, "oom": False, "stderr": f"no answer for {patience:.0f} s"}) from None
        except ConnectionError:
            try:
                async with asyncio.timeout(10):
                    raise _Died(await asyncio.shield(box.exited)) from None
            except TimeoutError:
                raise _Died({"status": -1, "oom": False, "stderr": "it closed its socket"}) from None

    @staticmethod
    async def _read(box: _Box, least: int, patience: float) -> bytes:
        """At least `least` bytes, and what else is there: one turn of the loop for many small frames."""
        parts = []
        async with asyncio.timeout(patience):
            while least > 0:
                part = await box.reader.read(1 << 20)
                if not part:
                    raise ConnectionError
                parts.append(part)
                least -= len(part)
        return b"".join(parts)


# ------------------------------------------------------------------------------------------------ interpreter and
# mounts
def _interpreters() -> list[str]:
    """Interpreters to try, best first: the judge's own, then the system's."""
    names = [os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"]
    return list(dict.fromkeys(n for n in names if os.access(n, os.X_OK)))


def _inspect(executable: str) -> dict | None:
    """Version, paths and the fork-server compiled for this interpreter; None where it cannot do it."""
    sources = [(name, Path(str(module.__file__)).read_text(encoding="utf-8")) for name, module in _INSIDE]
    try:
        answer = subprocess.run(
            [executable, "-I", "-S", "-c", _INSPECT],
            input=json.dumps(sources),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _features(bwrap: str) -> set[str]:
    text = subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=20)
    return {word for word in (text.stdout + text.stderr).split() if word.startswith("--")}


def _mounts(python: dict) -> tuple[list[list[str]], dict[str, str]]:
    """(source, target) of what programs see beside /usr, and the packages shown with their versions."""
    mounts = []
    prefix = os.path.realpath(python["prefix"])
    if not prefix.startswith("/usr"):
        mounts.append([prefix, prefix])
    packages = {}
    same = python["version"].rsplit(".", 1)[0] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    for name in PROGRAM_PACKAGES if same else ():
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = os.path.realpath(spec.submodule_search_locations[0])
        packages[name] = importlib.metadata.version(name)
        for path in (folder, folder + ".libs"):
            if os.path.isdir(path):
                mounts.append([path, f"/packages/{os.path.basename(path)}"])
    return mounts, packages
