"""Assert tasks: each assert counts, no shortcut passes, every published reference solution does."""

import itertools

import pytest

from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all
from tests import public_problems
from tests.judge.main_guards import GUARDS
from tests.judge.running_judge import RunningJudge, asserts


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=1.0, memory_limit_mb=256))
    yield running
    running.close()


def test_mbpp_counts_each_assert(judge):
    verdict = judge(
        "def f(x): return x if x != 2 else 0", asserts("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3")
    )
    assert (verdict.error_type, verdict.tests_passed, verdict.pass_ratio) == ("wrong_answer", 2, 2 / 3)


def test_humaneval_is_all_or_nothing(judge):
    cases = {
        "type": "humaneval",
        "test_code": "def check(c):\n    assert c(1) == 1\n    assert c(2) == 2\n",
        "entry_point": "f",
    }
    assert judge("def f(x): return x", cases).pass_ratio == 1.0
    verdict = judge("def f(x): return 1", cases)
    assert (verdict.error_type, verdict.pass_ratio, verdict.tests_total) == ("wrong_answer", 0.0, 1)


@pytest.mark.slow
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
        (
            "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)",
            ["success"] * 3,
        ),  # one process, as published
    ],
)
def test_an_assert_that_ends_the_process_does_not_take_the_others_with_it(judge, program, verdicts):
    cases = {**asserts("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"), "time_limit": 0.5}
    assert judge(program, cases).test_verdicts == verdicts


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
    "always equal": "class A:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n"
    "    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__\n    __hash__ = int\n"
    "    def __sub__(s, o): return s\n    __rsub__ = __add__ = __mul__ = __getitem__ = __sub__\n    def "
    "__abs__(s): return s\n    def __call__(s, *a): return s\n    def __iter__(s): return iter([s])\n    def "
    "__len__(s): return 1\n"
    "def {e}(*a, **k):\n    return A()",
    "always equal str": (
        "class A(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__\ndef {e}(*a, **k):\n    "
        "return A('x')"
    ),
    "always equal in a list": "class A:\n    def __eq__(s, o): return True\ndef {e}(*a, **k):\n    return [A()]",
    "always equal from a generator": "class A:\n    def __eq__(s, o): return True\ndef {e}(*a, **k):\n    yield A()",
    "always equal by metaclass": (
        "class M(type):\n    def __eq__(s, o): return True\n    def __hash__(s): return hash(int)\n    def "
        "__instancecheck__(s, o): return True\nclass A(metaclass=M):\n    def __eq__(s, o): return True\ndef "
        "{e}(*a, **k):\n    return A()"
    ),
    "instance is the class": (
        "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\nclass A(metaclass=M): "
        "pass\ndef {e}(*a, **k):\n    return A"
    ),
    "patched builtins": "import builtins\nfor n in ('all', 'any', 'isinstance', 'callable'):\n"
    "    setattr(builtins, n, lambda *a, **k: True)\n"
    "for n in ('abs', 'len', 'sum', 'sorted', 'set', 'tuple', 'list', 'round', 'id', 'type', 'str', 'float'):\n"
    "    setattr(builtins, n, lambda *a, **k: 0)\n"
    "builtins.AssertionError = builtins.BaseException = KeyError\ndef {e}(*a, **k):\n    return 0",
    "patched import": (
        "import builtins\nbuiltins.__import__ = lambda *a, **k: None\nbuiltins.exec = builtins.compile = lambda "
        "*a, **k: None\ndef {e}(*a, **k):\n    return None"
    ),
    "patched math": (
        "import math\nfor n in ('isclose', 'fabs', 'floor'):\n    setattr(math, n, lambda *a, **k: True)\ndef "
        "{e}(*a, **k):\n    return None"
    ),
    "shadowed builtins": (
        "def abs(*a): return -1\ndef set(*a): return A()\nsorted = tuple = list = len = all = set\nclass A:\n    "
        "def __eq__(s, o): return True\n    def __lt__(s, o): return True\ndef {e}(*a, **k):\n    return None"
    ),
    "replaced check": (
        "def check(*a, **k): pass\nimport sys, threading, time\ng = globals()\ndef f():\n    while True:\n        "
        "g['check'] = lambda *a: None\nthreading.Thread(target=f, daemon=True).start()\ndef {e}(*a, **k):\n    "
        "g['check'] = check\n    return None"
    ),
    "check in builtins": "import builtins\nbuiltins.check = lambda *a, **k: None\ndef {e}(*a, **k):\n    return None",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef {e}(*a, **k):\n    return None",
    "patched os._exit": (
        "import os, sys\nos._exit = sys.exit = lambda *a: None\nsys.excepthook = lambda *a: None\ndef {e}(*a, "
        "**k):\n    return None"
    ),
    "trace": (
        "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef {e}(*a, **k):\n    return None"
    ),
    "prints an end": (
        "print('end', flush=True)\nimport os\nfor fd in range(3, 20):\n    try:\n        os.write(fd, b'0 success "
        "0.0 \\n end\\n')\n    except OSError: pass\nos._exit(0)"
    ),
    "child exits for it": "import os\nif os.fork():\n    os.wait()\n    os._exit(0)\nos._exit(0)",
}
SMALL = {
    "mbpp": asserts("assert f(3) == [3]", "assert set(f(4)) == {4}", "assert f(2)[0] > 1"),
    "humaneval": {
        "type": "humaneval",
        "test_code": (
            "import math\ndef check(candidate):\n    assert candidate(3) == [3]\n    assert all(x == 3 for x in "
            "candidate(3))\n    assert math.isclose(candidate(2)[0], 2)\n    assert abs(candidate(2)[0] - 2) < "
            "1e-6\n"
        ),
        "entry_point": "f",
    },
}


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
    [
        "collections.Counter([1])",
        "collections.OrderedDict(a=1)",
        "collections.deque([1])",
        "collections.defaultdict(int, a=1)",
        "fractions.Fraction(1, 2)",
        "decimal.Decimal('1.5')",
        "datetime.date(2020, 1, 1)",
        "(1, [2, {3: {4}}])",
        "frozenset([1])",
        "range(3)",
        "b'x'",
        "1j",
        "float('inf')",
        "None",
        "Point(1, 2)",
        "re.compile('x')",
        "iter([1])",
        "Plain",
    ],
)
def test_honest_results_of_many_types_are_plain_enough(judge, result):
    program = (
        "import collections, fractions, decimal, datetime, re\nPoint = collections.namedtuple('Point', 'x y')\n"
        "class Plain: pass\n"
    ) + f"value = {result}\ndef f(): return value"
    assert judge(program, asserts("x = f()\nassert x == x")).accepted


# Beside the cheats, what never answers.
FAILING = [
    "def {e}(*a, **k):\n    return None\n",
    *(
        CHEATS[name]
        for name in ("sys.exit", "os._exit", "always equal", "patched builtins", "replaced check", "fake SyntaxError")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_every_published_reference_passes_and_what_fails_does_not(shared_data, name):
    """Each problem with its reference, behind which stands a main guard; each of HumanEval, and every eighth of MBPP,
    with a failing program as well. Guards and failing programs take turns, for each costs a sandbox: all of them with
    every problem would take ten minutes."""
    problems = getattr(public_problems, name)(shared_data)
    assert len(problems) == {"humaneval": 164, "mbpp": 974}[name]
    guards = ["", *GUARDS.values()]
    items, turn = [], itertools.cycle(FAILING)
    for number, p in enumerate(problems):
        right = p.program(p.canonical_solution) + "\n" + guards[number % len(guards)]
        items.append((f"{p.problem_id} right", right, p.test_cases))
        if name == "humaneval" or number % 8 == 0:
            wrong = next(turn).replace("{e}", p.test_cases["entry_point"])
            items.append((f"{p.problem_id} wrong", wrong, p.test_cases))
    verdicts = list(judge_all(items, JudgeConfig()))
    odd = [(key, v.error_type, v.detail) for key, v in verdicts if v.accepted is not key.endswith("right")]
    assert odd == [] and len(verdicts) == len(items)
    assert {v.error_type for _, v in verdicts} <= {"success", "wrong_answer", "runtime_error"}
