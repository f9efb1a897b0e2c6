"""Verdicts of the local judge: precedence, limits under any load, fidelity to a plain interpreter."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.files import BadInput
from phase1.judge.config import JudgeConfig
from phase1.judge.inside.fork_server import BIG
from phase1.judge.judge import judge_all
from phase1.judge.outcomes import Task
from tests.judge.running_judge import RunningJudge, stdin


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=1.0, memory_limit_mb=256))
    yield running
    running.close()


# ------------------------------------------------------------------------------------------------------ verdict rules
BEHAVE = """
w = input()
if w == "wrong": print("no")
elif w == "crash": 1 / 0
elif w == "slow":
    while True: pass
else: print(w)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "error_type", "passed", "run"),
    [
        (["a", "b"], "success", 2, 2),
        (["a", "wrong"], "wrong_answer", 1, 2),
        (["wrong", "slow", "b"], "timeout", 1, 3),
        (["slow", "crash", "wrong", "a"], "runtime_error", 1, 4),
        (["crash", "a", "a", "a"], "runtime_error", 3, 4),
        (["slow", "slow", "slow", "a", "a"], "timeout", 0, 3),  # three in a row: the rest counts as failed
        (["slow", "a", "slow", "a", "slow", "a"], "timeout", 3, 6),
    ],
)
def test_worst_error_counts_and_every_test_runs(judge, words, error_type, passed, run):
    verdict = judge(BEHAVE, stdin(*((w + "\n", w + "\n") for w in words), time_limit=0.3))
    assert (verdict.error_type, verdict.tests_passed, verdict.tests_run, verdict.tests_total) == (
        error_type,
        passed,
        run,
        len(words),
    )
    assert verdict.pass_ratio == passed / len(words)
    assert verdict.accepted is (passed == len(words))
    assert verdict.test_verdicts[run:] == ["not_run"] * (len(words) - run)


@pytest.mark.parametrize(
    "program",
    [
        "def f(:",
        "x = 1\n  y = 2",
        "return 5",
        "'\\ud800'.encode(\n",
        "a\0b",
        "(" * 1000 + ")" * 1000,
        "-" * 100_000 + "1",
        "x = '\ud800'",
        "print 5",
        "0777",
    ],
)
def test_what_does_not_compile_is_a_syntax_error(judge, program):
    verdict = judge(program, stdin(("", "")))
    assert (verdict.error_type, verdict.tests_run, verdict.pass_ratio) == ("syntax_error", 0, 0.0)
    assert verdict.detail


@pytest.mark.parametrize(
    "program",
    [
        "raise SyntaxError('invalid syntax')",
        "exec('def f(:')",
        "import sys; sys.stderr.write('SyntaxError: invalid syntax'); sys.exit(1)",
    ],
)
def test_a_syntax_error_at_run_time_is_a_runtime_error(judge, program):
    assert judge(program, stdin(("", ""))).error_type == "runtime_error"


@pytest.mark.parametrize("program", ["", "  \n\t\n"])
def test_no_program_is_empty_output(judge, program):
    assert judge(program, stdin(("", ""))).error_type == "empty_output"


def test_warnings_at_compilation_are_no_error(judge):
    assert judge("print('\\d' is 5)", stdin(("", "False\n"))).error_type == "success"


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("x = bytearray(1 << 30)", "over the memory limit of 256 MiB|MemoryError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("input()", "EOFError"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import sys; sys.exit('sorry')", "sorry"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("while True: print('x' * 1000000)", "output_limit"),
        ("import os\nos._exit(7)", "exit code 7"),
    ],
)
def test_runtime_errors_say_what_happened(judge, program, detail):
    verdict = judge(program, stdin(("", "")))
    assert verdict.error_type == "runtime_error"
    assert re.search(detail, verdict.detail)


def test_first_failed_case_tells_all_there_is(judge):
    verdict = judge("print(input() + 'x' * 5000)", stdin(("a\n", "a" + "x" * 5000), ("b\n", "B")))
    case = verdict.first_failed_case
    assert (case["index"], case["verdict"], case["input"], case["expected"]) == (1, "wrong_answer", "b\n", "B")
    assert case["output"].startswith("bxx") and len(case["output"]) == 2048
    assert case["cpu"] >= 0 and case["wall"] > 0 and case["peak_rss"] > 1 << 20


# ------------------------------------------------------------------------------------------------------------- limits
@pytest.mark.slow
def test_a_problem_has_its_own_limits(judge):
    spin = "import time\nwhile time.process_time() < 1.4: pass\nprint('done')"
    assert judge(spin, stdin(("", "done"))).error_type == "timeout"
    assert judge(spin, stdin(("", "done"), time_limit=3)).error_type == "success"
    hungry = "x = bytearray(300 << 20)\nprint('done')"
    assert judge(hungry, stdin(("", "done"))).error_type == "runtime_error"
    assert judge(hungry, stdin(("", "done"), memory_limit_mb=512)).error_type == "success"


def test_a_limit_below_a_second_holds(judge):
    spin = "import time\nwhile time.process_time() < 0.5: pass\nprint('done')"
    assert judge(spin, stdin(("", "done"), time_limit=0.25)).error_type == "timeout"


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [24, 64, 128])
def test_a_small_memory_limit_is_the_programs_and_not_the_judges(judge, megabytes):
    """Outputs larger than the limit pass, one after another, and leave the next test the memory it had."""
    program = "import sys\nfor _ in range(int(input())): sys.stdout.write('x' * (1 << 20))"
    cases = stdin(*((f"{n}\n", "x" * (n << 20)) for n in (1, 31, 0, 31, 1)), memory_limit_mb=megabytes)
    assert judge(program, cases).test_verdicts == ["success"] * 5
    assert judge("x = bytearray(200 << 20)", cases).error_type == "runtime_error"


@pytest.mark.parametrize(
    ("program", "silent"),
    [
        ("def solve():\n    print(input())", 3),
        ("print()", 3),
        ("w = input()\nif w == '1': print(w)", 2),
        ("print(input())", 0),
        ("1 +", None),  # no test ran
    ],
)
def test_tests_on_which_a_program_prints_nothing_are_counted(judge, program, silent):
    assert judge(program, stdin(*((f"{n}\n", f"{n}\n") for n in (1, 2, 3)))).tests_silent == silent


@pytest.mark.parametrize(
    ("program", "unread"),
    [
        ("print(input())", 0),
        ("print(1)", 3),
        ("def f(): print(input())", 3),
        ("import sys\nprint(sys.stdin.read())", 0),
        ("import os\nprint(os.read(0, 1))", 0),
        ("print(open(0).read())", 0),
        ("print(open('/dev/stdin').read())", 0),
        ("raise ValueError", 3),
    ],
)
def test_tests_on_which_a_program_reads_nothing_are_counted(judge, program, unread):
    assert judge(program, stdin(*((f"{n}\n", f"{n}\n") for n in (1, 2, 3)))).tests_unread == unread


def test_an_empty_input_is_not_unread(judge):
    assert judge("print(1)", stdin(("", "1\n"), ("x", "1\n"))).tests_unread == 1


def test_where_asserts_call_a_program_it_need_not_print(judge):
    cases = {"type": "mbpp", "test_list": ["assert f(1) == 1"], "test_setup_code": "", "entry_point": "f"}
    verdict = judge("def f(x):\n    return x", cases)
    assert verdict.accepted and verdict.tests_silent is None


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_outputs_about_the_size_at_which_they_are_sent_otherwise(judge, size):
    echo = "import sys\nsys.stdout.write(sys.stdin.read())\nsys.stderr.write('e' * 100)\nsys.exit(0)"
    text = "y" * (BIG + size)
    assert judge(echo, stdin((text, text), ("", ""), (text, text), ("z", "z"))).accepted


@pytest.mark.parametrize("value", [0, -1, "2", True, float("nan")])
def test_a_limit_that_is_none_is_bad_input(judge, value):
    with pytest.raises(BadInput, match="time_limit"):
        judge("pass", stdin(("", ""), time_limit=value))


@pytest.mark.slow
def test_a_sleeper_is_a_timeout(judge):
    verdict = judge("import time; time.sleep(100)", stdin(("", ""), time_limit=0.3))
    assert (verdict.error_type, verdict.detail) == ("timeout", "more than 0.3 s of waiting")


def test_threads_have_room_under_a_gigabyte(judge):
    program = (
        "import threading\nt = [threading.Thread(target=len, args=('',)) for _ in range(40)]\nb = "
        "threading.Barrier(41)\n"
    ) + ("u = [threading.Thread(target=b.wait) for _ in range(40)]\n[x.start() for x in u]\nb.wait()\nprint('done')")
    assert judge(program, stdin(("", "done"), memory_limit_mb=1024)).error_type == "success"


def test_numpy_is_there_where_the_judge_has_it(judge):
    pytest.importorskip("numpy")
    if "numpy" not in judge.judge.info["packages"]:
        pytest.skip("programs run with another interpreter than the judge's")
    program = "import numpy as np\nprint(int(np.arange(10).reshape(2, 5).dot(np.ones(5)).sum()))"
    assert judge(program, stdin(("", "45"), memory_limit_mb=1024)).error_type == "success"


@pytest.mark.slow
def test_verdicts_do_not_depend_on_the_load():
    """Programs that use up to 60% of their CPU time, and some that use more than all of it: the same verdicts with 8
    busy loops beside them."""

    def items():
        for i in range(24):
            share = 30.0 if i % 12 == 7 else (0.3, 0.4, 0.5, 0.6)[i // 4 % 4] if i % 4 == 0 else 0.02
            yield (
                str(i),
                f"import time\nwhile time.process_time() < {share * 0.5}: pass\nprint({i} if {i} % 7 else 0)",
                stdin(("", str(i)), time_limit=0.5),
            )

    def verdicts():
        return {key: (v.error_type, v.test_verdicts) for key, v in judge_all(items(), JudgeConfig(workers=2))}

    idle = verdicts()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        loaded = verdicts()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert loaded == idle
    assert {v[0] for v in idle.values()} == {"success", "wrong_answer", "timeout"}


# ------------------------------------------------------------------------------- fidelity to `python3 main.py < input`
FAITHFUL = {
    "exit builtin": ("print(1); exit()", "1"),
    "quit builtin": ("print(1); quit(0)", "1"),
    "sys.exit(0) compares the output": ("import sys; print(1); sys.exit(0); print(2)", "1"),
    "os._exit keeps what was flushed": ("import os; print(1, flush=True); os._exit(0)", "1"),
    "main guard": ("if __name__ == '__main__': print(1)", "1"),
    "open(0)": ("print(open(0).read().split()[-1])", "7"),
    "dev stdin": ("print(open('/dev/stdin').read().split()[-1])", "7"),
    "stdin buffer": ("import sys; print(sys.stdin.buffer.readlines()[-1].decode().strip())", "7"),
    "os.read": ("import os; print(os.read(0, 100).split()[-1].decode())", "7"),
    "iterating stdin": ("import sys\nfor line in sys.stdin: pass\nprint(line)", "7"),
    "input until EOF": ("try:\n    while True: x = input()\nexcept EOFError: print(x)", "7"),
    "unclosed file": ("f = open(1, 'w'); f.write('1')", "1"),
    "replaced stdout": (
        (
            "import io, os, atexit, sys\nsys.stdout = io.StringIO()\natexit.register(lambda: os.write(1, "
            "sys.stdout.getvalue().encode()))\nprint(1)"
        ),
        "1",
    ),
    "print = sys.stdout.write": ("import sys\nprint = sys.stdout.write\nprint('1')", "1"),
    "thread outlives main": (
        "import threading, time\ndef f():\n    time.sleep(0.1); print(1)\nthreading.Thread(target=f).start()",
        "1",
    ),
    "big stack in a thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
        "def f(n): return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(20000)))\nt.start(); "
        "t.join()",
        "20000",
    ),
    "destructor": ("class A:\n    def __del__(self): print(1)\na = A()", "1"),
    "subprocess": (
        "import subprocess, sys\nprint(subprocess.run(['echo', '1'], capture_output=True, text=True).stdout)",
        "1",
    ),
    "multiprocessing": (
        (
            "import multiprocessing as m\nif __name__ == '__main__':\n    with m.Pool(2) as p: "
            "print(sum(p.map(abs, [-1, -2])))"
        ),
        "3",
    ),
    "dataclass and pickle": (
        (
            "import dataclasses, pickle\n@dataclasses.dataclass\nclass A:\n    x: int\n"
            "print(pickle.loads(pickle.dumps(A(1))).x)"
        ),
        "1",
    ),
    "import of main": ("import __main__\nx = 1\nprint(__main__.x)", "1"),
    "bytes not UTF-8": ("import sys; sys.stdout.buffer.write(b'1\\n')", "1"),
    "hash order is fixed": ("print(len({str(i) for i in range(9)}))", "9"),
    "temporary file": (
        "import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'1'); f.seek(0); print(f.read().decode())",
        "1",
    ),
    "sys.argv": ("import sys; print(len(sys.argv))", "1"),
    "SIGALRM": (
        (
            "import signal\nsignal.signal(signal.SIGALRM, lambda *a: print(1))\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.05)\nsignal.pause()"
        ),
        "1",
    ),
    "keyboard interrupt": (
        (
            "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    import time; time.sleep(1)\n"
            "except KeyboardInterrupt: print(1)"
        ),
        "1",
    ),
}


@pytest.mark.parametrize("name", FAITHFUL)
def test_programs_behave_as_under_a_plain_interpreter(judge, name):
    program, expected = FAITHFUL[name]
    verdict = judge(program, stdin(("5 6\n7\n", expected)))
    assert verdict.error_type == "success", (verdict.detail, verdict.first_failed_case)


def test_one_test_sees_nothing_of_another(judge):
    program = (
        "import builtins, os\nn = getattr(builtins, 'n', 0) + 1\nbuiltins.n = n\nprint(n, "
        "os.path.exists('/tmp/seen'))\nopen('/tmp/seen', 'w')"
    )
    assert judge(program, stdin(*[("", "1 False")] * 3)).error_type == "success"


def test_no_test_sees_what_another_left_in_its_files(judge):
    """Longer input before, bytes written to every descriptor, moved positions, modules that a program imports
    everywhere."""
    program = (
        "import os, random, sys\ndata = sys.stdin.read()\nsys.stdin.seek(0)\nassert sys.stdin.read() == data\n"
        "print(len(data), random.__dict__.setdefault('seen', data) == data)\n"
    )
    program += (
        "for fd in range(10):\n    try:\n        if fd not in (1, 2):\n            os.write(fd, b'x' * 5000)\n     "
        "       os.lseek(fd, 77, 1)\n    except OSError:\n        pass\n"
    )
    program += "try:\n    print(os.pread(4, 10, 0))\nexcept OSError:\n    pass\n"
    lengths = (3000, 2, 0, 70000, 1)
    verdict = judge(program, stdin(*[("y" * n, f"{n} True") for n in lengths]))
    assert [c for c in verdict.test_verdicts if c != "success"] == [], verdict.first_failed_case


@pytest.mark.parametrize("module", ["random", "threading", "decimal", "collections", "re", "dataclasses"])
def test_what_is_imported_once_is_fresh_in_each_test(judge, module):
    """The fork-server imports it for all tests: a change by one test is not seen by the next, and random numbers
    differ."""
    program = f"import {module}\nprint(hasattr({module}, 'changed'))\n{module}.changed = True\n"
    assert judge(program, stdin(*[("", "False")] * 3)).accepted
    if module == "random":
        runs = judge.runner.run(_outputs(judge, "import random\nprint(random.random())", 3))
        assert len(set(runs)) == 3


async def _outputs(judge, program, count):
    task = Task(program, kind="stdin", count=count, limit=5.0, memory=256 << 20, inputs=[""] * count)
    return [run.output async for run in judge.judge.backend.run(task)]


def test_what_runs_inside_brings_a_program_no_modules_that_it_did_not_ask_for(judge):
    """Each module in memory is copied at each fork; the types of phase1/judge/inside/ are for a checker alone."""
    names = ("typing", "__future__", "collections", "struct", "contextlib", "re", "phase1.judge.inside.asserts")
    program = f"import sys\nprint([name for name in {names} if name in sys.modules])"
    assert judge(program, stdin(("", "[]"))).accepted


def test_what_runs_inside_imports_its_neighbours_and_the_standard_library_only():
    for path in (Path(__file__).resolve().parents[2] / "phase1/judge/inside").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or name.startswith("phase1.judge.inside."), f"{path}: {name}"


def test_output_that_is_not_utf8_is_judged_as_bytes(judge):
    verdict = judge("import sys; sys.stdout.buffer.write(bytes([255, 254]))", stdin(("", "ÿþ")))
    assert verdict.error_type == "wrong_answer"
    assert verdict.first_failed_case["output"] == "\\xff\\xfe"
