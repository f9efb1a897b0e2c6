"""Verdicts of the local judge: precedence, limits, fidelity to a plain interpreter, cheats on assert tasks, cleaning up."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase1.files import BadInput
from phase1.judge import JudgeConfig, judge_all, open_judge
from tests import public_problems

ROOT = Path(__file__).resolve().parent.parent


class _Running:
    """A judge in an event loop of its own, for tests that want one verdict at a time."""

    def __init__(self, config):
        self.runner, self.stack = asyncio.Runner(), contextlib.AsyncExitStack()
        self.judge = self.runner.run(self.stack.enter_async_context(open_judge(config)))

    def __call__(self, program, cases):
        return self.runner.run(self.judge.judge(program, cases))

    def close(self):
        self.runner.run(self.stack.aclose())
        self.runner.close()


@pytest.fixture(scope="module")
def judge():
    running = _Running(JudgeConfig(workers=2, run_timeout=1.0, memory_limit_mb=256))
    yield running
    running.close()


def stdin(*pairs, **limits):
    return {"type": "codecontests", "tests": [{"input": i, "output": o} for i, o in pairs], **limits}


def asserts(*tests, setup="", entry="f"):
    return {"type": "mbpp", "test_list": list(tests), "test_setup_code": setup, "entry_point": entry}


# ------------------------------------------------------------------------------------------------------ verdict rules
BEHAVE = """
w = input()
if w == "wrong": print("no")
elif w == "crash": 1 / 0
elif w == "slow":
    while True: pass
else: print(w)
"""


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
    verdict = judge(BEHAVE, stdin(*((w + "\n", w + "\n") for w in words)))
    assert (verdict.error_type, verdict.tests_passed, verdict.tests_run, verdict.tests_total) == (error_type, passed, run, len(words))
    assert verdict.pass_ratio == passed / len(words)
    assert verdict.accepted is (passed == len(words))
    assert verdict.test_verdicts[run:] == ["not_run"] * (len(words) - run)


@pytest.mark.parametrize(
    "program",
    ["def f(:", "x = 1\n  y = 2", "return 5", "'\\ud800'.encode(\n", "a\0b", "(" * 1000 + ")" * 1000, "-" * 100_000 + "1", "x = '\ud800'", "print 5", "0777"],
)
def test_what_does_not_compile_is_a_syntax_error(judge, program):
    verdict = judge(program, stdin(("", "")))
    assert (verdict.error_type, verdict.tests_run, verdict.pass_ratio) == ("syntax_error", 0, 0.0)
    assert verdict.detail


@pytest.mark.parametrize("program", ["raise SyntaxError('invalid syntax')", "exec('def f(:')", "import sys; sys.stderr.write('SyntaxError: invalid syntax'); sys.exit(1)"])
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
        ("x = bytearray(1 << 30)", "MemoryError"),
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
    assert detail in verdict.detail


def test_first_failed_case_tells_all_there_is(judge):
    verdict = judge("print(input() + 'x' * 5000)", stdin(("a\n", "a" + "x" * 5000), ("b\n", "B")))
    case = verdict.first_failed_case
    assert (case["index"], case["verdict"], case["input"], case["expected"]) == (1, "wrong_answer", "b\n", "B")
    assert case["output"].startswith("bxx") and len(case["output"]) == 2048
    assert case["cpu"] >= 0 and case["wall"] > 0 and case["peak_rss"] > 1 << 20


# ------------------------------------------------------------------------------------------------------------- limits
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


@pytest.mark.parametrize("value", [0, -1, "2", True, float("nan")])
def test_a_limit_that_is_none_is_bad_input(judge, value):
    with pytest.raises(BadInput, match="time_limit"):
        judge("pass", stdin(("", ""), time_limit=value))


def test_a_sleeper_is_a_timeout(judge):
    started = time.monotonic()
    assert judge("import time; time.sleep(100)", stdin(("", ""))).error_type == "timeout"
    assert time.monotonic() - started < 60


def test_threads_have_room_under_a_gigabyte(judge):
    program = "import threading\nt = [threading.Thread(target=len, args=('',)) for _ in range(40)]\nb = threading.Barrier(41)\n" + (
        "u = [threading.Thread(target=b.wait) for _ in range(40)]\n[x.start() for x in u]\nb.wait()\nprint('done')"
    )
    assert judge(program, stdin(("", "done"), memory_limit_mb=1024)).error_type == "success"


def test_numpy_is_there_where_the_judge_has_it(judge):
    pytest.importorskip("numpy")
    if "numpy" not in judge.judge.info["packages"]:
        pytest.skip("programs run with another interpreter than the judge's")
    program = "import numpy as np\nprint(int(np.arange(10).reshape(2, 5).dot(np.ones(5)).sum()))"
    assert judge(program, stdin(("", "45"), memory_limit_mb=1024)).error_type == "success"


@pytest.mark.slow
def test_three_hundred_big_tests_in_bounded_memory(tmp_path):
    """1.5 GB of inputs and outputs pass through; the judge holds them once, as its caller does, and little more."""
    script = tmp_path / "big.py"
    script.write_text(
        f"import resource, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom phase1.judge import JudgeConfig, judge_all\n"
        "text = '123456789 ' * 500_000\ncases = {'type': 'codecontests', 'tests': [{'input': text, 'output': text}] * 300}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "[(_, verdict)] = judge_all([('a', 'import sys\\nsys.stdout.write(sys.stdin.read())', cases)], JudgeConfig(workers=1))\n"
        "print(verdict.tests_passed, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    passed, grown = map(int, subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split())
    assert passed == 300
    assert grown < 200  # MiB


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
    "unclosed file in a cycle": ("class A: pass\na = A(); a.a = a; a.f = open('/dev/stdout', 'w'); a.f.write('1'); del a", "1"),
    "replaced stdout": ("import io, os, atexit, sys\nsys.stdout = io.StringIO()\natexit.register(lambda: os.write(1, sys.stdout.getvalue().encode()))\nprint(1)", "1"),
    "print = sys.stdout.write": ("import sys\nprint = sys.stdout.write\nprint('1')", "1"),
    "thread outlives main": ("import threading, time\ndef f():\n    time.sleep(0.1); print(1)\nthreading.Thread(target=f).start()", "1"),
    "big stack in a thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
        "def f(n): return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(20000)))\nt.start(); t.join()", "20000"),
    "destructor": ("class A:\n    def __del__(self): print(1)\na = A()", "1"),
    "subprocess": ("import subprocess, sys\nprint(subprocess.run(['echo', '1'], capture_output=True, text=True).stdout)", "1"),
    "multiprocessing": ("import multiprocessing as m\nif __name__ == '__main__':\n    with m.Pool(2) as p: print(sum(p.map(abs, [-1, -2])))", "3"),
    "dataclass and pickle": ("import dataclasses, pickle\n@dataclasses.dataclass\nclass A:\n    x: int\nprint(pickle.loads(pickle.dumps(A(1))).x)", "1"),
    "import of main": ("import __main__\nx = 1\nprint(__main__.x)", "1"),
    "bytes not UTF-8": ("import sys; sys.stdout.buffer.write(b'1\\n')", "1"),
    "hash order is fixed": ("print(len({str(i) for i in range(9)}))", "9"),
    "temporary file": ("import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'1'); f.seek(0); print(f.read().decode())", "1"),
    "sys.argv": ("import sys; print(len(sys.argv))", "1"),
    "SIGALRM": ("import signal\nsignal.signal(signal.SIGALRM, lambda *a: print(1))\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\nsignal.pause()", "1"),
    "keyboard interrupt": ("import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    import time; time.sleep(1)\nexcept KeyboardInterrupt: print(1)", "1"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAITHFUL)
def test_programs_behave_as_under_a_plain_interpreter(judge, name):
    program, expected = FAITHFUL[name]
    verdict = judge(program, stdin(("5 6\n7\n", expected)))
    assert verdict.error_type == "success", (verdict.detail, verdict.first_failed_case)


def test_one_test_sees_nothing_of_another(judge):
    program = "import builtins, os\nn = getattr(builtins, 'n', 0) + 1\nbuiltins.n = n\nprint(n, os.path.exists('/tmp/seen'))\nopen('/tmp/seen', 'w')"
    assert judge(program, stdin(*[("", "1 False")] * 3)).error_type == "success"


def test_output_that_is_not_utf8_is_judged_as_bytes(judge):
    verdict = judge("import sys; sys.stdout.buffer.write(bytes([255, 254]))", stdin(("", "ÿþ")))
    assert verdict.error_type == "wrong_answer"
    assert verdict.first_failed_case["output"] == "\\xff\\xfe"


# ------------------------------------------------------------------------------------------------------- assert tasks
def test_mbpp_counts_each_assert(judge):
    verdict = judge("def f(x): return x if x != 2 else 0", asserts("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"))
    assert (verdict.error_type, verdict.tests_passed, verdict.pass_ratio) == ("wrong_answer", 2, 2 / 3)


def test_humaneval_is_all_or_nothing(judge):
    cases = {"type": "humaneval", "test_code": "def check(c):\n    assert c(1) == 1\n    assert c(2) == 2\n", "entry_point": "f"}
    assert judge("def f(x): return x", cases).pass_ratio == 1.0
    verdict = judge("def f(x): return 1", cases)
    assert (verdict.error_type, verdict.pass_ratio, verdict.tests_total) == ("wrong_answer", 0.0, 1)


@pytest.mark.parametrize(
    ("program", "verdicts"),
    [
        ("import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return x", ["success", "runtime_error", "success"]),
        ("def f(x):\n    while x == 2: pass\n    return x", ["success", "timeout", "success"]),
        ("def f(x):\n    if x == 1: raise KeyError('k')\n    return x", ["runtime_error", "success", "success"]),
        ("raise RuntimeError('body')", ["runtime_error"] * 3),
        ("assert False\ndef f(x): return x", ["wrong_answer"] * 3),
        ("def g(x): return x", ["runtime_error"] * 3),
        ("import time\nwhile True: time.sleep(9)", ["timeout"] * 3),
        ("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", ["success"] * 3),  # one process, as published
    ],
)
def test_an_assert_that_ends_the_process_does_not_take_the_others_with_it(judge, program, verdicts):
    assert judge(program, asserts("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3")).test_verdicts == verdicts


def test_setup_code_may_come_before_or_after_the_program(judge):
    assert judge("def f(x): return math.floor(x)", asserts("assert f(1.5) == 1", setup="import math")).accepted
    program = "class Node:\n    def __init__(self, v): self.v = v\ndef f(n): return n.v"
    assert judge(program, asserts("assert f(node) == 5", setup="node = Node(5)")).accepted


def test_tests_that_do_not_compile_are_the_judges_failure(judge):
    assert judge("def f(x): return x", asserts("assert f(1) ==")).error_type == "sandbox_error"


# Each stands for a wrong solution that would pass a naive harness; {e} is the entry point.
CHEATS = {
    "sys.exit": "import sys\nsys.exit(0)",
    "os._exit": "import os\nos._exit(0)",
    "exit in the function": "import sys\ndef {e}(*a, **k):\n    sys.exit(0)",
    "os._exit in the function": "import os\ndef {e}(*a, **k):\n    os._exit(0)",
    "fake SyntaxError": "raise SyntaxError('invalid syntax')",
    "fake SyntaxError in the function": "def {e}(*a, **k):\n    raise SyntaxError('invalid syntax')",
    "always equal": "class A:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__\n    __hash__ = int\n"
    "    def __sub__(s, o): return s\n    __rsub__ = __add__ = __mul__ = __getitem__ = __sub__\n    def __abs__(s): return s\n    def __call__(s, *a): return s\n    def __iter__(s): return iter([s])\n    def __len__(s): return 1\n"
    "def {e}(*a, **k):\n    return A()",
    "always equal str": "class A(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__\ndef {e}(*a, **k):\n    return A('x')",
    "always equal in a list": "class A:\n    def __eq__(s, o): return True\ndef {e}(*a, **k):\n    return [A()]",
    "always equal from a generator": "class A:\n    def __eq__(s, o): return True\ndef {e}(*a, **k):\n    yield A()",
    "always equal by metaclass": "class M(type):\n    def __eq__(s, o): return True\n    def __hash__(s): return hash(int)\n    def __instancecheck__(s, o): return True\nclass A(metaclass=M):\n    def __eq__(s, o): return True\ndef {e}(*a, **k):\n    return A()",
    "instance is the class": "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\nclass A(metaclass=M): pass\ndef {e}(*a, **k):\n    return A",
    "patched builtins": "import builtins\nfor n in ('all', 'any', 'isinstance', 'callable'):\n    setattr(builtins, n, lambda *a, **k: True)\nfor n in ('abs', 'len', 'sum', 'sorted', 'set', 'tuple', 'list', 'round', 'id', 'type', 'str', 'float'):\n    setattr(builtins, n, lambda *a, **k: 0)\n"
    "builtins.AssertionError = builtins.BaseException = KeyError\ndef {e}(*a, **k):\n    return 0",
    "patched import": "import builtins\nbuiltins.__import__ = lambda *a, **k: None\nbuiltins.exec = builtins.compile = lambda *a, **k: None\ndef {e}(*a, **k):\n    return None",
    "patched math": "import math\nfor n in ('isclose', 'fabs', 'floor'):\n    setattr(math, n, lambda *a, **k: True)\ndef {e}(*a, **k):\n    return None",
    "shadowed builtins": "def abs(*a): return -1\ndef set(*a): return A()\nsorted = tuple = list = len = all = set\nclass A:\n    def __eq__(s, o): return True\n    def __lt__(s, o): return True\ndef {e}(*a, **k):\n    return None",
    "replaced check": "def check(*a, **k): pass\nimport sys, threading, time\ng = sys.modules['__main__'].__dict__\ndef f():\n    while True:\n        g['check'] = lambda *a: None\nthreading.Thread(target=f, daemon=True).start()\ndef {e}(*a, **k):\n    g['check'] = check\n    return None",
    "check in builtins": "import builtins\nbuiltins.check = lambda *a, **k: None\ndef {e}(*a, **k):\n    return None",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef {e}(*a, **k):\n    return None",
    "patched os._exit": "import os, sys\nos._exit = sys.exit = lambda *a: None\nsys.excepthook = lambda *a: None\ndef {e}(*a, **k):\n    return None",
    "trace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef {e}(*a, **k):\n    return None",
    "prints an end": "print('end', flush=True)\nimport os\nfor fd in range(3, 20):\n    try:\n        os.write(fd, b'0 success 0.0 \\n end\\n')\n    except OSError: pass\nos._exit(0)",
    "child exits for it": "import os\nif os.fork():\n    os.wait()\n    os._exit(0)\nos._exit(0)",
}  # fmt: skip
SMALL = {
    "mbpp": asserts("assert f(3) == [3]", "assert set(f(4)) == {4}", "assert f(2)[0] > 1"),
    "humaneval": {"type": "humaneval", "test_code": "import math\ndef check(candidate):\n    assert candidate(3) == [3]\n    assert all(x == 3 for x in candidate(3))\n    assert math.isclose(candidate(2)[0], 2)\n    assert abs(candidate(2)[0] - 2) < 1e-6\n", "entry_point": "f"},
}  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_does_not_pass_and_is_not_misnamed(judge, cheat, kind):
    assert judge("def f(x): return [x]", SMALL[kind]).accepted
    verdict = judge(CHEATS[cheat].replace("{e}", "f"), SMALL[kind])
    assert not verdict.accepted
    assert verdict.error_type in ("wrong_answer", "runtime_error")
    assert verdict.tests_passed == 0 or kind == "mbpp"


@pytest.mark.parametrize(
    "result",
    ["collections.Counter([1])", "collections.OrderedDict(a=1)", "collections.deque([1])", "collections.defaultdict(int, a=1)", "fractions.Fraction(1, 2)",
     "decimal.Decimal('1.5')", "datetime.date(2020, 1, 1)", "(1, [2, {3: {4}}])", "frozenset([1])", "range(3)", "b'x'", "1j", "float('inf')", "None", "Point(1, 2)", "re.compile('x')", "iter([1])", "Plain"],
)  # fmt: skip
def test_honest_results_of_many_types_are_plain_enough(judge, result):
    program = "import collections, fractions, decimal, datetime, re\nPoint = collections.namedtuple('Point', 'x y')\nclass Plain: pass\n" + f"value = {result}\ndef f(): return value"
    assert judge(program, asserts("x = f()\nassert x == x")).accepted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_every_reference_solution_passes_and_none_does_not(shared_data, name):
    problems = getattr(public_problems, name)(shared_data)
    assert len(problems) == {"humaneval": 164, "mbpp": 974}[name]
    items = [(f"{p.problem_id} right", p.program(p.canonical_solution), p.test_cases) for p in problems]
    items += [(f"{p.problem_id} none", f"def {p.test_cases['entry_point']}(*a, **k):\n    return None\n", p.test_cases) for p in problems]
    wrong = [(key, v.error_type, v.detail) for key, v in judge_all(items, JudgeConfig()) if v.accepted is not key.endswith("right")]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("cheat", ["sys.exit", "os._exit", "always equal", "patched builtins", "replaced check", "fake SyntaxError"])
def test_no_cheat_passes_a_single_humaneval_problem(shared_data, cheat):
    problems = public_problems.humaneval(shared_data)
    items = [(p.problem_id, CHEATS[cheat].replace("{e}", p.test_cases["entry_point"]), p.test_cases) for p in problems]
    verdicts = list(judge_all(items, JudgeConfig()))
    assert [k for k, v in verdicts if v.accepted] == []
    assert {v.error_type for _, v in verdicts} <= {"wrong_answer", "runtime_error"}


# ----------------------------------------------------------------------------------------------------------- the pool
def test_identical_programs_are_judged_once(judge):
    cases = stdin(("", "1"))
    runs, real = [], judge.judge.backend.run
    judge.judge.backend.run = lambda task: runs.append(task) or real(task)

    async def both():
        return await asyncio.gather(*(judge.judge.judge("print(1) # the same", dict(cases)) for _ in range(5)))

    verdicts = judge.runner.run(both())
    judge.judge.backend.run = real
    assert len(runs) == 1
    assert all(v == verdicts[0] for v in verdicts)


def test_the_same_program_on_other_tests_is_judged_again(judge):
    assert judge("print(2) # twice", stdin(("", "2"))).accepted
    assert not judge("print(2) # twice", stdin(("", "3"))).accepted


def test_judge_all_takes_items_as_it_goes():
    taken = []

    def items():
        for i in range(40):
            taken.append(i)
            yield str(i), f"print({i})", stdin(("", str(i)))

    seen = 0
    for _, verdict in judge_all(items(), JudgeConfig(workers=1)):
        seen += 1
        assert verdict.accepted
        assert len(taken) <= seen + 4
    assert seen == 40


def test_unknown_kinds_and_modes_are_bad_input(judge):
    with pytest.raises(BadInput, match=r"test_cases\.type"):
        judge("pass", {"type": "leetcode"})
    with pytest.raises(BadInput, match="--compare"):
        list(judge_all([], JudgeConfig(compare="fuzzy")))


LONG = (
    # A test run in the background of a shell has SIGINT ignored, and its children too.
    "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "sys.path.insert(0, {root!r})\nfrom phase1.judge import JudgeConfig, judge_all\nfrom phase1.files import run_script\n"
    "program = 'import os, time\\nfor _ in range(3): os.fork()\\nprint(1, flush=True)\\ntime.sleep(1000)'\n"
    "def items():\n    for i in range(4):\n        yield str(i), program + f' # {{i}} {marker}', {{'type': 'codecontests', 'tests': [{{'input': '', 'output': ''}}]}}\n"
    "def main():\n    print('started', flush=True)\n    list(judge_all(items(), JudgeConfig(workers=2, run_timeout=900)))\nrun_script(main)\n"
)


def _family(root):
    from tests.hostile_driver import descendants

    return descendants(root)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_judging_process(tmp_path, number):
    script = tmp_path / "long.py"
    script.write_text(LONG.format(root=str(ROOT), marker=number))
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    deadline = time.monotonic() + 60
    while len(family := _family(process.pid)) < 20:  # launcher, two sandboxes with eight processes each
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("the sandboxes did not start")
        time.sleep(0.1)
    started = {}
    for pid in family:  # one that ends meanwhile need not be waited for
        with contextlib.suppress(OSError):
            started[pid] = Path(f"/proc/{pid}/stat").read_bytes().split()[21]
    launchers = {family[0]}  # the judging process has one child
    process.send_signal(number)
    process.wait(30)

    def alive():
        left = []
        for pid, birth in started.items():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_bytes().split()
                if fields[21] == birth and fields[2] != b"Z":
                    left.append(pid)
        return left

    def wait_until(condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        return condition()

    assert wait_until(lambda: set(alive()) <= launchers, 2)
    assert wait_until(lambda: not alive(), 10)  # the launcher stays to remove its cgroups


REAPER = """
import ctypes, os, subprocess, sys, time
sys.path.insert(0, ROOT)
from tests.hostile_driver import descendants
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: whatever is orphaned becomes our child
worst = 0.0
for number in range(16):
    process = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    time.sleep(number * 0.04)
    process.kill()
    process.wait()
    killed = time.monotonic()
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        if time.monotonic() - killed > 5:
            subprocess.run(["ps", "-o", "pid,args", *map(str, descendants(os.getpid()))], stdout=sys.stderr)
            sys.exit(f"left behind by a kill {number * 0.04:.2f} s after the start")
        time.sleep(0.01)
    worst = max(worst, time.monotonic() - killed)
print(worst)
"""


@pytest.mark.slow
def test_nothing_outlives_a_judge_killed_at_any_moment(tmp_path):
    """Opening, probing, starting a sandbox: bubblewrap killed half-way leaves a process that only its reaper can find."""
    script = tmp_path / "long.py"
    script.write_text(LONG.format(root=str(ROOT), marker="any"))
    done = subprocess.run([sys.executable, "-c", REAPER.replace("ROOT", repr(str(ROOT))), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_verdicts_do_not_depend_on_the_load():
    """Many programs at 30 to 60% of their limit, and some beyond it: the same verdicts with 8 busy loops beside them."""
    before = os.times().children_user
    subprocess.run([sys.executable, "-c", "n = 0\nfor _ in range(10_000_000):\n    n += 1"], check=True)
    per_second = 10_000_000 / (os.times().children_user - before)

    def items():
        for i in range(200):
            share = 3.0 if i % 50 == 7 else (0.3, 0.4, 0.5, 0.6)[i // 4 % 4] if i % 4 == 0 else 0.02
            loops = int(share * 0.3 * per_second)
            yield str(i), f"n = 0\nfor _ in range({loops}):\n    n += 1\nprint({i} if {i} % 7 else 0)", stdin(("", str(i)), time_limit=0.3)

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


# ------------------------------------------------------------------------------------------------------- command line
@pytest.fixture
def files(tmp_path):
    raw = [
        {"problem_id": "a", "prompt": "p", "test_cases": stdin(("1\n", "2\n"), ("5\n", "10\n"))},
        {"problem_id": "b", "prompt": "def f(x):\n", "test_cases": {"type": "humaneval", "test_code": "def check(c):\n    assert c(1) == 2\n", "entry_point": "f"}},
    ]
    solutions = [
        {"problem_id": "a", "code": "print(int(input()) * 2)"},
        {"problem_id": "a", "completion": "Sure!\n<code>\nprint(2)\n</code>"},
        {"problem_id": "b", "completion": "<code>\n    return x + 1\n</code>"},
        {"problem_id": "b", "completion": ""},
    ]
    for name, rows in (("raw", raw), ("solutions", solutions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def _command(folder, *flags):
    command = [sys.executable, "-m", "phase1.judge", "--raw", folder / "raw.jsonl", "--solutions", folder / "solutions.jsonl", "--out", folder / "out.jsonl", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_command_judges_a_file_of_solutions(files):
    done = _command(files, "--workers", "1", "--run_timeout", "5")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (files / "out.jsonl").read_text().splitlines()]
    assert [(r["problem_id"], r["error_type"], r["pass_ratio"]) for r in rows] == [("a", "success", 1.0), ("a", "wrong_answer", 0.5), ("b", "success", 1.0), ("b", "empty_output", 0.0)]
    stamp = json.loads((files / "out.jsonl.run.json").read_text())
    assert stamp["accepted"] == 2 and stamp["stamp"]["arguments"]["run_timeout"] == 5.0


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"problem_id": "zzz", "code": ""}', "solutions.jsonl:5: problem_id 'zzz' is not in"), ('{"problem_id": "a"}', "solutions.jsonl:5: needs `code` or `completion`"), ("{", "solutions.jsonl:5: not a JSON object")],
)
def test_a_bad_line_is_named_and_nothing_written(files, line, message):
    with open(files / "solutions.jsonl", "a") as f:
        f.write(line + "\n")
    done = _command(files)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (files / "out.jsonl").exists()


def test_probe_prints_every_guarantee():
    done = subprocess.run([sys.executable, "-m", "phase1.judge", "--probe"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("file_system", "network", "processes", "tree_kill", "memory_process", "memory_all", "disk", "user_namespaces"):
        assert f"{name} " in done.stdout
    assert "FAILS" not in done.stdout


def test_without_bubblewrap_nothing_is_judged_unless_unsafe(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "phase1.judge", "--probe"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 1 and "file_system" in done.stdout and "FAILS" in done.stdout
    program = "from phase1.judge import *\nfrom phase1.files import run_script\ncases = {'type': 'codecontests', 'tests': [{'input': '', 'output': '1'}] * 2}\n"
    program += "run_script(lambda: print([v.error_type for _, v in judge_all([('a', 'print(1)', cases)], JudgeConfig(unsafe=UNSAFE))]))"
    for unsafe, code in ((False, 2), (True, 0)):
        done = subprocess.run([sys.executable, "-c", program.replace("UNSAFE", str(unsafe))], capture_output=True, text=True, cwd=ROOT, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
    assert "['success']" in done.stdout


def test_a_program_that_ends_early_on_big_tests_is_no_failure_of_the_judge(judge):
    big = "x" * 2_000_000
    assert judge("while True: pass", stdin(*[(big, "")] * 8, time_limit=0.1)).error_type == "timeout"
    assert judge("def f(:", stdin(*[(big, "")] * 8)).error_type == "syntax_error"
    assert judge("pass", stdin(*[(big, "")] * 8)).accepted
