"""Checkers: programs that decide whether an output answers a test, for problems with many right answers.

    python   open-r1/codeforces' `generated_checker`: called with the paths of input, expected and actual output; it
             prints 1 (right) or 0 (wrong)
    testlib  C++ with the calling convention of Codeforces' testlib: called with the paths of input, actual and
             expected output; exit code 0 is right, 1, 2, 4 and 8 are wrong, any other says that the checker failed

A checker is no more trusted than the program that it checks: it runs in a sandbox of its own, as a stdin task under the
judge's own limits. What it does wrong is the judge's failure and never the program's. A Python checker answers several
questions on one program in a process, since a process a question would halve the judge's speed; what it does not answer
there with a plain 1 or 0, for whatever reason, it is asked again alone, and only that counts as its failure.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from phase1.contract.comparison import PYTHON, Checker
from phase1.judge.config import JudgeConfig
from phase1.judge.outcomes import CompileFailed, Sandbox, SandboxFailed, Task, TestRun

HOLD = 64 << 20  # bytes of a program's outputs that wait for its checker; more where the expected ones are longer
COMPILE_SECONDS, COMPILE_MEMORY = 120.0, 2 << 30  # of g++; testlib.h takes it about 5 s and 0.5 GiB
WRONG = (1, 2, 4, 8)  # testlib's exit codes for a wrong answer: _wa, _pe, _dirt, _unexpected_eof

# A question is three texts: a line of their lengths in bytes, then the bytes, each as the character of its number.
_UNPACK = """\
import os, sys
def _unpack(names):
    sizes, data = sys.stdin.buffer.read().decode().encode("latin-1").split(b"\\n", 1)
    start = 0
    for name, size in zip(names, map(int, sizes.split())):
        with open(name, "wb") as file:
            file.write(data[start:start + size])
        start += size
"""
_PYTHON = (
    _UNPACK
    + """\
names = ("checker.py", "input.txt", "correct_output.txt", "solution_output.txt")
sys.argv = [os.path.join(os.getcwd(), name) for name in names]
_unpack(sys.argv[1:])
del _unpack, names
"""
)
# The same for several questions in one process: a line with 1, 0 or ? for each.
_BATCH = """\
import io, os, sys
def main():
    sizes, data = sys.stdin.buffer.read().decode().encode("latin-1").split(b"\\n", 1)
    sizes, start, said, stdout = [int(size) for size in sizes.split()], 0, [], sys.stdout
    names = ("checker.py", "input.txt", "correct_output.txt", "solution_output.txt")
    called = [os.path.join(os.getcwd(), name) for name in names]
    code = compile({source!r}, called[0], "exec")
    for first in range(0, len(sizes), 3):
        for name, size in zip(called[1:], sizes[first:first + 3]):
            with open(name, "wb") as file:
                file.write(data[start:start + size])
            start += size
        sys.argv, sys.stdout = called[:], io.TextIOWrapper(io.BytesIO())
        try:
            exec(code, {{"__name__": "__main__", "__builtins__": __builtins__}})
            ended = None
        except SystemExit as e:
            ended = e.code
        except BaseException as e:
            ended = e
        sys.stdout.flush()
        word = sys.stdout.buffer.getvalue().strip()
        said.append(word.decode() if word in (b"0", b"1") and ended in (None, 0) else "?")
    stdout.write("\\n" + " ".join(said))
    stdout.flush()
main()
"""
BATCH_QUESTIONS, BATCH_BYTES = 25, 1 << 20  # of a process, of which the last question may take it further
_TESTLIB = (
    _UNPACK
    + """\
import signal
names = ("checker", "input.txt", "correct_output.txt", "solution_output.txt")
program, *paths = [os.path.join(os.getcwd(), name) for name in names]
_unpack(paths)
with open(program, "wb") as file:
    file.write({binary!r})
os.chmod(program, 0o755)
called = ["checker", paths[0], paths[2], paths[1]]
quiet = [(os.POSIX_SPAWN_DUP2, 2, 1)]  # what it prints is not the code below
default = [signal.SIGPIPE, signal.SIGXFSZ]  # which Python ignores
pid = os.posix_spawn(program, called, {{}}, file_actions=quiet, setsigdef=default)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
)
_COMPILE = """\
import base64, shutil, subprocess, sys
compiler = shutil.which("g++", path="/usr/local/bin:/usr/bin:/bin")
if compiler is None:
    sys.exit("there is no g++ in the sandbox, which a C++ checker needs: apt-get install g++")
with open("checker.cpp", "w", encoding="utf-8", errors="surrogatepass") as file:
    file.write({source!r})
command = [compiler, "-std=c++17", "-O1", "-w", "-s", "-o", "checker", "checker.cpp"]
done = subprocess.run(command, capture_output=True, text=True, errors="replace")
if done.returncode:
    said = [line for line in done.stderr.splitlines() if "error" in line] or ["g++ failed"]
    sys.exit("it does not compile: " + said[0])
with open("checker", "rb") as file:
    print(base64.b64encode(file.read()).decode())
"""
_FUTURE = re.compile(r"^from __future__ import .*\n", re.MULTILINE)  # only valid as the first lines of a program


@dataclass(frozen=True)
class Question:
    """What a checker is asked: a test, and a program's output on it."""

    given: str
    expected: str
    output: bytes


class Checkers:
    """The checkers of one judge.

    Attributes:
        binaries: what g++ made of each C++ source, which is compiled once.
    """

    def __init__(self, sandbox: Sandbox, config: JudgeConfig) -> None:
        self._sandbox, self._config = sandbox, config
        self.binaries: dict[str, asyncio.Future[bytes]] = {}

    async def decide(self, checker: Checker, questions: Sequence[Question]) -> list[bool]:
        """Whether each output is right, in order.

        Raises:
            SandboxFailed: the checker failed, ran out of time or said what its protocol does not know; in its words.
        """
        if checker.kind == PYTHON:
            answers = await self._in_batches(checker.source, questions)
        else:
            answers = [None] * len(questions)
        open_ones = [number for number, answer in enumerate(answers) if answer is None]
        alone = await self._alone(checker, [questions[number] for number in open_ones])
        for number, right in zip(open_ones, alone, strict=True):
            answers[number] = right
        return [bool(answer) for answer in answers]

    async def _in_batches(self, source: str, questions: Sequence[Question]) -> list[bool | None]:
        """What a Python checker says to each question; None where it must be asked alone."""
        batches: list[list[Question]] = []
        room = 0
        for question in questions:
            if room <= 0 or len(batches[-1]) == BATCH_QUESTIONS:
                batches.append([])
                room = BATCH_BYTES
            batches[-1].append(question)
            room -= len(question.given) + len(question.expected) + len(question.output)
        task = self._task(_BATCH.format(source=source), [_packed(batch) for batch in batches])
        answers: list[bool | None] = []
        async with contextlib.aclosing(self._sandbox.run(task)) as runs:
            async for run in runs:
                batch = batches.pop(0)
                said = run.output.rpartition(b"\n")[2].split()
                if run.verdict or len(said) != len(batch):
                    break  # the rest is asked alone
                answers += [None if word == b"?" else word == b"1" for word in said]
        return answers + [None] * (len(questions) - len(answers))

    async def _alone(self, checker: Checker, questions: Sequence[Question]) -> list[bool]:
        if not questions:
            return []
        if checker.kind == PYTHON:
            future = "".join(_FUTURE.findall(checker.source))
            program = future + _PYTHON + _FUTURE.sub("", checker.source)
        else:
            program = _TESTLIB.format(binary=await self._binary(checker.source))
        task = self._task(program, [_packed([question]) for question in questions])
        answers: list[bool] = []
        try:
            async with contextlib.aclosing(self._sandbox.run(task)) as runs:
                async for run in runs:
                    answers.append(_answer(checker.kind, run))
        except CompileFailed as e:
            raise SandboxFailed(f"the checker does not compile: {e}") from None
        if len(answers) < len(questions):
            raise SandboxFailed("the checker did not answer to every test")
        return answers

    def _task(self, program: str, inputs: list[str]) -> Task:
        limit, memory = self._config.run_timeout, self._config.memory_limit_mb << 20
        return Task(program=program, kind="stdin", count=len(inputs), limit=limit, memory=memory, inputs=inputs)

    async def _binary(self, source: str) -> bytes:
        """The program that g++ makes of a C++ source."""
        known = self.binaries.get(source)
        if known is None:
            known = self.binaries[source] = asyncio.ensure_future(self._compiled(source))
        try:
            return await asyncio.shield(known)
        except SandboxFailed:
            self.binaries.pop(source, None)  # what a sandbox did once need not come again
            raise

    async def _compiled(self, source: str) -> bytes:
        program = _COMPILE.format(source=source)
        task = Task(
            program=program,
            kind="stdin",
            count=1,
            limit=COMPILE_SECONDS,
            memory=COMPILE_MEMORY,
            inputs=[""],
            headers=True,
        )
        async with contextlib.aclosing(self._sandbox.run(task)) as runs:
            async for run in runs:
                if run.verdict:
                    raise _failed(run)
                return base64.b64decode(run.output)
        raise SandboxFailed("the checker was not compiled")


def _packed(questions: Sequence[Question]) -> str:
    parts: list[bytes] = []
    for question in questions:
        parts += (text.encode("utf-8", "surrogatepass") for text in (question.given, question.expected))
        parts.append(question.output)
    return " ".join(str(len(part)) for part in parts) + "\n" + b"".join(parts).decode("latin-1")


def _answer(kind: str, run: TestRun) -> bool:
    """What a checker's run says. Raises SandboxFailed where it says nothing that its protocol knows."""
    if run.verdict:
        raise _failed(run)
    said = run.output[-200:].decode(errors="replace").strip()
    if kind == PYTHON:
        if said not in ("0", "1"):
            raise SandboxFailed(f"the checker printed {said!r}, expected 1 or 0")
        return said == "1"
    code = int(said)
    if code and code not in WRONG:
        last = (run.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
        raise SandboxFailed(f"the checker ended with exit code {code}: {last[:200]}")
    return code == 0


def _failed(run: TestRun) -> SandboxFailed:
    return SandboxFailed(f"the checker failed ({run.verdict}): {run.detail}")
