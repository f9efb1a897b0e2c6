"""What an honest program and its tests do to each other is the same in two processes as in one.

The reference is plain python3, which runs set-up, program and tests as one text, as MBPP's harness does.
"""

import json
import subprocess
import sys

import pytest

from phase1.judge import sandbox
from phase1.judge.config import JudgeConfig
from tests.judge.running_judge import RunningJudge, asserts

NODE = """
class Node:
    def __init__(self, value, children=()):
        self.value, self.children = value, list(children)
    def __eq__(self, other):
        return isinstance(other, Node) and vars(self) == vars(other)
"""
# Name: (set-up, program, tests).
HONEST = {
    "changes a list": (
        "",
        "def f(x): x.sort(); x.append(9)",
        [
            """
l = [3, 1]
assert f(l) is None and l == [1, 3, 9]
""",
        ],
    ),
    "changes a dict, a set and a bytearray": (
        "",
        "def f(d, s, b): d[1] = 2; s.add(3); b += b'x'",
        [
            """
d, s, b = {}, set(), bytearray()
f(d, s, b)
assert (d, s, b) == ({1: 2}, {3}, b'x')
""",
        ],
    ),
    "changes a nested list": (
        "",
        "def f(g): g[0][1] = 5",
        [
            """
g = [[0, 0], [0, 0]]
f(g)
assert g == [[0, 5], [0, 0]]
""",
        ],
    ),
    "changes a keyword argument": (
        "",
        "def f(*, x): x.clear()",
        [
            """
l = [1]
f(x=l)
assert l == []
""",
        ],
    ),
    "gives back its argument": (
        "",
        "def f(x): x.reverse(); return x",
        [
            """
l = [1, 2]
assert f(l) is l and l == [2, 1]
""",
        ],
    ),
    "leaves its argument alone": (
        "",
        "def f(x): return sorted(x)",
        [
            """
l = [2, 1]
assert f(l) is not l and l == [2, 1]
""",
        ],
    ),
    "calls the tests' function": (
        "",
        "def f(g, xs): return [g(x, k=1) for x in xs]",
        [
            """
seen = []
assert f(lambda x, k: seen.append(x) or x + k, [1, 2]) == [2, 3] and seen == [1, 2]
""",
        ],
    ),
    "catches what the tests' function raises": (
        "",
        """
def f(g):
    try:
        g()
    except KeyError as e:
        return str(e)
""",
        [
            """
def g(): raise KeyError('k')
assert f(g) == "'k'"
""",
        ],
    ),
    "takes builtins": (
        "",
        "def f(g, x): return g(x)",
        [
            "assert f(int, '5') == 5 and f(len, 'abc') == 3",
            "assert f(max, [1, 2]) == 2",
        ],
    ),
    "returns a function": (
        "",
        "def f(n): return lambda x: x + n",
        [
            "assert f(2)(3) == 5",
        ],
    ),
    "returns a type": (
        "",
        "def f(x): return type(x)",
        [
            "assert f(5) is int and f('') == str",
        ],
    ),
    "a generator without an end": (
        "",
        """
def f(n):
    while True:
        yield n
        n += 1
""",
        [
            """
g = f(3)
assert [next(g), next(g)] == [3, 4] and next(g) == 5
""",
        ],
    ),
    "a generator that ends": (
        "",
        """
def f(n):
    yield from range(n)
""",
        [
            "assert list(f(3)) == [0, 1, 2] and sum(f(4)) == 6",
            "assert f(3) == [0, 1, 2]",
        ],
    ),
    "a generator that raises": (
        "",
        """
def f(n):
    yield 1
    raise ValueError('late')
""",
        [
            """
g = f(3)
assert next(g) == 1
try:
    next(g)
except ValueError as e:
    assert str(e) == 'late'
else:
    assert False
""",
        ],
    ),
    "takes an iterator": (
        "",
        "def f(i): return next(i) + sum(i)",
        [
            "assert f(iter([1, 2, 3])) == 6 and f(x for x in (4, 5)) == 9",
        ],
    ),
    "raises": (
        "",
        """
class Mine(ValueError): pass
def f(n):
    if n < 0: raise Mine(f'negative: {n}')
    return {}[n]
""",
        [
            """
try:
    f(-1)
except ValueError as e:
    assert str(e) == 'negative: -1'
else:
    assert False
""",
            """
try:
    f(1)
except LookupError:
    pass
else:
    assert False
""",
            "f(3)",
        ],
    ),
    "raises with arguments": (
        "",
        "def f(n): return b'\\xff'.decode()",
        [
            """
try:
    f(1)
except UnicodeDecodeError:
    pass
else:
    assert False
""",
        ],
    ),
    "state between calls": (
        "",
        """
seen = []
def f(x):
    seen.append(x)
    return len(seen)
""",
        [
            "assert f(1) == 1",
            "assert f(1) == 2",
        ],
    ),
    "the program's class": (
        "",
        """
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
def f(ps): return sum(p.a * p.b for p in ps)
""",
        [
            "assert f([Pair(1, 2), Pair(3, 4)]) == 14",
            """
p = Pair(1, 2)
p.a = 5
assert f([p]) == 10 and p.a == 5
""",
        ],
    ),
    "the program's tree, built by the set-up": (
        """
root = Node(1)
root.left = Node(2)
root.left.left = Node(3)
""",
        """
class Node:
    def __init__(self, v): self.v, self.left = v, None
def f(n): return 1 + f(n.left) if n else 0
""",
        [
            "assert f(root) == 3",
            "assert f(root.left) == 2 and root.left.v == 2",
        ],
    ),
    "the program's class with methods": (
        "",
        """
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x); return self
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]
    def __iter__(self): return iter(self.items)
    def __str__(self): return f'<{len(self)}>'
def f(): return Stack()
""",
        [
            """
s = f().push(1).push(2)
assert len(s) == 2 and s[1] == 2 and list(s) == [1, 2] and str(s) == '<2>'
""",
        ],
    ),
    "a class of the set-up": (
        NODE,
        """
def f(n):
    return Node(n.value + 1, [f(c) for c in n.children])
""",
        [
            "assert f(Node(1, [Node(2)])) == Node(2, [Node(3)])",
            "assert f(Node(1)).value == 2",
            "assert f(Node(1)) == Node(1)",
        ],
    ),
    "changes an instance of the set-up's class": (
        NODE,
        "def f(n): n.value = 7; n.children.append(Node(8))",
        [
            """
n = Node(1)
f(n)
assert n.value == 7 and n.children == [Node(8)]
""",
        ],
    ),
    "a function of the set-up": (
        NODE
        + """
def total(n): return n.value + sum(map(total, n.children))
tree = Node(1, [Node(2), Node(3)])
""",
        "def f(n): return n",
        [
            "assert total(f(tree)) == 6",
        ],
    ),
    "named tuples and enums": (
        "",
        """
import collections, enum
P = collections.namedtuple('P', 'x y')
class E(enum.IntEnum): A = 3
def f(): return P(1, E.A)
""",
        [
            "assert f() == (1, 3)",
            "assert f()[1] + 1 == 4",
        ],
    ),
    "containers of many kinds": (
        "",
        """
import collections
def f(x): return collections.Counter(x), collections.defaultdict(list, a=[1]), {1: 2}.keys()
""",
        [
            """
c, d, k = f('aab')
assert c.most_common(1) == [('a', 2)] and d['b'] == [] and k == {1}
""",
        ],
    ),
    "exact numbers": (
        "import decimal, fractions",
        """
import decimal, fractions
def f(x): return fractions.Fraction(x, 3) + 1, decimal.Decimal(x) / 8, x / 7, 10 ** 40 + x, 2j * x
""",
        [
            """
assert f(5) == (fractions.Fraction(8, 3), decimal.Decimal('0.625'), 5 / 7, 10 ** 40 + 5, 10j)
""",
            "assert f(5)[2] == 0.7",
        ],
    ),
    "large lists": (
        "",
        "def f(n): return [x * 1.5 for x in range(n)], list(range(n))",
        [
            """
a, b = f(100_000)
assert sum(b) == 4999950000 and a[-1] == 149998.5
""",
        ],
    ),
    "deep lists": (
        "",
        """
def f(n):
    x = []
    for _ in range(n): x = [x]
    return x
""",
        [
            """
x, n = f(200), 0
while x: x, n = x[0], n + 1
assert n == 200
""",
        ],
    ),
    "deep recursion": (
        """
import sys
sys.setrecursionlimit(4000)
""",
        """
import sys
sys.setrecursionlimit(4000)
def f(n): return n and 1 + f(n - 1)
""",
        [
            "assert f(3000) == 3000",
        ],
    ),
    "text": (
        "",
        "def f(s): return s[::-1], s.encode(), '\\ud800' + s",
        [
            "assert f('ü𝄞') == ('𝄞ü', 'ü𝄞'.encode(), '\\ud800ü𝄞')",
        ],
    ),
    "sets of tuples": (
        "",
        "def f(n): return {(i, frozenset([i])) for i in range(n)}, {(1,): {2}}",
        [
            """
assert f(2) == ({(0, frozenset([0])), (1, frozenset([1]))}, {(1,): {2}})
""",
        ],
    ),
    "a global of its own": (
        "",
        """
LIMIT = 7
def f(): return LIMIT
""",
        [
            "assert f() == LIMIT == 7",
        ],
    ),
    "a second function": (
        "",
        """
def g(x): return x + 1
def f(x): return g(x) * 2
""",
        [
            "assert f(1) == 4 and g(1) == 2",
        ],
    ),
    "modules that the program imported": (
        "",
        """
import sys, math
from math import isclose
def f(x): return math.sqrt(x)
""",
        [
            "assert f(4) == math.sqrt(4) and isclose(f(2) ** 2, 2)",
            "assert sys.getsizeof(f(4)) == 24",
        ],
    ),
    "defaults and keywords": (
        "",
        "def f(a, *b, c=1, **d): return a, b, c, d",
        [
            "assert f(1, 2, c=3, e=4) == (1, (2,), 3, {'e': 4})",
            "assert f(1) == (1, (), 1, {})",
            "f()",
        ],
    ),
    "an entry with the name of a builtin": (
        "",
        """
def sorted(x): return 'mine'
f = sorted
""",
        [
            "assert f([1]) == 'mine'",
        ],
    ),
    "a callback that asks the program": (
        "",
        """
class P:
    def __init__(self, age): self.age = age
def g(x): return x + 1
def f(ps, key): return [key(p) for p in sorted(ps, key=key)]
""",
        [
            "assert f([P(3), P(1)], lambda p: p.age) == [1, 3]",
            "assert f([3, 1], lambda n: g(n) * 2) == [4, 8]",
        ],
    ),
    "an instance of a class that inherits from a plain one": (
        "",
        """
from collections import OrderedDict
class LRU(OrderedDict):
    def put(self, k, v): self[k] = v
    def size(self): return len(self)
""",
        ["c = LRU()\nc.put(1, 2)\nc.put(3, 4)\nassert c.size() == 2 and c[1] == 2"],
    ),
    "named tuples with their names": (
        "",
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, [2])",
        ["p = f()\nassert p.x == 1 and p.y == [2] and p == (1, [2])"],
    ),
    "exceptions of the program's": (
        "",
        """
class Mine(ValueError):
    pass
class Both(KeyError, ValueError):
    pass
def f(kind):
    raise {0: Mine("m"), 1: Both("b"), 2: OSError(2, "gone"), 3: ValueError("v", 3)}[kind]
""",
        [
            "try:\n    f(0)\nexcept Mine as e:\n    assert str(e) == 'm'\nelse:\n    assert False",
            "try:\n    f(1)\nexcept ValueError:\n    pass\nelse:\n    assert False",
            "try:\n    f(2)\nexcept FileNotFoundError as e:\n    assert e.errno == 2\nelse:\n    assert False",
            "try:\n    f(3)\nexcept ValueError as e:\n    assert type(e) is ValueError and e.args == ('v', 3)",
        ],
    ),
    "changes and then raises": (
        "",
        "def f(l):\n    l.append(1)\n    raise ValueError",
        ["l = []\ntry:\n    f(l)\nexcept ValueError:\n    pass\nassert l == [1]"],
    ),
    "an iterator that goes on": (
        "",
        "def f(it): return next(it)",
        ["it = iter([1, 2, 3])\nassert f(it) == 1 and next(it) == 2 and f(it) == 3"],
    ),
    "nothing is not None": ("", "class A: pass\ndef f(): return A()", ["assert f() is not None and f() != None"]),
}
HARNESS = """
import json, sys
setup, program, *tests = json.load(sys.stdin)
scope = {"__name__": "answer"}
for source in (setup, program, setup):  # the set-up may need the program, and the program the set-up
    try:
        exec(source, scope)
    except NameError:
        pass
verdicts = []
for test in tests:
    try:
        exec(test, scope)
        verdicts.append("success")
    except AssertionError:
        verdicts.append("wrong_answer")
    except BaseException:
        verdicts.append("runtime_error")
print(json.dumps(verdicts))
"""


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=5.0))
    yield running
    running.close()


@pytest.mark.parametrize("name", HONEST)
def test_verdicts_are_those_of_one_process(judge, name):
    setup, program, tests = HONEST[name]
    plain = subprocess.run(
        [sys.executable, "-c", HARNESS], input=json.dumps([setup, program, *tests]), capture_output=True, text=True
    )
    assert judge(program, asserts(*tests, setup=setup)).test_verdicts == json.loads(plain.stdout)


def test_an_object_that_cannot_be_sent_is_not_the_programs_fault(judge):
    verdict = judge("def f(x): return x", asserts("class A: pass\nf(A())"))
    assert verdict.error_type == "sandbox_error" and "a A, which cannot be sent" in verdict.detail


def test_the_time_of_the_tests_is_not_the_programs(judge):
    busy = "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.5: pass\n"
    cases = {**asserts(busy + "assert f(1) == 1"), "time_limit": 0.3}
    assert judge("def f(x): return x", cases).accepted
    assert judge("def f(x):\n    while True: pass", cases).error_type == "timeout"


def test_the_classes_of_a_prompt_are_known_to_both(judge):
    node = "class Node:\n    def __init__(self, v):\n        self.v = v\n\n\n"
    cases = {
        "type": "humaneval",
        "prompt": node + "def f(n):\n",
        "test_code": "def check(candidate):\n    assert candidate(Node(1)) == 1\n",
        "entry_point": "f",
    }
    assert judge(node + "def f(n): return n.v", cases).accepted


@pytest.mark.slow
def test_the_wall_limit_is_a_tests_own(judge, monkeypatch):
    monkeypatch.setattr(sandbox, "WALL_MORE", 1.0)
    cases = {**asserts(*["assert f(1) == 1"] * 20), "time_limit": 0.5}
    program = "import time\ndef f(x):\n    time.sleep(0.4)\n    return x"
    assert judge(program, cases).accepted  # 8 s in all, more than the wall limit of 6
    asleep = {**asserts("assert f(1) == 1"), "time_limit": 0.1}
    assert judge("import time\ndef f(x):\n    time.sleep(9)\n    return x", asleep).error_type == "timeout"
