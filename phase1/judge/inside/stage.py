"""What a stdin program finds when it starts, inside the sandbox: the stage that plain `python3 main.py` would set.

One of the files that run inside the sandbox; it imports nothing of ours.
"""

import _sitebuiltins
import builtins
import os
import sys

USUAL = frozenset(
    [
        "array",
        "bisect",
        "cmath",
        "collections",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "io",
        "itertools",
        "json",
        "math",
        "numbers",
        "operator",
        "queue",
        "random",
        "re",
        "statistics",
        "string",
        "struct",
        "threading",
        "typing",
    ]
)

PROGRAM_NAME, PROGRAM_FILE = "main.py", "/tmp/main.py"  # as `cd /tmp && python3 main.py` would have it
# A program with one of these words finds its own text in that file.
READS_ITSELF = frozenset(
    ["__file__", "argv", "inspect", "linecache", "traceback", "runpy", "spawn", "execv", "subprocess", "warnings"]
)
OF_SITE = ("copyright", "credits", "license", "help", "builtins")


def set_the_stage(program):
    """Arguments, and the builtins that `site` brings: the interpreter was started without it, which is twice as
    fast."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    if any(word in program for word in OF_SITE):  # a millisecond that few programs need
        import site

        site.setcopyright()
        site.sethelper()
    sys.argv, sys.orig_argv = [PROGRAM_NAME], ["python3", PROGRAM_NAME]


def source_bytes(program):
    """The program as the file that plain python3 would run: a byte-order mark, a coding line and line ends mean the
    same."""
    return program.encode("utf-8", "surrogatepass")


def reads_itself(program):
    """Whether a program has a word that lets one find its own text."""
    return any(word in program for word in READS_ITSELF)


def write_file(path, data):
    """Write a file anew, whoever made what is there."""
    try:  # noqa: SIM105 contextlib is a module more in every fork
        os.unlink(path)
    except OSError:
        pass
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)


def frames_below():
    """How deep the caller stands, as the interpreter counts recursion: until 3.11 the `exec` that runs a program counts
    as well."""
    frame, depth = sys._getframe(1), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth + (2 if sys.version_info < (3, 12) else 0)


def count_recursion_from(below):
    """Let the recursion limit count from the program's first frame, as in plain python3."""
    get, change, most = sys.getrecursionlimit, sys.setrecursionlimit, 2**31 - 1

    def getrecursionlimit():
        return get() - below

    def setrecursionlimit(limit, /):
        change(min(limit + below, most) if 1 <= limit <= most else limit)

    change(get() + below)
    sys.getrecursionlimit, sys.setrecursionlimit = getrecursionlimit, setrecursionlimit


def preload(code):
    """Import what the program imports of the usual modules, here and not in each test: none of them keeps state a test
    could see."""
    for name in USUAL.intersection(code.co_names):
        try:  # noqa: SIM105 as above
            __import__(name)
        except BaseException:  # a memory limit may be too small for it; the program will see
            pass
