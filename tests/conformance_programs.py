"""Programs built by combination, for holding the judge against plain Python: a way to read, to write, to end, and a guard.

Every program does the same work (`WORK`), so what differs between two of them is only how text comes in, how it goes
out, and how the interpreter ends. All combinations of the four would be some 80,000; `combinations()` is a fixed choice
of them in which every pair of parts occurs (tests/test_conformance.py checks it).

Programs written by hand are in tests/conformance_styles.py; running both sides in tests/conformance_run.py; what may
differ, and why, in tests/conformance_explained.py.
"""

from __future__ import annotations

import functools
import textwrap
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One way to do something: its name and the source for it."""

    name: str
    code: str


@dataclass(frozen=True)
class Program:
    """A program with the input it gets. `packages`: it needs numpy, which the reference must be shown."""

    name: str
    code: str
    stdin: str = ""
    packages: bool = False


INPUTS = (
    "3\n10 20 30\nabc\n",
    "2\n7 -7",  # no newline at the end
    "1\r\n5\r\n",  # line ends of Windows
    "",
    "4\n1 2 3 4\n\n  padded  \n\n",
    "1\nh\u00e9llo \u4e16\u754c\n",
    "1\n" + "9 " * 3000 + "\n",
)

# ---------------------------------------------------------------------------------------------------------------- read
# Each sets `lines`, a list of text lines.
READS = [
    Part("input", "lines = []\nwhile True:\n    try:\n        lines.append(input())\n    except EOFError:\n        break"),
    Part("readline", "import sys\nlines = []\nwhile True:\n    line = sys.stdin.readline()\n    if not line:\n        break\n    lines.append(line)"),
    Part("for_line", "import sys\nlines = [line for line in sys.stdin]"),
    Part("read", "import sys\nlines = sys.stdin.read().split('\\n')"),
    Part("readlines", "from sys import stdin\nlines = stdin.readlines()"),
    Part("buffer_read", "import sys\nlines = sys.stdin.buffer.read().decode().splitlines()"),
    Part("buffer_readline", "import sys\nread = sys.stdin.buffer.readline\nlines = []\nwhile line := read():\n    lines.append(line.decode())"),
    Part("os_read", "import os\ndata = b''\nwhile part := os.read(0, 4096):\n    data += part\nlines = data.decode().split('\\n')"),
    Part("os_read_fstat", "import os, io\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\nlines = [line.decode() for line in iter(input, b'')]"),
    Part("open_0", "lines = list(open(0))"),
    Part("open_0_rb", "lines = open(0, 'rb', closefd=False).read().decode().split('\\n')"),
    Part("open_dev_stdin", "with open('/dev/stdin') as f:\n    lines = f.read().splitlines()"),
    Part("mmap", "import mmap\ntry:\n    with mmap.mmap(0, 0, access=mmap.ACCESS_READ) as m:\n        lines = m[:].decode().split('\\n')\nexcept ValueError:\n    lines = ['nothing to map']"),
    Part("fileinput", "import fileinput\nlines = [line for line in fileinput.input()]"),
    Part("iter_readline", "import sys\nlines = [*iter(sys.stdin.readline, '')]"),
    Part("generator", "import sys\ndef tokens():\n    for line in sys.stdin:\n        yield from line.split()\nlines = list(tokens())"),
    Part("rebound_input", "import sys\ninput = lambda: sys.stdin.readline().rstrip('\\r\\n')\nlines = [input() for _ in range(4)]"),
    Part("fdopen", "import os\nwith os.fdopen(0, 'r', 1 << 16, closefd=False) as f:\n    lines = f.read().split('\\n')"),
    Part("reconfigured", "import sys\nsys.stdin.reconfigure(encoding='latin-1', newline='')\nlines = sys.stdin.readlines()"),
    Part("map_int", "import sys\nlines = []\ntry:\n    n = int(input())\n    lines = [n, *map(int, input().split())]\nexcept (ValueError, EOFError) as e:\n    lines = [type(e).__name__]\nlines = list(map(str, lines))"),
    Part("wrapped_stdin", "import io, sys\nsys.stdin = io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8', errors='replace')\nlines = sys.stdin.read().splitlines()"),
    Part("pathlib", "import pathlib\nlines = pathlib.Path('/dev/stdin').read_text().split('\\n')"),
    Part("prompt", "lines = []\ntry:\n    while True:\n        lines.append(input('> '))\nexcept EOFError:\n    pass"),
    Part("nothing", "lines = ['no input is read']"),
]  # fmt: skip

# --------------------------------------------------------------------------------------------------------------- write
# Each defines `out(text)`.
FAST_IO = """
import io, os, sys
class Fast(io.IOBase):
    def __init__(self, fd):
        self.fd, self.buffer = fd, io.BytesIO()
        self.write = lambda text: self.buffer.write(text.encode())
    def flush(self):
        os.write(self.fd, self.buffer.getvalue())
        self.buffer.truncate(0), self.buffer.seek(0)
sys.stdout = Fast(1)
out = lambda text: print(text, end='')
"""
WRITES = [
    Part("print", "out = lambda text: print(text, end='')"),
    Part("print_flush", "out = lambda text: print(text, end='', flush=True)"),
    Part("sys_write", "import sys\nout = sys.stdout.write"),
    Part("buffer_write", "import sys\nout = lambda text: sys.stdout.buffer.write(text.encode())"),
    Part("mixed_buffer", "import sys\ndef out(text):\n    sys.stdout.write('t:')\n    sys.stdout.buffer.write(text.encode())"),
    Part("os_write", "import os\nout = lambda text: os.write(1, text.encode())"),
    Part("print_and_os_write", "import os\ndef out(text):\n    print(text, end='')\n    os.write(1, b'.')"),
    Part("print_file", "import sys\nout = lambda text: print(text, end='', file=sys.stdout)"),
    Part("open_1", "f = open(1, 'w')\nout = f.write"),
    Part("open_1_kept_open", "import sys\nsys.stdout = open(1, 'w', closefd=False)\nout = lambda text: print(text, end='')"),
    Part("open_dev_stdout", "f = open('/dev/stdout', 'a')\nout = lambda text: print(text, end='', file=f)"),
    Part("stringio_atexit", "import atexit, io, os, sys\nsys.stdout = io.StringIO()\natexit.register(lambda: os.write(1, sys.stdout.getvalue().encode()))\nout = lambda text: print(text, end='')"),
    Part("stringio_dunder", "import atexit, io, sys\nsys.stdout = io.StringIO()\natexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\nout = lambda text: print(text, end='')"),
    Part("fast_io", FAST_IO),
    Part("no_closed", "import os, sys\nclass Out:\n    def __init__(self):\n        self.parts = []\n    def write(self, text):\n        self.parts.append(text)\n    def flush(self):\n        os.write(1, ''.join(self.parts).encode())\n        self.parts = []\nsys.stdout = Out()\nout = lambda text: print(text, end='')"),
    Part("failing_flush", "import sys\nclass Out:\n    def write(self, text):\n        sys.__stdout__.write(text)\n    def flush(self):\n        raise ValueError('flush')\nsys.stdout = Out()\nout = lambda text: print(text, end='')"),
    Part("write_only", "import sys\nclass Out:\n    def write(self, text):\n        sys.__stdout__.write(text)\nsys.stdout = Out()\nout = lambda text: print(text, end='')"),
    Part("buffered_writer", "import io, os\nb = io.BufferedWriter(io.FileIO(1, 'w', closefd=False), 1 << 16)\nout = lambda text: b.write(text.encode())"),
    Part("text_wrapper", "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, write_through=False, line_buffering=False)\nout = lambda text: print(text, end='')"),
    Part("detached", "import sys\nraw = sys.stdout.detach()\nout = lambda text: raw.write(text.encode())"),
    Part("del_prints", "import os\nclass Late:\n    def __init__(self):\n        self.text = ''\n    def __del__(self):\n        print(self.text, end='')\nlate = Late()\ndef out(text):\n    late.text += text"),
    Part("logging", "import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(message)s')\nout = lambda text: logging.info(text.rstrip('\\n'))"),
    Part("stderr_beside", "import sys\ndef out(text):\n    print('seen', len(text), file=sys.stderr)\n    print(text, end='')"),
    Part("redirected", "import contextlib, io, sys\nkept = io.StringIO()\ndef out(text):\n    with contextlib.redirect_stdout(kept):\n        print(text, end='')\n    sys.stdout.write(kept.getvalue())"),
    Part("fdopen_dup", "import os\nf = os.fdopen(os.dup(1), 'w')\nout = f.write"),
    Part("line_buffered", "import sys\nsys.stdout.reconfigure(line_buffering=True)\nout = lambda text: print(text, end='')"),
    Part("collected", "import atexit\nans = []\natexit.register(lambda: print(''.join(ans), end=''))\nout = ans.append"),
    Part("writelines", "import sys\nout = lambda text: sys.stdout.writelines([text, ''])"),
]  # fmt: skip

# ----------------------------------------------------------------------------------------------------------------- end
ENDS = [
    Part("falls_off", "pass"),
    Part("sys_exit", "import sys\nsys.exit()"),
    Part("sys_exit_0", "import sys\nsys.exit(0)"),
    Part("exit", "exit()"),
    Part("exit_0", "exit(0)"),
    Part("quit", "quit()"),
    Part("system_exit", "raise SystemExit"),
    Part("system_exit_none", "raise SystemExit(None)"),
    Part("system_exit_text", "raise SystemExit('text')"),
    Part("system_exit_tuple", "raise SystemExit((1, 2))"),
    Part("sys_exit_true", "import sys\nsys.exit(True)"),
    Part("sys_exit_3", "import sys\nsys.exit(3)"),
    Part("sys_exit_256", "import sys\nsys.exit(256)"),
    Part("sys_exit_minus_1", "import sys\nsys.exit(-1)"),
    Part("os_exit_flushed", "import os, sys\nsys.stdout.flush()\nos._exit(0)"),
    Part("os_exit_unflushed", "import os\nos._exit(0)"),
    Part("os_exit_5", "import os\nos._exit(5)"),
    Part("exception", "raise ValueError('bad value')"),
    Part("own_exception", "class Own(Exception):\n    pass\nraise Own('of its own')"),
    Part("chained", "try:\n    {}['a']\nexcept KeyError as e:\n    raise RuntimeError('chained') from e"),
    Part("recursion_error", "def deeper(n):\n    return deeper(n + 1) + 1\ndeeper(0)"),
    Part("zero_division", "print(1 // 0)"),
    Part("keyboard_interrupt", "raise KeyboardInterrupt"),
    Part("assertion", "assert len(lines) > 10**6, 'too few'"),
    Part("atexit", "import atexit\natexit.register(out, 'at exit\\n')"),
    Part("atexit_raises", "import atexit\natexit.register(lambda: 1 // 0)\natexit.register(print, 'before it')"),
    Part("atexit_exits", "import atexit, sys\natexit.register(sys.exit, 4)"),
    Part("stdout_closed", "import sys\nsys.stdout.close()"),
    Part("fd_1_closed", "import os\nos.close(1)"),
    Part("stdout_none", "import sys\nsys.stdout = None\nprint('nowhere')"),
    Part("thread_alive", "import threading, time\ndef late():\n    time.sleep(0.03)\n    out('from the thread\\n')\nthreading.Thread(target=late).start()"),
    Part("daemon_alive", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"),
    Part("thread_raises", "import threading\nt = threading.Thread(target=lambda: [][0])\nt.start()\nt.join()"),
    Part("eof_error", "import builtins\nwhile True:\n    builtins.input()"),
    Part("broken_pipe", "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')"),
    Part("sigterm", "import signal\nsignal.raise_signal(signal.SIGTERM)"),
    Part("sigint", "import signal\nsignal.raise_signal(signal.SIGINT)"),
    Part("abort", "import os\nos.abort()"),
    Part("handler_exits", "import signal, sys\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\nsignal.raise_signal(signal.SIGUSR1)"),
    Part("global_del", "class Last:\n    def __del__(self):\n        print('deleted')\nglobal_last = Last()\nimport builtins\nbuiltins.kept = global_last"),
    Part("cycle_del", "class Knot:\n    def __del__(self):\n        print('untied')\nknot = Knot()\nknot.self = knot"),
    Part("excepthook", "import sys\nsys.excepthook = lambda kind, value, _: print('caught', kind.__name__)\nraise LookupError('x')"),
    Part("finalizer", "import weakref\nclass Thing:\n    pass\nthing = Thing()\nweakref.finalize(thing, print, 'finalized')"),
    Part("forked", "import os\npid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0)"),
    Part("finally", "try:\n    raise IndexError('inner')\nfinally:\n    out('finally\\n')"),
    Part("exit_in_finally", "import sys\ntry:\n    raise IndexError('lost')\nfinally:\n    sys.exit(0)"),
    Part("generator_open", "def endless():\n    try:\n        while True:\n            yield 1\n    finally:\n        print('closed')\nopen_generator = endless()\nnext(open_generator)"),
]  # fmt: skip

# --------------------------------------------------------------------------------------------------------------- guard
# `{body}` is the work and the end; in a function of its own, so that names are local, or at the top level. The thread that
# nobody joins begins when the script is over, or what it prints would come before or after the flush by chance.
GUARDS = [
    Part("none", "{body}"),
    Part("main_guard", "if __name__ == '__main__':\n{body4}"),
    Part("main_function", "def main():\n{body4}\nmain()"),
    Part("guarded_main", "def main():\n{body4}\nif __name__ == '__main__':\n    main()"),
    Part("sys_exit_main", "import sys\ndef main():\n{body4}\nif __name__ == '__main__':\n    sys.exit(main())"),
    Part("thread", "import sys, threading\nsys.setrecursionlimit(20000)\nthreading.stack_size(1 << 26)\ndef main():\n{body4}\nt = threading.Thread(target=main)\nt.start()\nt.join()"),
    Part("thread_not_joined", "import threading\ndef main():\n    threading.main_thread().join()\n{body4}\nthreading.Thread(target=main).start()"),
    Part("deep", "import sys\nsys.setrecursionlimit(20000)\ndef main():\n{body4}\ndef down(n):\n    return main() if n == 0 else down(n - 1)\ndown(5000)"),
    Part("try_except", "try:\n{body4}\nexcept Exception as e:\n    print('kept', type(e).__name__)"),
    Part("class", "class Solution:\n    def solve(self):\n{body8}\nSolution().solve()"),
    Part("lru_cache", "from functools import lru_cache\n@lru_cache(maxsize=None)\ndef main():\n{body4}\nmain()"),
    Part("exec", "exec({literal})"),
    Part("generator", "def main():\n{body4}\n    yield\nfor _ in main():\n    pass"),
    Part("numpy", "import numpy as np\n{body}\nout(str(int(np.arange(10).sum())) + '\\n')"),
]  # fmt: skip

WORK = """
out(f"{len(lines)} lines\\n")
for line in lines:
    out(line.strip()[::-1][:80] + "\\n")
"""


def build(read: Part, write: Part, end: Part, guard: Part, stdin: str) -> Program:
    """The program of four parts."""
    body = f"{WORK}{end.code}\n"
    guarded = (
        guard.code.replace("{body4}", textwrap.indent(body, "    ").rstrip())
        .replace("{body8}", textwrap.indent(body, "        ").rstrip())
        .replace("{body}", body.strip())
        .replace("{literal}", repr(body))
    )
    name = f"{read.name}/{write.name}/{end.name}/{guard.name}"
    return Program(name, f"{read.code}\n{write.code}\n{guarded}\n", stdin, packages=guard.name == "numpy")


@functools.cache
def combinations() -> tuple[Program, ...]:
    """The fixed choice: every write with every end, a fifth of them twice, each with the read and guard least seen beside them."""
    seen: Counter[tuple[str, str]] = Counter()
    programs: dict[str, Program] = {}
    for w, write in enumerate(WRITES):
        for e, end in enumerate(ENDS):
            for _ in range(2 if (w + e) % 5 == 0 else 1):
                ways = (_Way(read, write, end, guard) for read in READS for guard in GUARDS)
                way = min(ways, key=lambda way: way.cost(seen))
                seen.update(way.pairs)
                program = build(way.read, write, end, way.guard, INPUTS[(w * 3 + e) % len(INPUTS)])
                programs.setdefault(program.name, program)
    return tuple(programs.values())


@dataclass(frozen=True)
class _Way:
    """A candidate for the next combination."""

    read: Part
    write: Part
    end: Part
    guard: Part

    @property
    def pairs(self) -> list[tuple[str, str]]:
        read, write, end, guard = f"r:{self.read.name}", f"w:{self.write.name}", f"e:{self.end.name}", f"g:{self.guard.name}"
        return [(read, write), (read, end), (read, guard), (write, guard), (end, guard)]

    def cost(self, seen: Counter[tuple[str, str]]) -> float:
        """How often its pairs were taken. numpy takes a tenth of a second to import, so each pair with it is wanted once only."""
        counts = [seen[pair] for pair in self.pairs]
        rare = self.guard.name == "numpy"
        return sum(9.0 if n and rare else 0.0 if n == 0 else 1 + n / 100 for n in counts)
