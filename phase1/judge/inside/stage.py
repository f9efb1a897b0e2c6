"""What a stdin program finds when it starts, inside the sandbox: what `python3 main.py` would set up for it.

It imports the standard library only.
"""

import _sitebuiltins
import builtins
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType

# Standard modules that are imported once for all tests of a program that names them.
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


def set_the_stage(program: str) -> None:
    """Set the arguments, and the builtins that `site` brings: the interpreter was started without `site`, which is
    twice as fast."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    if any(word in program for word in OF_SITE):  # a millisecond that few programs need
        import site

        site.setcopyright()
        site.sethelper()
    sys.argv, sys.orig_argv = [PROGRAM_NAME], ["python3", PROGRAM_NAME]


def source_bytes(program: str) -> bytes:
    """The program as the file that plain python3 would run, so that a byte-order mark, a coding line and line ends mean
    the same."""
    return program.encode("utf-8", "surrogatepass")


def reads_itself(program: str) -> bool:
    """Whether a program has a word by which it may read its own text."""
    return any(word in program for word in READS_ITSELF)


def write_file(path: str, data: bytes) -> None:
    """Write a file, in place of whatever a program left there."""
    try:  # noqa: SIM105 contextlib is a module more in every fork
        os.unlink(path)
    except OSError:
        pass
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)


def frames_below() -> int:
    """The depth of the caller, as the interpreter counts recursion; until 3.11 it counts the `exec` that runs a program
    as well."""
    frame: FrameType | None = sys._getframe(1)
    depth = 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth + (2 if sys.version_info < (3, 12) else 0)


def count_recursion_from(below: int) -> None:
    """Let the recursion limit count from the program's first frame, as in plain python3. `below`: frames under it."""
    get, change, most = sys.getrecursionlimit, sys.setrecursionlimit, 2**31 - 1

    def getrecursionlimit() -> int:
        return get() - below

    def setrecursionlimit(limit: int, /) -> None:
        change(min(limit + below, most) if 1 <= limit <= most else limit)

    change(get() + below)
    sys.getrecursionlimit, sys.setrecursionlimit = getrecursionlimit, setrecursionlimit


def preload(code: "CodeType") -> None:
    """Import what the program imports of the USUAL modules, once and not in each test. None of them keeps state that a
    test could see."""
    for name in USUAL.intersection(code.co_names):
        try:  # noqa: SIM105 contextlib is a module more in every fork
            __import__(name)
        except BaseException:  # a memory limit may be too small for it; the program will see
            pass
