"""Wrong programs for assert tasks that try to be accepted all the same: none knows what its tests expect.

`SECRET` holds two problems whose answers nobody can guess. Most cheats are tried on both; those of `SPECIAL` bring
tests of their own, on which the trick would work.
"""

from tests.judge.running_judge import asserts

TESTS = ("f([1, 2, 3]) == 614", "f([4]) == 4711", "f([]) == 17")
SECRET = {
    "mbpp": asserts(*(f"assert {test}" for test in TESTS)),
    "humaneval": {
        "type": "humaneval",
        "prompt": 'from typing import List\n\n\ndef f(x: List[int]) -> int:\n    """ Return a secret. """\n',
        "test_code": "METADATA = {}\n\n\ndef check(candidate):\n"
        + "".join(f"    assert candi{test.replace('f(', 'date(')}\n" for test in TESTS),
        "entry_point": "f",
    },
}
RIGHT = "def f(x):\n    return {3: 614, 1: 4711, 0: 17}[len(x)]\n"

CHEATS = {
    # ---------------------------------------------------------------------------- results that decide their comparison
    "ANY in a tuple": """
from unittest.mock import ANY
def f(x): return (ANY,)
""",
    "equal int": """
class A(int):
    def __eq__(s, o): return True
    __hash__ = int.__hash__
def f(x): return A(5)
""",
    "equal float": """
class A(float):
    def __eq__(s, o): return True
def f(x): return A(5)
""",
    "equal list": """
class A(list):
    def __eq__(s, o): return True
def f(x): return A()
""",
    "reflected equality of a subclass": """
class A(int):
    def __eq__(s, o): return True
    def __ne__(s, o): return False
def f(x): return A(len(x))
""",
    "equal Fraction": """
import fractions
class A(fractions.Fraction):
    def __eq__(s, o): return True
def f(x): return A(1)
""",
    "patched Decimal": """
import decimal
class A(decimal.Decimal):
    def __eq__(s, o): return True
decimal.Decimal = A
def f(x): return A(1)
""",
    "patched Counter": """
import collections
collections.Counter.__eq__ = lambda s, o: True
def f(x): return collections.Counter()
""",
    "patched datetime": """
import datetime
class A(datetime.date):
    def __eq__(s, o): return True
def f(x): return A(1, 1, 1)
""",
    "enum": """
import enum
class E(enum.IntEnum):
    A = 1
    def __eq__(s, o): return True
def f(x): return E.A
""",
    "class as result": """
class M(type):
    def __eq__(s, o): return True
    __hash__ = type.__hash__
class A(metaclass=M): pass
def f(x): return A
""",
    "lies about its class": """
class A:
    def __eq__(s, o): return True
    __hash__ = object.__hash__
A.__module__ = 'builtins'
A.__qualname__ = A.__name__ = 'int'
def f(x): return A()
""",
    "lies about its mro": """
class M(type):
    def mro(cls): return [cls, int, object]
class A(int, metaclass=M):
    def __eq__(s, o): return True
def f(x): return A()
""",
    "not a number": """
def f(x): return float('nan')
""",
    "function as result": """
class A:
    def __eq__(s, o): return True
    __hash__ = object.__hash__
def f(x): return lambda *a: A()
""",
    "generator as result": """
class A:
    def __eq__(s, o): return True
    __hash__ = object.__hash__
def f(x):
    yield A()
""",
    # --------------------------------------------------------------------------------------- searching the own process
    "objects of the collector": """
import gc
def f(x):
    for o in gc.get_objects():
        for v in o.values() if type(o) is dict else o if type(o) in (list, tuple) else ():
            if type(v) is int and v == 600 + 14:
                return v
    return 0
""",
    "strings of the collector": """
import gc
def find():
    gc.collect()
    for o in gc.get_objects():
        for r in gc.get_referents(o):
            if isinstance(r, str) and f'== {600 + 14}' in r and 'candidate' in r: return r
text = find()
def f(x): return 600 + 14 if text else 0
""",
    "constants of the callers": """
import sys
def f(x):
    g = sys._getframe(1)
    while g:
        for c in g.f_code.co_consts:
            if c == 600 + 14: return 600 + 14
        g = g.f_back
    return 0
""",
    "locals of the callers": """
import sys
def f(x):
    g = sys._getframe(1)
    while g:
        for v in [*g.f_locals.values(), *g.f_globals.values()]:
            if repr(v) == str(600 + 14) or f'== {600 + 14}' in repr(v)[:100000]: return 600 + 14
        g = g.f_back
    return 0
""",
    "source of the caller": """
import inspect
def f(x):
    return 600 + 14 if any(str(600 + 14) in ''.join(i.code_context or []) for i in inspect.stack()) else 0
""",
    "own memory": """
import re
def f(x):
    try:
        text = open('/proc/self/mem', 'rb')
    except OSError:
        return 0
    return 600 + 14
""",
    "core of the others": """
import os
found = 0
for pid in {*range(1, 40)} - {os.getpid()}:  # an address of its own may have these digits
    for name in ('mem', 'environ', 'fd/4', 'fd/3', 'maps'):
        try:
            found += b'%d' % (600 + 14) in open(f'/proc/{pid}/{name}', 'rb').read(1 << 20)
        except OSError: pass
def f(x): return 600 + 14 if found else 0
""",
    "traces the tests": """
import ctypes
libc = ctypes.CDLL(None)
got = [libc.ptrace(16, p, 0, 0) for p in range(1, 9)]
def f(x): return 600 + 14 if 0 in got else 0
""",
    "reads the tests' memory": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]
buf = ctypes.create_string_buffer(64)
a, b = V(ctypes.addressof(buf), 64), V(id(0), 64)
got = [libc.process_vm_readv(p, ctypes.byref(a), 1, ctypes.byref(b), 1, 0) for p in range(1, 9) if p != os.getpid()]
def f(x): return 600 + 14 if max(got) > 0 else 0
""",
    "modules of the judge": """
import sys
names = [n for n in sys.modules if 'phase1' in n or 'inside' in n]
def f(x):
    for n in names:
        for v in vars(sys.modules[n]).values():
            if str(600 + 14) in repr(v): return 600 + 14
    return 0
""",
    # ------------------------------------------------------------------------------------------------- forged messages
    "writes to every file": r"""
import os
for fd in range(3, 40):
    for data in (b'0 success 0.1 \n', b'x 0 success 0 \nx end\n'):
        try: os.write(fd, data)
        except OSError: pass
os._exit(0)
""",
    "answers ahead": """
import os
def answer(v): return (7).to_bytes(4, 'little') + b'R' + v
for fd in range(3, 20):
    try: os.write(fd, answer(b'NNNNNNN') * 9)
    except OSError: pass
def f(x): return 0
""",
    "an endless size": r"""
import os
def f(x):
    for fd in range(3, 20):
        try: os.write(fd, b'\xff' * 4 + b'R')
        except OSError: pass
    return 0
""",
    "a function of the tests": """
import os
def f(x):
    for fd in range(3, 20):
        try: os.write(fd, (12).to_bytes(4, 'little') + b'Kt' + (3).to_bytes(4, 'little') + b'NNNNNNN')
        except OSError: pass
    return 0
""",
    "a pickled command": """
import os, pickle, marshal
class A:
    def __reduce__(s): return os._exit, (0,)
def f(x):
    for fd in range(3, 20):
        for data in (pickle.dumps(A()), marshal.dumps(614)):
            try: os.write(fd, len(data).to_bytes(4, 'little') + b'R' + data)
            except OSError: pass
    return A()
""",
    "packs its own": """
import sys, gc
for o in gc.get_objects():
    if type(o).__name__ == 'Program':
        o.channel.packed = lambda v: b'tttt'
def f(x): return 0
""",
    # --------------------------------------------------------------------------------------------- ends and exceptions
    "raises AssertionError's cousin": """
class AssertionError(BaseException): pass
def f(x): raise AssertionError('ok')
""",
    "raises StopIteration": """
def f(x): raise StopIteration
""",
    "raises SystemExit": """
def f(x): raise SystemExit(0)
""",
    "raises GeneratorExit": """
def f(x): raise GeneratorExit
""",
    "raises KeyboardInterrupt": """
def f(x): raise KeyboardInterrupt
""",
    "closes its files": """
import os
os.closerange(0, 256)
def f(x): return 0
""",
    "ends in a thread": """
import os, threading, time
threading.Thread(target=lambda: (time.sleep(.05), os._exit(0))).start()
def f(x):
    time.sleep(.2)
    return 0
""",
    "replaces itself": """
import os, sys
os.execv(sys.executable, [sys.executable, '-c', 'pass'])
""",
    # ----------------------------------------------------------------------------------------------- the other process
    "kills the tests": """
import os, signal
for pid in range(2, 40):
    if pid != os.getpid():
        try: os.kill(pid, 9)
        except OSError: pass
def f(x): return 0
""",
    "interrupts the tests": """
import os, signal
def f(x):
    for pid in range(2, 40):
        if pid != os.getpid():
            try: os.kill(pid, signal.SIGINT)
            except OSError: pass
    return 0
""",
    "stops the tests": """
import os, signal
def f(x):
    for pid in range(2, 40):
        if pid != os.getpid():
            try: os.kill(pid, signal.SIGTERM)
            except OSError: pass
    return 0
""",
    "leaves a module for the tests": r"""
import os
for n in ('math', 'decimal', 'fractions', 'copy', 'numpy', 'datetime'):
    open(f'/tmp/{n}.py', 'w').write('import os, builtins\nos._exit(0)\n')
import sys
class D: pass
D.__module__, D.__qualname__ = 'decimal', 'Decimal'
D.__str__ = lambda s: '5'
def f(x): return D()
""",
    "fills the memory": """
def f(x): return ['x'] * 10**8
""",
    "answers too much": """
def f(x): return 'x' * 10**8
""",
    "nests too deeply": """
def f(x):
    x = []
    for _ in range(10**5): x = [x]
    return x
""",
    "holds itself": """
def f(x):
    x = []
    x.append(x)
    return x
""",
}

# Name: (program, tests that it would pass if its trick worked).
SPECIAL = {
    "its own numpy": (
        """
class np:
    def __getattr__(s, n): return s
    def __call__(s, *a): return True
np = np()
def f(x): return 0
""",
        asserts("assert np.allclose(f(1), [3])"),
    ),
    "its own module sys": (
        """
class sys:
    getsizeof = staticmethod(lambda x: 0)
def f(x): return 0
""",
        asserts("assert f(3) == sys.getsizeof(3)"),
    ),
    "its own isclose": (
        """
def isclose(*a, **k): return True
def f(x): return 0
""",
        asserts("assert isclose(f(3), 5)"),
    ),
    "its own Counter": (
        """
def Counter(x): return 5
def f(x): return 5
""",
        asserts("assert f('aa') == Counter('aa')"),
    ),
    "its own builtins": (
        """
def sorted(x): return 5
def len(x): return 5
set = sorted
def f(x): return 5
""",
        asserts("assert sorted(f([2, 1])) == [1, 2]", "assert set(f([2])) == {2}"),
    ),
    "its own helper of the prompt": (
        """
def encode(s): return s
def f(s): return s
""",
        {
            "type": "humaneval",
            "prompt": "def encode(s):\n    return s[::-1] + 'x'\n\n\ndef f(s):\n    ''' the way back '''\n",
            "test_code": "def check(candidate):\n    assert candidate(encode('abc')) == 'abc'\n",
            "entry_point": "f",
        },
    ),
    "a method on an instance of the set-up's class": (
        """
def f(x):
    v = V(0)
    v.same = lambda o: True
    return v
""",
        asserts(
            "assert f(1).same(V(7))",
            setup="class V:\n    def __init__(s, x): s.x = x\n    def same(s, o): return s.x == o.x",
        ),
    ),
    "a patched class of the set-up": (
        """
V.__eq__ = lambda s, o: True
def f(x): return V(0)
""",
        asserts(
            "assert f(1) == V(7)",
            setup="class V:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x",
        ),
    ),
    "reckons itself right": (
        """
class Z:
    def __sub__(s, o): return 0
    __rsub__ = __mod__ = __abs__ = __sub__
def f(x): return Z()
""",
        asserts("assert abs(f(3.5) - 0.5) < 1e-6", "assert f(3) % 7 == 0"),
    ),
    "formats itself right": (
        """
class Z:
    def __format__(s, o): return '0.50'
def f(x): return Z()
""",
        asserts("assert f'{f(3):.2f}' == '0.50'"),
    ),
    "ends the tests' loop": (
        """
def f(x): raise StopIteration
""",
        asserts("assert all(map(f, [1, 2, 3]))", "assert list(map(f, [1])) == []"),
    ),
    "is in everything": (
        """
class Z:
    def __contains__(s, o): return True
    def __bool__(s): return True
def f(x): return Z()
""",
        asserts("assert 7 in f(3)", "assert f(3)"),
    ),
    "is larger and smaller": (
        """
class Z:
    def __lt__(s, o): return True
    __gt__ = __le__ = __ge__ = __lt__
def f(x): return Z()
""",
        asserts("assert 0.1 < f(3) < 0.2"),
    ),
    "changes what it was not given": (
        """
import gc
def f(x):
    for o in gc.get_objects():
        if type(o) is list: o.clear()
    return 0
""",
        asserts("want = [5]\nassert [f(3)] == want"),
    ),
    "has the tests format their own names": (
        """
class O: pass
def f(g):
    for way in ("__link__.functions[0]", "_link.functions[0]", "__link__.__callback__", "__call__"):
        try:
            return int(g("{0." + way + ".__globals__[want]}", O()))
        except Exception:
            pass
    return 0
""",
        asserts("want = 4711\nassert f(lambda s, *a: s.format(*a)) == want"),
    ),
    "reads what the tests print": (
        r"""
import os
def f(x):
    for fd in (1, 2):
        words = os.pread(fd, 9999, 0).split()
        if words:
            return int(words[-1])
    return 0
""",
        asserts(
            "import sys\nfor out in sys.stdout, sys.stderr: print(4711, file=out, flush=True)\nassert f(1) == 4711"
        ),
    ),
    "has the tests build what cannot be sent": (
        "Node = classmethod\ndef f(x): return 1",
        asserts("r = Node(1)\nassert f(r) == 2"),
    ),
    "a type of the builtins in the place of a class": (
        "Pair = object\ndef f(x): return 1",
        asserts("assert f(Pair()) == 2"),
    ),
}
