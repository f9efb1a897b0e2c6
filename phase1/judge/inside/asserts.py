"""Assert tasks (humaneval, mbpp), inside the sandbox: tests that call the program's functions, in its own process.

The second file that runs inside the sandbox: fork_server.py uses it there, and SandboxFusion's servers get it with each
assert task (`run_remote`). It imports nothing of ours. An unguessable marker, builtins and modules as they were before
the program, and a check for plain types (`plain`) catch shortcuts here, not a determined attacker in the same process.
"""

import _warnings
import builtins
import os
import sys
import time

PROGRAM = "solution"  # the module that a program of an assert task is
REPORT = 4  # the file descriptor of the reports

_exit, _write, _cpu_time = os._exit, os.write, time.process_time


def new_main(name, file=None, loader=None):
    """A fresh module in sys.modules, where dataclasses and pickle look for it; returns its globals, as python3 sets
    them.

    `file` and `loader`: of a script. The program of an assert task has none, nor is it `__main__`: human-eval runs it
    so.
    """
    module = type(sys)(name)
    module.__dict__["__builtins__"] = builtins
    if file is not None:
        module.__dict__.update(__annotations__={}, __cached__=None, __file__=file, __loader__=loader)
    sys.modules[name] = module
    return module.__dict__


def compile_quietly(source, name):
    """compile() without the warnings that would go to stderr; returns (code, error text)."""
    _warnings.filters.insert(0, ("ignore", None, Warning, None, 0))
    _warnings._filters_mutated()
    try:
        return compile(source, name, "exec", dont_inherit=True), ""
    except BaseException as e:  # also MemoryError, RecursionError, ValueError (null bytes), UnicodeError
        line = getattr(e, "lineno", None)
        return None, describe(e) + (f" (line {line})" if line and "line" not in str(e) else "")
    finally:
        _warnings.filters.pop(0)
        _warnings._filters_mutated()


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
    pass


def plain(value):
    """`value` itself if no class of the program's decides how it compares; else NotPlain.

    Plain types pass, containers are searched. An instance of a class of the program's passes where that class leaves
    comparison alone. By identity, since a metaclass can lie about equality and hash.
    """
    todo, seen = [value], set()
    while todo:
        item = todo.pop()
        kind = type(item)
        if id(kind) in ATOMS or id(item) in seen:
            continue
        seen.add(id(item))
        for base in type.__dict__["__mro__"].__get__(kind):
            if base.__flags__ & 512 and not known(base) and any(name in base.__dict__ for name in COMPARISONS):
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


def known(kind):
    """Whether a class belongs to a module other than the program (one that says so and holds it)."""
    name = type.__getattribute__(kind, "__module__")
    if type(name) is not str or name in ("__main__", PROGRAM):
        return False
    if not kind.__flags__ & 512:  # not made by a class statement
        return True
    return name in sys.modules and getattr(sys.modules[name], kind.__name__, None) is kind


def run_asserts(job, program, setup, tests, first, emit):
    """Run an assert task's tests from number `first` on, in this process; `emit(number, verdict, cpu s, detail)` each.

    The test code runs in a copy of the program's globals with builtins and modules as they were before the program,
    so a program that patches them changes nothing for the tests. Returns after the last test.
    """
    pristine, modules, entry = job["pristine"], job["modules_seen"], job["entry_point"]
    sys.modules["__main__"] = type(sys)("__main__")
    namespace = new_main(PROGRAM)
    started = _cpu_time()
    early = False
    if (
        setup is not None
    ):  # first, so that a program may rely on it; but a set-up that builds the program's classes fails here
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

        def importer(name, globals=None, locals=None, fromlist=(), level=0):
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
        return emit(-1, verdict_of(e), _cpu_time() - started, describe(e))
    for number in range(first, len(tests)):
        try:
            exec(tests[number], scope)
            verdict, detail = "success", ""
        except BaseException as e:
            verdict, detail = verdict_of(e), describe(e)
        now = _cpu_time()
        emit(number, verdict, now - started, detail)
        started = now
    return None


def verdict_of(error):
    return "wrong_answer" if isinstance(error, AssertionError) else "runtime_error"


def describe(error):
    """`Type: message` of an exception, bounded; the message is the program's own code and may fail."""
    try:
        text = str(error)
    except BaseException:
        text = "?"
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return f"the program ended before its tests were done (SystemExit: {text})"[:300]
    return (f"{name}: {text}" if text else name)[:300]


def assert_child(job, program, setup, tests, first):
    """The process of an assert task: reports each test on REPORT behind the marker, ends with the end marker."""
    marker = job["marker"]

    def emit(number, verdict, cpu, detail):
        detail = detail.encode("utf-8", "backslashreplace").replace(b"\n", b" ")
        _write(REPORT, b"%b %d %b %.6f %b\n" % (marker, number, verdict.encode(), cpu, detail))

    run_asserts(job, program, setup, tests, first, emit)
    _write(REPORT, b"%b end\n" % marker)
    _exit(0)


def next_assert(report, marker, first, count):
    """The number of the test to go on with after a process that began at `first`: behind the one that ended it."""
    lines = [line.split() for line in report.split(b"\n") if line.startswith(marker)]
    if lines and lines[-1][1:2] in ([b"end"], [b"-1"]):
        return count
    return first + len(lines) + 1


def prepare_asserts(job, program):
    """Compile set-up and tests, import what they import before the program can touch it; returns the child's main."""
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
    return lambda number: assert_child(job, program, setup, tests, number)


def run_remote(job):
    """An assert task where there is no fork-server (SandboxFusion): reports go to stdout, the program's own output
    nowhere."""
    os.dup2(1, REPORT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code, problem = compile_quietly(job["program"].encode("utf-8", "surrogatepass"), "main.py")
    if code is None:
        _write(REPORT, b"%b -1 runtime_error 0 %b\n" % (job["marker"], problem.encode("utf-8", "backslashreplace")))
        _exit(1)
    prepare_asserts(job, code)(job["first"])
