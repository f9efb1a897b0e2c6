"""phase1/data/python2.py held against Python 3 itself: each program here is run by it, and what crashes there for want
of what only Python 2 has is Python 2."""

import builtins
import importlib
import importlib.util
import subprocess
import sys

import pytest

from phase1.data import python2_names as py2
from phase1.data.bee import python_fault
from phase1.data.python2 import python2_need

STDIN = "3\n1 2 3\n"
WANTING = ("NameError", "AttributeError", "ImportError", "ModuleNotFoundError", "TypeError")

FAST_IO = """
from __future__ import division, print_function
import os
import sys
from io import BytesIO, IOBase
if sys.version_info[0] < 3:
    from __builtin__ import xrange as range
    from future_builtins import ascii, filter, hex, map, oct, zip

class Wrapper(IOBase):
    def __init__(self, file):
        self.fd = file.fileno()
        self.writable = "x" in file.mode or "r" not in file.mode
        self.buffer = BytesIO()
        self.write = lambda s: self.buffer.write(s.encode("ascii"))
    def flush(self):
        os.write(self.fd, self.buffer.getvalue())
        self.buffer.truncate(0), self.buffer.seek(0)

if sys.version_info[0] < 3:
    sys.stdin = BytesIO(os.read(0, os.fstat(0).st_size))
else:
    sys.stdout = Wrapper(sys.stdout)
for i in range(int(input())):
    print(i)
sys.stdout.flush()
"""

# Python 3, though they speak of what only Python 2 has.
BOTH = [
    FAST_IO,
    "try:\n    input = raw_input\nexcept NameError:\n    pass\nprint(input())",
    "try:\n    input = raw_input\nexcept:\n    pass\nprint(input())",
    "try:\n    input = raw_input\n    range = xrange\nexcept Exception:\n    pass\nfor i in range(2): print(input())",
    "try:\n    input = raw_input\nexcept (NameError, AttributeError) as e:\n    pass\nprint(input())",
    "import sys\nif sys.version_info[0] < 3:\n    range = xrange\n    input = raw_input\nprint(input())",
    "import sys\nif sys.version_info >= (3,):\n    read = input\nelse:\n    read = raw_input\nprint(read())",
    "import sys\nif sys.version_info.major == 2:\n    input = raw_input\nprint(input())",
    "from sys import version_info\nif version_info[:2] < (3, 0):\n    input = raw_input\nprint(input())",
    "import sys\nif sys.version[0] == '2':\n    input = raw_input\nprint(input())",
    "import sys\nif sys.version < '3':\n    input = raw_input\nprint(input())",
    "import sys\nif sys.version.startswith('2'):\n    input = raw_input\nprint(input())",
    "import sys\nif int(sys.version[0]) < 3:\n    input = raw_input\nprint(input())",
    "import sys\nif sys.hexversion < 0x03000000:\n    input = raw_input\nprint(input())",
    "import platform\nif platform.python_version()[0] == '2':\n    input = raw_input\nprint(input())",
    "import platform\nif platform.python_version_tuple()[0] < '3':\n    input = raw_input\nprint(input())",
    "import sys\nPY2 = sys.version_info[0] == 2\nif PY2:\n    input = raw_input\nprint(input())",
    "import sys\nPY3 = sys.version_info[0] == 3\nif not PY3:\n    input = raw_input\nprint(input())",
    (
        "try:\n    unicode\n    PY2 = True\nexcept NameError:\n    PY2 = False\nif PY2:\n    input = raw_input\n"
        "print(input())"
    ),
    "if str is bytes:\n    input = raw_input\nprint(input())",
    "if 1 / 2 == 0:\n    input = raw_input\nprint(input())",
    "import sys\ninput = raw_input if sys.version_info[0] < 3 else input\nprint(input())",
    "import sys\nx = sys.version_info[0] < 3 and raw_input() or input()\nprint(x)",
    (
        "import sys\ndef read():\n    if sys.version_info[0] < 3:\n        return raw_input()\n    return input()\n"
        "print(read())"
    ),
    "if hasattr(__builtins__, 'raw_input'):\n    input = raw_input\nprint(input())",
    "if 'raw_input' in dir(__builtins__):\n    input = raw_input\nprint(input())",
    "d = {1: 2}\nfor k in d.iteritems() if hasattr(d, 'iteritems') else d.items():\n    print(k)",
    "import itertools\nif hasattr(itertools, 'izip'):\n    zip = itertools.izip\nprint(list(zip([1], [2])))",
    "try:\n    xrange\nexcept NameError:\n    xrange = range\nfor i in xrange(3): print(i)",
    "try:\n    from itertools import izip\nexcept ImportError:\n    izip = zip\nprint(list(izip([1], [2])))",
    "try:\n    from itertools import izip as zip\nexcept ImportError:\n    pass\nprint(list(zip([1], [2])))",
    "try:\n    import Queue\nexcept ImportError:\n    import queue as Queue\nprint(Queue.Queue().empty())",
    "try:\n    import queue\nexcept ImportError:\n    import Queue as queue\nprint(queue.Queue().empty())",
    "try:\n    import queue\nexcept:\n    import Queue as queue\nprint(queue.Queue().empty())",
    (
        "try:\n    from cStringIO import StringIO\nexcept ImportError:\n    from io import StringIO\n"
        "print(StringIO('a').read())"
    ),
    "try:\n    import Queue as q\nexcept ModuleNotFoundError:\n    import queue as q\nprint(q.Queue().empty())",
    "try:\n    import psyco\n    psyco.full()\nexcept ImportError:\n    pass\nprint(1)",
    "try:\n    reduce\nexcept NameError:\n    from functools import reduce\nprint(reduce(max, [1, 2]))",
    "from functools import *\nprint(reduce(max, [1, 2]))",
    "try:\n    import sys\n    big = sys.maxint\nexcept AttributeError:\n    big = sys.maxsize\nprint(big > 5)",
    (
        "import string\ntry:\n    letters = string.letters\nexcept AttributeError:\n    letters = "
        "string.ascii_letters\nprint(letters[0])"
    ),
    "from contextlib import suppress\nwith suppress(NameError):\n    input = raw_input\nprint(input())",
    "from __future__ import print_function, division\nprint(7 // 2)",
    "raw_input = input\nprint(raw_input())",
    "xrange = range\ndef f():\n    return [i for i in xrange(3)]\nprint(f())",
    "import builtins\nbuiltins.xrange = range\nprint(list(xrange(2)))",
    (
        "def cmp(a, b):\n    return (a > b) - (a < b)\nfrom functools import cmp_to_key\nprint(sorted([2, 1], "
        "key=cmp_to_key(cmp)))"
    ),
    "def f(long, file):\n    return long + file\nprint(f(1, 2))",
    "def g():\n    global unicode\n    unicode = str\ng()\nprint(unicode(3))",
    "def local():\n    return raw_input()\nprint(input())",  # a helper of a template that nobody calls
    "def inner(): return xrange(3)\ndef local(): return inner()\nprint(3)",
    "if False:\n    print(raw_input())\nprint(1)",
    "DEBUG = False\nif DEBUG:\n    print(raw_input())\nprint(1)",
    "print('raw_input xrange')  # unicode(long)",
    "class D(dict):\n    def iteritems(self):\n        return iter(self.items())\nprint(list(D().iteritems()))",
    "class Node:\n    def next(self):\n        return 5\nprint(Node().next())",
    "class Node:\n    next = None\n    def __init__(self, f): self.next = f\nprint(Node(int).next())",
    "import sys\ndef f(string):\n    return string.split()\nimport string\nprint(f('a b'), string.ascii_letters[:2])",
    "a = map(int, ['1'])\na = list(a)\na.sort()\nprint(a[0], len(a))",
    "def f(a):\n    a.sort()\n    return a[0]\na = map(int, ['1'])\nprint(f(list(a)))",
    "def map(f, x):\n    return [f(i) for i in x]\na = map(int, ['1'])\na.sort()\nprint(a[0])",
    "d = {1: 2}\nprint(len(d.keys()), sorted(d.items())[0], list(d.values())[0])",
    (
        "class S:\n    def sort(self, f):\n        return f\n    def keys(self):\n        return [1]\n"
        "S().sort(lambda a, b: 0)\nprint(S().keys()[0])"
    ),
    "class C:\n    def __cmp__(self, o): return 0\n    def __lt__(self, o): return True\nprint(C() < C())",
    "print(list(range(3)) + [1], [*range(2)] + list(map(int, '12')))",
    "print(sum(map(int, '12')) % 5, max(range(3)) + 1)",
    "try:\n    s = raw_input()\nexcept:\n    s = input()\nprint(s)",
    "try:\n    raw_input = raw_input\nexcept NameError:\n    raw_input = input\nprint(raw_input())",
]

# Python 2, though Python 3 compiles them.
ONLY_PYTHON_2 = [
    "print(raw_input())",
    "input = raw_input\nprint(input())",
    "for i in xrange(3):\n    print(i)",
    "print(unicode(3))",
    "print(unichr(65))",
    "print(long(3))",
    "print(isinstance('', basestring))",
    "print(reduce(max, [1]))",
    "print(cmp(1, 2))",
    "print(file('/dev/null').read())",
    "print(apply(max, [1, 2]))",
    "print(intern('a'))",
    "import sys\nreload(sys)",
    "import sys\nsys.setdefaultencoding('utf8')",
    "import sys\nprint(sys.maxint)",
    "import sys as s\nprint(-s.maxint)",
    "from sys import maxint\nprint(maxint)",
    "import string\nprint(string.letters)",
    "import string\nprint(string.maketrans('a', 'b'))",
    "import string\nprint(string.join(['a'], ''))",
    "from string import maketrans, lowercase\nprint(lowercase)",
    "from string import *\nprint(uppercase)",
    "import itertools\nprint(list(itertools.izip([1], [2])))",
    "from itertools import izip, imap\nprint(list(izip([1], [2])))",
    "import Queue\nprint(Queue.Queue())",
    "from Queue import PriorityQueue\nprint(PriorityQueue())",
    "import urllib2\nprint(1)",
    "import urllib\nprint(urllib.quote('a'))",
    "from cStringIO import StringIO\nprint(1)",
    "import math, StringIO\nprint(1)",
    "from __builtin__ import xrange as range\nprint(range(3))",
    "d = {1: 2}\nprint(d.has_key(1))",
    "d = {1: 2}\nfor k, v in d.iteritems():\n    print(k)",
    "print(max({1: 2}.itervalues()))",
    "it = iter([1])\nprint(it.next())",
    "import sys\nprint(sys.stdin.next())",
    "print(sorted([2, 1], cmp=lambda a, b: a - b))",
    "print(sorted([2, 1], lambda a, b: a - b))",
    "def order(a, b):\n    return a - b\nprint(sorted([2, 1], order))",
    "def order(a, b):\n    return a - b\na = [2, 1]\na.sort(order)\nprint(a)",
    "a = [2, 1]\na.sort(lambda a, b: a - b)\nprint(a)",
    "a = [2, 1]\na.sort(cmp=lambda a, b: a - b)\nprint(a)",
    "import sys\nprint >>sys.stderr, 'a'",
    "print('%d') % 3",
    "print('a') + 'b'",
    "a = map(int, input().split())\na.sort()\nprint(a)",
    "a = map(int, input().split())\nprint(a[0])",
    "a = map(int, input().split())\nprint(len(a))",
    "n, a = int(input()), map(int, input().split())\nraw = [1]\nprint(a[0])\nprint(filter(None, raw)[0])",
    "def f():\n    a = filter(None, [1])\n    return a[0]\nprint(f())",
    "print(map(int, ['1'])[0])",
    "print(len(zip([1], [2])))",
    "d = {1: 2}\nk = d.keys()\nk.sort()\nprint(k)",
    "d = {1: 2}\nprint(d.keys()[0])",
    "print(range(3) + [1])",
    "print([1] + range(3))",
    "class C:\n    def __cmp__(self, o):\n        return 0\nprint(sorted([C(), C()]))",
    "def main():\n    n = int(raw_input())\n    print(n)\nif __name__ == '__main__':\n    main()",
    "class Solver:\n    def run(self):\n        return raw_input()\nprint(Solver().run())",
    "import sys\nif sys.version_info[0] >= 3:\n    print(raw_input())",
    "import sys\nif sys.version_info[0] < 3:\n    xrange = range\nprint(list(xrange(3)))",
    "try:\n    n = int(raw_input())\nexcept ValueError:\n    n = 0\nprint(n)",
    "try:\n    print(xrange(3))\nexcept ImportError:\n    pass",
    "try:\n    from itertools import izip\nexcept ImportError:\n    pass\nprint(list(izip([1], [2])))",
    "def main():\n    return raw_input()\nf = {'a': main}\nprint(f['a']())",
    "def main():\n    return raw_input()\nprint(eval('main()'))",
    "f = lambda: raw_input()\nprint(f())",
    "def read(it=xrange(3)):\n    return it\nprint(1)",
    "def f(long):\n    return long\nprint(f(1), long(3))",  # a parameter of another function is no binding
    "print(__builtins__.raw_input())",
]


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code], input=STDIN, capture_output=True, text=True, timeout=20
    )


@pytest.mark.parametrize("code", BOTH)
def test_what_python_3_runs_is_kept(code):
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert python_fault(code) is None, python2_need(code)


@pytest.mark.parametrize("code", ONLY_PYTHON_2)
def test_what_python_3_crashes_on_for_want_of_python_2_is_dropped(code):
    done = run(code)
    assert done.returncode != 0 and done.stderr.splitlines()[-1].startswith(WANTING), done.stdout + done.stderr
    assert python_fault(code) == "python2"


def test_a_handler_that_only_leaves_hides_the_crash_and_not_the_need():
    """Python 3 runs these without a traceback, and they print nothing."""
    for handler in (
        "except:\n        break",
        "except Exception:\n        break",
        "except BaseException:\n        raise SystemExit",
    ):
        code = f"while True:\n    try:\n        print(int(raw_input()))\n    {handler}"
        done = run(code)
        assert (done.returncode, done.stdout) == (0, "")
        assert python_fault(code) == "python2"


def test_what_cannot_be_seen_is_kept():
    """Documented in docs/01: Python 3 runs these, with another result than Python 2; --verify_solutions finds them."""
    for code in ("print(7 / 2)", "print", "print('a', 'b'), 3", "n = input()\nprint(n * 2)"):
        assert run(code).returncode == 0 and python_fault(code) is None


def test_a_test_of_the_version_that_cannot_be_worked_out_leaves_both_branches_alone():
    assert (
        python2_need(
            "import sys\nold = min(sys.version_info, (9,)) < (3,)\nif abs(sys.version_info[0]) < 3:\n    input "
            "= raw_input\n"
        )
        == ""
    )


@pytest.mark.parametrize("link", ["+ 1", ".real", "[0]", ".f()", " if 1 else 1", " or 1", " < 1", "(0)"])
def test_no_depth_that_compiles_breaks_the_walk(link):
    faults = [python_fault(f"x = raw_input() {link * count}") for count in (100, 900, 1400, 2900, 20_000)]
    assert faults[0] == "python2" and set(faults) <= {"python2", "syntax_error"}


def test_a_deep_tree_is_walked():
    chain = "n = 5\nif n == 0:\n    pass\n" + "".join(f"elif n == {i}:\n    pass\n" for i in range(1, 900))
    assert python2_need(chain) == "" and python2_need(chain + "else:\n    raw_input()\n") == "line 1803: raw_input"


@pytest.mark.parametrize("name", sorted(py2.NAMES))
def test_no_builtin_of_the_table_exists_in_python_3(name):
    assert not hasattr(builtins, name)


def test_no_module_attribute_or_method_of_the_tables_exists_in_python_3():
    assert [
        f"{m}.{a}"
        for m, absent in py2.MODULE_ATTRIBUTES.items()
        for a in absent
        if hasattr(importlib.import_module(m), a)
    ] == []
    assert [m for m in py2.MODULES if importlib.util.find_spec(m)] == []
    assert [a for a in py2.METHODS if hasattr({}, a)] == []
    made: list = [map(int, ""), filter(None, ""), zip("", "", strict=False), {}.keys(), {}.values(), {}.items()]
    assert [a for a in py2.LIST_METHODS for each in made if hasattr(each, a)] == []


@pytest.mark.parametrize("code", ONLY_PYTHON_2)
def test_the_quick_look_passes_over_no_python_2(code):
    assert py2.mentions_python2(code)
