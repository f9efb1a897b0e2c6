"""Problems with many right answers, decided by checkers of both protocols; and checkers that fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phase1.judge.checkers import HOLD
from phase1.judge.config import JudgeConfig
from tests.judge.checkers_by_hand import MANY, SUM_CPP, SUM_PYTHON
from tests.judge.running_judge import RunningJudge, stdin

pytestmark = pytest.mark.slow  # each asks a sandbox
needs_cpp = pytest.mark.skipif(not shutil.which("g++"), reason="no g++ here: apt-get install g++")
KINDS = ["python", pytest.param("testlib", marks=needs_cpp)]
RIGHT = "print(1, int(input()) - 1)"
FAILING = {
    "crashes": ("1 / 0", "the checker failed (runtime_error): ZeroDivisionError"),
    "loops": ("while True: pass", "the checker failed (timeout): more than 1 s of CPU time"),
    "prints 100 MB": (
        "import sys\nfor _ in range(100): sys.stdout.write('1' * 1_000_000)",
        "the checker failed (runtime_error): output_limit",
    ),
    "forks": (
        "import os, time\nfor _ in range(200):\n    if os.fork() == 0: time.sleep(100)\nprint(1)",
        "the checker failed (runtime_error): BlockingIOError",
    ),
    "exits": ("import sys\nprint(1)\nsys.exit(3)", "the checker failed (runtime_error)"),
    "is killed": ("import os\nos.kill(os.getpid(), 9)", "the checker failed (runtime_error): killed by SIGKILL"),
    "says neither": ("print('accepted')", "the checker printed 'accepted', expected 1 or 0"),
    "says nothing": ("pass", "the checker printed '', expected 1 or 0"),
    "does not compile": ("print(", "the checker does not compile: SyntaxError"),
}
FAILING_CPP = {
    "crashes": ("#include <cstdlib>\nint main() { abort(); }", "the checker ended with exit code -6"),
    "loops": ("int main() { for (;;) ; }", "the checker failed (timeout)"),
    "prints 100 MB": (
        "#include <unistd.h>\nstatic char text[1000000];\n"
        "int main() { for (int i = 0; i < 100; i++) write(2, text, sizeof text); return 0; }",
        "the checker ended with exit code -25",  # SIGXFSZ
    ),
    "says that it failed": (
        '#include <cstdio>\nint main() { fprintf(stderr, "FAIL no jury answer\\n"); return 3; }',
        "the checker ended with exit code 3: FAIL no jury answer",
    ),
    "does not compile": ("int main( { }", "the checker failed (runtime_error): it does not compile"),
    "lacks its header": ('#include "nothing.h"\nint main() { }', "nothing.h: No such file"),
}


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(
        JudgeConfig(workers=1, run_timeout=1.0)
    )  # one sandbox at a time: a checker must not wait for it
    yield running
    running.close()


def checked(source, kind="python", tests=3, **more):
    return stdin(*((f"{n}\n", f"0 {n}\n") for n in range(tests)), checker={"kind": kind, "source": source}, **more)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MANY)
def test_five_right_answers_are_accepted_and_five_wrong_ones_are_not(judge, name, kind):
    problem = MANY[name]
    outputs = [*problem.right, *problem.wrong]
    assert (len(problem.right), len(problem.wrong)) == (5, 5)
    program = (
        f"print({outputs!r}[int(open(0).read().split()[-1])])"  # the answer that the last number of the input names
    )
    tests = [(f"{problem.given} {i}\n", problem.expected) for i in range(10)]
    verdict = judge(program, stdin(*tests, checker=problem.checker(kind)))
    assert verdict.test_verdicts == ["success"] * 5 + ["wrong_answer"] * 5, verdict
    assert verdict.compared_by == f"checker {kind}"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("python", n) for n in FAILING] + [pytest.param("testlib", n, marks=needs_cpp) for n in FAILING_CPP],
)
def test_a_checker_that_fails_is_the_judges_failure_and_harms_nothing(judge, kind, name):
    source, words = (FAILING if kind == "python" else FAILING_CPP)[name]
    verdict = judge(RIGHT, checked(source, kind))
    assert verdict.error_type == "sandbox_error" and words in verdict.detail, verdict
    assert "\n" not in verdict.detail and verdict.compared_by == f"checker {kind}"
    assert judge(RIGHT, checked(SUM_PYTHON)).accepted
    assert judge.judge.backend.lost == 0


READS = (
    "import sys\nn, out = (open(p).read().split() for p in (sys.argv[1], sys.argv[3]))\n"
    "ok = int(out[1]) + 1 == int(n[0])\n"
)


@pytest.mark.parametrize(
    "says",
    [
        "print(int(ok))",
        "sys.stdout.write('1' if ok else '0')",
        "sys.stdout.buffer.write(b'1' if ok else b'0')",
        "import os\nos.write(1, b'1' if ok else b'0')",
        "print(int(ok))\nsys.exit(0)",
        "print(int(ok))\nexit()",
        "print(int(ok), flush=True)\nimport os\nos._exit(0)",
        "import math\nmath.asked = getattr(math, 'asked', 0) + 1\nprint(int(ok) if math.asked == 1 else '?')",
        "del sys.modules['io']\nprint(int(ok))\nsys.stdout.close()",
        "import time\nwhile time.process_time() < 0.2: pass\nprint(int(ok))\nsys.argv.clear()",
        "def right():\n    return ok\nif __name__ == '__main__':\n    print(int(right()))",
    ],
)
def test_a_python_checker_answers_many_questions_as_it_answers_one(judge, says):
    program = "n = int(input())\nprint(1, n - 1 - n % 2)"  # wrong where n is odd
    verdict = judge(program, checked(READS + says, tests=30))
    assert verdict.test_verdicts == ["success", "wrong_answer"] * 15, verdict


def test_a_checker_that_needs_its_time_for_each_test_has_it(judge):
    source = "import time\nstart = time.process_time()\nwhile time.process_time() < start + 0.3: pass\nprint(1)"
    verdict = judge(RIGHT, checked(source, tests=5))  # 1.5 s together, and the limit is 1 s
    assert verdict.accepted, verdict


def test_what_the_program_itself_does_wrong_stays_its_own(judge):
    program = "n = int(input())\nif n == 1: 1 / 0\nprint(n - 5, 5 if n else 6)"
    verdict = judge(program, checked(SUM_PYTHON))
    assert verdict.test_verdicts == ["wrong_answer", "runtime_error", "success"]
    assert judge("print(", checked(SUM_PYTHON)).error_type == "syntax_error"
    assert judge("1 / 0", checked("1 / 0")).error_type == "runtime_error"  # nothing to ask the checker


def test_other_modes_compare_and_do_not_ask(judge):
    tokens = RunningJudge(JudgeConfig(workers=1, run_timeout=1.0, compare="tokens"))
    try:
        verdict = tokens(RIGHT, checked("1 / 0"))
    finally:
        tokens.close()
    assert verdict.error_type == "wrong_answer" and verdict.compared_by == ""


def test_a_checker_sees_the_bytes_and_nothing_of_the_host(judge):
    source = (
        "import sys\nread = [open(p, 'rb').read() for p in sys.argv[1:]]\n"
        f"seen = [p for p in ({str(Path(__file__))!r}, '/etc/shadow') if __import__('os').path.exists(p)]\n"
        "print(int(read == [b'x\\xc3\\xa9', b'\\xc3\\xb6', b'\\xff\\x00\\xfe\\r\\n'] and not seen))"
    )
    program = "import os\nos.write(1, b'\\xff\\x00\\xfe\\r\\n')"
    assert judge(program, stdin(("x\u00e9", "\u00f6"), checker={"kind": "python", "source": source})).accepted


def test_a_checker_may_import_from_the_future(judge):
    assert judge(RIGHT, checked(f"from __future__ import annotations\n{SUM_PYTHON}")).accepted


def test_outputs_that_wait_for_a_checker_are_bounded(judge):
    tests = HOLD // (30 << 20) + 2
    verdict = judge("print('1' * (30 << 20))", checked("print(1)", tests=tests))
    assert verdict.test_verdicts == ["success"] * (tests - 2) + ["runtime_error"] * 2
    assert verdict.detail.startswith("output_limit")


@needs_cpp
def test_a_cpp_checker_is_compiled_once(judge):
    before = len(judge.judge.checkers.binaries)
    for extra in range(2):
        assert judge(f"{RIGHT} # {extra}", checked(SUM_CPP + "// once", "testlib")).accepted
    assert len(judge.judge.checkers.binaries) == before + 1
