"""What runs inside the sandbox: a fork-server that compiles a program once and forks once a test.

It is PID 1 of its pid namespace, so `kill(-1)` after a test reaches every process that the test left behind, however it
was detached. What a test costs beyond its own work is the fork: page tables are copied, then every page that the test
or the fork-server writes to. So this file imports little, calls little between two forks, and rehearses a test first.

File descriptors that it is started with: 0, 1 and 2, files in memory that serve every test as stdin, stdout and stderr;
3, the socket to the judge (protocol.py); 4, a file in memory for the reports of assert tasks; 5, until it knows its
task, these modules (launcher.BOOT); and with a cgroup the one that PHASE1_CPU_ACCOUNT names (group.py). Nothing it
knows is secret: the expected outputs of a stdin task stay outside, and the tests of an assert task are read from the
socket by their own process alone. Nor can a program read the memory of that one: no process is dumpable, so
/proc/PID/mem, maps and fd are closed to others.
"""

import _signal
import builtins
import gc
import marshal
import os
import resource
import sys
import time
from _thread import allocate_lock

from phase1.judge.inside.asserts import REPORT, compile_quietly, new_main
from phase1.judge.inside.ending import end
from phase1.judge.inside.group import Group
from phase1.judge.inside.processes import (
    ALONE,
    SIGKILL,
    Account,
    become_supervisor,
    bury,
    kind_of_end,
    short_end,
    wait_for,
)
from phase1.judge.inside.protocol import (
    CODE,
    COMPILED,
    CPU,
    DIRTY,
    DONE,
    ERR_TAIL,
    EXITED,
    IDLE,
    MEMORY,
    READ,
    SIGNALLED,
    SOCKET,
    TESTS,
    WALL,
    Stream,
)
from phase1.judge.inside.stage import (
    PROGRAM_FILE,
    count_recursion_from,
    frames_below,
    preload,
    reads_itself,
    set_the_stage,
    source_bytes,
    write_file,
)
from phase1.judge.inside.traces import Traces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import NoReturn

    from phase1.judge.inside.asserts import Job, Tests

    def load_assert_tasks() -> None:
        """Given by launcher.BOOT: load the modules of assert tasks."""


ROOM = 64 << 20  # bytes of address space that the fork-server has beyond a test's limit
BIG = 1 << 18  # bytes; a longer output passes through no memory of this process, which the next test would inherit
FINALLY = 8  # more of them may be nested so deeply that compiling takes for ever

_close, _exit, _fork, _monotonic = os.close, os._exit, os.fork, time.monotonic
_setrlimit = resource.setrlimit
_sigmask = _signal.pthread_sigmask
_lseek, _pread, _pwrite, _ftruncate = os.lseek, os.pread, os.pwrite, os.ftruncate


# --------------------------------------------------------------------------------------------- in a test's process
def run_stdin(code: "CodeType", main: list[dict[str, object]], frozen: bool) -> "NoReturn":
    """Run a stdin program to its end; never returns. `main` and `frozen`: as ending.end takes them."""
    ended: list[BaseException] = []
    try:
        exec(code, main[0])
    except BaseException as e:
        ended.append(e.with_traceback(e.__traceback__ and e.__traceback__.tb_next))  # without this frame
    _exit(end(ended, main, frozen))


# -------------------------------------------------------------------------------------------------------------- PID 1
def take(fd: int, cap: int, last: bool = False) -> tuple[int, bytes]:
    """Empty a file. Returns (bytes that it held, its content): of more than `cap` bytes only the first ERR_TAIL, or the
    last."""
    size = _lseek(fd, 0, 2)
    data = b""
    if size:
        most = size if size <= cap else ERR_TAIL
        data = _pread(fd, most, size - most if last else 0)
        _ftruncate(fd, 0)
    _lseek(fd, 0, 0)
    return size, data


def serve() -> None:
    """Take one job, run its tests in order, report each, stop after `max_timeouts` timeouts one after another."""
    become_supervisor()
    stream = Stream()
    os.environ.pop("LD_BIND_NOW", None)  # it was meant for this process
    # Where a cgroup bounds this sandbox, resident memory counts, and address space that nobody touches is free.
    resident = os.environ.pop("PHASE1_CGROUP", None) is not None
    number = os.environ.pop("PHASE1_CPU_ACCOUNT", None)
    group = None if number is None else Group(int(number))
    # Not a byte more: the tests of an assert task are behind it, and are read by another process.
    job: Job = marshal.loads(stream.read_exactly(int.from_bytes(stream.read_exactly(4), "little")))
    if job["kind"] == "assert":
        load_assert_tasks()
        os.close(CODE)
        from phase1.judge.inside.program_process import run_program
        from phase1.judge.inside.tests_process import be_tests
    for name in [name for name in sys.modules if name.startswith("phase1.")]:  # a program has no business to see them
        del sys.modules[name]
    sys.path[:] = job["path"]
    limit_resources(job, resident)
    code = compiled(stream, job, resident, group)
    if job["kind"] == "assert":  # each process is forked once, so there is nothing to rehearse
        preload(code)
        complete = run_assert_task(stream, job, resident, group, code, run_program, be_tests)
        stream.send(DONE if complete else DIRTY)
    else:
        os.close(REPORT)
        os.close(CODE)
        rehearse()  # before anything is imported that its end of a process would leave its mark on
        set_the_stage(job["program"])
        preload(code)
        run_stdin_task(stream, job, resident, group, code)
        stream.send(DONE)
    stream.finish()


def limit_resources(job: "Job", resident: bool) -> None:
    """Set the limits that this process shares with the tests. `resident`: resident memory is limited, by a cgroup."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"],) * 2)
    if ALONE:  # elsewhere it would count the user's other processes
        resource.setrlimit(resource.RLIMIT_NPROC, (job["processes"],) * 2)
    if not resident:  # room of its own for this process, so that a small limit fails the program and not its judge
        resource.setrlimit(resource.RLIMIT_AS, (job["memory"] + ROOM,) * 2)


def compiled(stream: Stream, job: "Job", resident: bool, group: Group | None) -> "CodeType":
    """Compile the program and tell the judge; does not return where that fails."""
    suspect = job["careful"] or job["program"].count("finally") > FINALLY
    if suspect and (kind := compile_apart(stream, job, resident, group)) is not None:
        stream.send(COMPILED, 0)
        for _ in range(job["first"], job["count"]):
            stream.send(kind, SIGKILL if kind == SIGNALLED else 1, job["cpu"])
        stream.send(DONE)
        stream.finish()
    code, problem = compile_quietly(source_bytes(job["program"]), PROGRAM_FILE)
    stream.send(COMPILED, int(code is None), err=problem.encode("utf-8", "backslashreplace"))
    if code is None:
        stream.finish()
    return code


def run_stdin_task(stream: Stream, job: "Job", resident: bool, group: Group | None, code: "CodeType") -> None:
    """Fork once a test, wait, report."""
    number, late, count, limit = job["first"], job["late"], job["count"], (job["memory"],) * 2
    blind = not os.path.isdir("/proc/1")
    own_file = source_bytes(job["program"]) if ALONE and reads_itself(job["program"]) else None
    frozen = "freeze" in job["program"]
    by_path = "/dev/" in job["program"] or "/proc/" in job["program"]
    account = Account(group)
    traces = Traces((0, 1, 2))
    undone, sockets, cpu_account = traces.undone, traces.sockets, group.fd if group else -1
    # Loaded once more, one behind the other, the code that every test runs lies on few pages.
    for function in (take, short_end, Stream.read, Stream.read_to_stdin, Stream.send, Stream.flush, run_stdin, end):
        function.__code__ = marshal.loads(marshal.dumps(function.__code__))
    most_cpu, most_output, seconds = job["cpu"], job["output_cap"], int(2 * job["cpu"]) + 2
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", PROGRAM_FILE)
    count_recursion_from(frames_below() + 1)  # and run_stdin's
    gc.freeze()
    gc.disable()  # a collection here would write to every object, and so copy what the tests share
    # Behind the freeze: the collector must see these globals, or it could not end what refers to them and back.
    main = [new_main("__main__", PROGRAM_FILE, loader)]
    while number < count:
        stream.read_to_stdin(int.from_bytes(stream.read(8), "little"))
        if own_file is not None:
            write_file(PROGRAM_FILE, own_file)
        if _monotonic() - stream.sent > 0.02:
            stream.flush()
        started = _monotonic()
        pid = _fork()
        if pid == 0:
            _close(SOCKET)
            if sockets >= 0:
                _close(sockets)
            if cpu_account >= 0:
                _close(cpu_account)
            if not ALONE:
                os.setsid()
            if blind:
                _setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            _sigmask(_signal.SIG_SETMASK, ())
            gc.enable()
            if not resident:
                _setrlimit(resource.RLIMIT_AS, limit)
            run_stdin(code, main, frozen)
        # Behind either way no process of the test is left: none may still write to the files, or use what is counted.
        at_once = short_end(pid, account)
        if at_once is None:
            kind, status, cpu, usage = wait_for(pid, job, account, stream.beat, first_look=0.0)
            bury()
            cpu, peak = max(cpu, account.closed()), usage.ru_maxrss * 1024
        else:
            status, cpu, peak = at_once
            kind = EXITED
            if status:
                kind, status = kind_of_end(status, cpu, job)
        wall = _monotonic() - started
        # A program may open its input again by its path; then the position that we share does not say.
        read = _lseek(0, 0, 1) > 0 or by_path
        if kind in (EXITED, SIGNALLED) and cpu > most_cpu:
            kind = CPU
        elif resident and kind in (EXITED, SIGNALLED) and peak > job["memory"]:
            kind = MEMORY
        big = _lseek(1, 0, 2)
        if not BIG < big <= most_output:
            big = 0
        total, out = (big, b"") if big else take(1, most_output)
        err = take(2, ERR_TAIL, last=True)[1]
        report = READ if read else b""
        stream.send(kind, status, cpu, wall, peak, total, out, err, report, big)
        if big:
            take(1, 0)
        number += 1
        late = late + 1 if kind in (CPU, IDLE, WALL) else 0
        if late >= job["max_timeouts"]:
            break
        if number < count and not undone():
            stream.send(DIRTY)
            break


def run_assert_task(
    stream: Stream,
    job: "Job",
    resident: bool,
    group: Group | None,
    code: "CodeType",
    run_program: "Callable[[Job, CodeType, int, int], NoReturn]",
    be_tests: "Callable[[Tests, int, int, int], NoReturn]",
) -> bool:
    """Fork the program's process and the tests' process, wait, report.

    A test that ends the program leaves its fellows to a new sandbox.

    Args:
        run_program, be_tests: the main functions of the two processes.

    Returns:
        Whether all tests were run.
    """
    gc.freeze()
    requests, answers, own = os.pipe(), os.pipe(), [group.fd] if group else []
    blind = not os.path.isdir("/proc/1")
    account = Account(group)
    shares = job["count"] - job["first"]
    seconds = int(2 * job["cpu"] * shares) + 2
    started = _monotonic()
    program = _fork()
    if program == 0:  # it does nothing before the tests' process says so
        for fd in (SOCKET, REPORT, requests[1], answers[0], *own):
            _close(fd)
        if not ALONE:
            os.setsid()
        if blind:
            _setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        _sigmask(_signal.SIG_SETMASK, ())
        if not resident:
            _setrlimit(resource.RLIMIT_AS, (job["memory"],) * 2)
        run_program(job, code, requests[0], answers[1])
    account.tests = _fork()
    if account.tests == 0:
        for fd in (requests[0], answers[1], *own):
            _close(fd)
        if "/tmp" in sys.path:  # what the program leaves there is no module of the tests'
            sys.path.remove("/tmp")
        inside: Tests = marshal.loads(stream.read_exactly(int.from_bytes(stream.read_exactly(4), "little")))
        _close(SOCKET)
        _sigmask(_signal.SIG_SETMASK, ())
        be_tests(inside, answers[0], requests[1], program)
    for fd in (*requests, *answers):
        _close(fd)
    kind, status, cpu, usage = wait_for(program, job, account, stream.beat)
    wall = _monotonic() - started
    bury()
    cpu = max(cpu, account.closed())
    if shares == 1 and kind in (EXITED, SIGNALLED, TESTS) and cpu > job["cpu"]:
        kind = CPU
    elif resident and kind in (EXITED, SIGNALLED, TESTS) and usage.ru_maxrss * 1024 > job["memory"]:
        kind = MEMORY
    report = take(REPORT, 1 << 24)[1]
    err = take(2, ERR_TAIL, last=True)[1]
    stream.send(kind, status, cpu, wall, usage.ru_maxrss * 1024, 0, b"", err, report)
    return report.endswith(b" end\n")


def compile_apart(stream: Stream, job: "Job", resident: bool, group: Group | None) -> int | None:
    """Try a compilation that may explode, in a process of its own and under a test's limits.

    Each `finally` inside another one doubles the code: 19 of them take plain python3 six seconds and 1.5 GB. Data
    preparation and the SandboxFusion adapter also compile in processes of their own. This one stays apart from theirs,
    because it is part of what lives in the sandbox, and its limits are those of the test. Whatever else takes for ever
    to compile has lost a sandbox before (`job["careful"]`).

    Args:
        resident: resident memory is limited, by a cgroup, and not address space.

    Returns:
        None if the program can be compiled, or fails to in the usual way; else how the process ended, as `wait_for`.
    """
    account = Account(group)
    pid = _fork()
    if pid == 0:
        _close(SOCKET)
        if group:
            _close(group.fd)
        _setrlimit(resource.RLIMIT_CPU, (int(job["cpu"]) + 1,) * 2)
        if not resident:
            _setrlimit(resource.RLIMIT_AS, (job["memory"],) * 2)
        compile_quietly(source_bytes(job["program"]), PROGRAM_FILE)
        _exit(0)
    kind, status, cpu, usage = wait_for(pid, job, account, stream.beat)
    if kind == SIGNALLED and cpu >= job["cpu"]:
        return CPU
    if resident and kind in (EXITED, SIGNALLED) and usage.ru_maxrss * 1024 > job["memory"]:
        return MEMORY
    return None if (kind, status) == (EXITED, 0) else kind


def rehearsal() -> None:
    """A program as they come; only its code is used."""
    print(int(input()), *map(int, input().split()), sep=" ")
    for line in sys.stdin:
        sys.stdout.write(f"{len(line.strip())}\n")
    sys.stdin.readline(), sys.stdin.read(), sys.stdin.buffer.read()


def rehearse() -> None:
    """Do once what every test does: the memory that this fills (buffers, caches of attributes) need not be copied in
    each test."""
    _pwrite(0, b"0\n1 2\nx\n", 0)
    exec(rehearsal.__code__, {"__builtins__": builtins, "sys": sys})
    gc.freeze()  # nothing of ours is the program's
    end([], [], False)
    sys.stdin.seek(0)
    _ftruncate(0, 0)  # an assert task finds nothing on its standard input
    take(1, 0)
    # Freed together, these are what the C library hands out next: from a few pages, not from holes all over the heap.
    blocks = [(bytes(size), allocate_lock()) for size in range(520, 1000, 16) for _ in range(4)]
    del blocks


if __name__ == "__main__":
    serve()
