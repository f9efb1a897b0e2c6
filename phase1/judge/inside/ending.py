"""How a program ends, inside the sandbox: in the interpreter's own order, for plain `python3` is the reference.

It imports the standard library only. CPython ends a script in this order (pythonrun.c, pylifecycle.c): flush stderr and
stdout; print the traceback; join threads; run atexit; flush again, where a stream without a true `closed` counts as
open, and a flush that fails makes the exit status 120; collect garbage; give `sys.stdout` back; drop `__main__`, which
runs `__del__` and closes files; flush once more.

Ending a whole interpreter takes eight times as long as a test's process. So `end` does these steps itself, leaves out
those that the program cannot notice, and leaves the rest to the interpreter where it cannot do them.
"""

import _signal
import _thread
import _weakref
import atexit
import gc
import os
import sys
from _io import BufferedRandom, BufferedReader, BufferedWriter, BytesIO, FileIO, StringIO, TextIOWrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Any, NoReturn

WRITERS = (TextIOWrapper, BufferedWriter, BufferedRandom)


def _cell() -> object:
    """A cell: what a closure keeps a variable in."""
    x = 0
    cells = (lambda: x).__closure__ or ()
    return cells[0]


# Types whose objects need nothing at the end, though those of the second line have a `__del__`.
QUIET = frozenset(
    map(type, ((), [], {}, set(), frozenset(), sys, len, lambda: 0, map(len, ()), iter([]), iter(()), _cell()))
)
QUIET |= {BytesIO, StringIO, FileIO, BufferedReader}
STDOUT: "Any" = sys.stdout
STDERR: "Any" = sys.stderr
IS_CLASS = 1 << 31  # Py_TPFLAGS_TYPE_SUBCLASS
HAS_GC = 1 << 14  # Py_TPFLAGS_HAVE_GC: without it instances do not show among the collector's objects
# What the interpreter sets to None before it drops the modules.
SPECIAL = (
    "path",
    "argv",
    "ps1",
    "ps2",
    "last_exc",
    "last_type",
    "last_value",
    "last_traceback",
    "path_hooks",
    "path_importer_cache",
    "meta_path",
)

_exit, _collect, _get_objects, _run_exitfuncs, _threads = (
    os._exit,
    gc.collect,
    gc.get_objects,
    atexit._run_exitfuncs,
    _thread._count,
)
_callbacks, _unfreeze = atexit._ncallbacks, gc.unfreeze


async def _coroutine() -> None:
    pass


async def _async_generator() -> "AsyncGenerator[None, None]":
    yield


_suspended = _coroutine()
_suspended.close()  # or it would say that nobody waited for it
# A `finally` or `with` in one of these runs when it is dropped.
GENERATOR = type(_ for _ in ())
SUSPENDED = frozenset([GENERATOR, type(_suspended), type(_async_generator())])


def exit_status(error: SystemExit) -> int:
    """The exit status of SystemExit, as the interpreter gives it."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(2**63) <= code < 2**63 else 255
    if sys.stderr is not None:
        sys.stderr.write(str(code))
        sys.stderr.write("\n")
    return 1


def show(error: BaseException) -> int:
    """Print an uncaught exception as the interpreter does. Returns the exit status, which an excepthook may choose by
    raising SystemExit."""
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except SystemExit as e:
        return exit_status(e)
    except BaseException as e:
        try:
            sys.stderr.write("Error in sys.excepthook:\n")
            sys.__excepthook__(type(e), e, e.__traceback__)
            sys.stderr.write("\nOriginal exception was:\n")
            sys.__excepthook__(type(error), error, error.__traceback__)
        except BaseException:
            pass
    return 1


def flush_quietly(name: str) -> None:
    """Flush a stream of `sys`, as right behind a script: errors are ignored."""
    try:  # noqa: SIM105 contextlib is a module more in every fork
        getattr(sys, name).flush()
    except BaseException:
        pass


def flush_streams() -> bool:
    """Flush stdout and stderr, as at the interpreter's end. Returns False where one failed."""
    good = True
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        if stream is None:
            continue
        try:
            closed = bool(stream.closed)
        except BaseException:
            closed = False
        if closed:
            continue
        try:
            stream.flush()
        except BaseException:
            good = False
    return good


def report_unraisable(error: BaseException, thing: object) -> None:
    """Print, in short, what the interpreter prints of an exception that nobody can catch."""
    try:  # noqa: SIM105 as above
        sys.stderr.write(f"Exception ignored in: {thing!r}\n{type(error).__name__}: {error}\n")
    except BaseException:
        pass


def waits(generator: "Any") -> bool:
    """Whether a generator is suspended in code with a `finally`, an `except` or a `with`; from 3.12 on every suspended
    one seems to be."""
    return generator.gi_frame is not None and len(generator.gi_code.co_exceptiontable) > 0


def something_to_finalize(callbacks: bool) -> bool:
    """Whether anything that the test made could still do something: `__del__`, a file to flush, a `finally` that waits.

    The fork-server's own objects are frozen and do not show. True as well where looking raises an exception, as a
    metaclass of the program's can make it.

    Args:
        callbacks: count weak references that call something.
    """
    try:
        things = _get_objects()
        kinds = set(map(type, things)) - QUIET
        classes = False
        for kind in kinds:
            if kind in SUSPENDED:
                if kind is not GENERATOR or any(type(thing) is kind and waits(thing) for thing in things):
                    return True
            elif kind in WRITERS:
                if any(type(thing) is kind and not thing.closed and thing.writable() for thing in things):
                    return True
            elif hasattr(kind, "__del__"):
                return True
            classes = classes or kind is _weakref.ref or kind.__flags__ & IS_CLASS != 0
        for thing in things if classes else ():  # a class brings a weak reference with it
            if type(thing) is _weakref.ref:
                if callbacks and thing.__callback__ is not None:
                    return True
            elif isinstance(thing, type) and not thing.__flags__ & HAS_GC and hasattr(thing, "__del__"):
                return True  # its instances do not show
    except BaseException:
        return True
    return False


def end(ended: list[BaseException], main: list[dict[str, object]], frozen: bool) -> int:
    """Do what the interpreter does after a script. Returns the exit status, or raises, for the interpreter to do the
    rest.

    Both lists are emptied, since whoever holds what is in them keeps the program's objects alive.

    Args:
        ended: the exception that ended the script, if one did.
        main: the globals of `__main__`.
        frozen: the program may have hidden objects from the collector (gc.freeze), so that only the interpreter knows.
    """
    stream: Callable[[str], Any] = sys.__dict__.get
    modules = sys.modules
    if (
        not (ended or frozen or "threading" in modules or _callbacks())
        and stream("stdout") is STDOUT
        and stream("stderr") is STDERR
    ):
        try:  # as most programs end: there is one thing to flush
            STDOUT.flush()
        except BaseException:  # fails again below
            pass
        else:
            return finalize(main, 0) if something_to_finalize(callbacks=True) else 0
    flush_quietly("stderr")
    flush_quietly("stdout")
    status, interrupted = 0, False
    error = ended.pop() if ended else None
    if isinstance(error, SystemExit):
        try:
            status = exit_status(error)
        except BaseException:
            status = 1
    elif error is not None:
        status = show(error)
        interrupted = isinstance(error, KeyboardInterrupt)
        if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
            flush_streams()  # the threads that did start may wait for those that the sandbox refused, for ever
            _exit(1)
    error = None
    threading = modules.get("threading")
    if threading is not None:
        try:
            threading._shutdown()
        except BaseException as e:
            report_unraisable(e, threading)
    _run_exitfuncs()
    # A daemon thread stops where the interpreter begins to end. A flush that fails, fails there again and is reported.
    if interrupted or frozen or (threading is not None and _threads()) or not flush_streams():
        leave_to_interpreter(status, interrupted)
    if stream("stdout") is not STDOUT or something_to_finalize(callbacks=True):
        return finalize(main, status)
    return status


def finalize(main: list[dict[str, object]], status: int) -> int:
    """Drop all that the program made. Returns the exit status, or raises where other modules hold some of it."""
    for number in range(1, _signal.NSIG):  # a handler would hold on to the program's globals
        if callable(_signal.getsignal(number)):
            _signal.signal(number, _signal.SIG_DFL)
    _collect()
    for name in SPECIAL:
        if hasattr(sys, name):
            setattr(sys, name, None)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, getattr(sys, f"__{name}__", None))
    sys.modules.pop("__main__", None)
    main.clear()
    _collect()
    flushed = True
    try:
        STDOUT.flush()  # what was printed meanwhile; nobody hears of a failure
    except BaseException:
        flushed = False
    if something_to_finalize(callbacks=False) or not flushed:
        sys.stdout = None  # flushed above; the interpreter would count a second failure, and gives it back as we did
        leave_to_interpreter(status, interrupted=False)
    return status


def leave_to_interpreter(status: int, interrupted: bool) -> "NoReturn":
    """Unwind to the interpreter's own end. `interrupted`: the process shall end by SIGINT."""
    global STDOUT, STDERR
    STDOUT = STDERR = None  # or these would outlive the interpreter, and what they still hold with them
    _unfreeze()  # what hangs on a module that was frozen is its to collect, too
    if interrupted:
        sys.excepthook = lambda *_: None
        raise KeyboardInterrupt  # then it ends the process by SIGINT
    raise SystemExit(status)
