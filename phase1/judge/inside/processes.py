"""The processes of a test, as the fork-server watches, kills and reaps them. It runs inside the sandbox.

It imports the standard library and its neighbours only.
"""

import _signal
import os
import resource
import time

from phase1.judge.inside.asserts import GONE, REPORT
from phase1.judge.inside.protocol import CPU, EXITED, IDLE, MEMORY, SIGNALLED, TESTS, WALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from phase1.judge.inside.asserts import Job

SIGCHLD, SIGKILL = _signal.SIGCHLD, _signal.SIGKILL
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36  # linux/prctl.h
# In a pid namespace of our own; otherwise only process groups and /proc tell a test from other processes.
ALONE = os.getpid() == 1

_monotonic, _sigtimedwait = time.monotonic, _signal.sigtimedwait
_wait4, _waitpid, WNOHANG, CHILD_ENDED = os.wait4, os.waitpid, os.WNOHANG, (SIGCHLD,)


def libc_function(name: str) -> "Callable[..., int] | None":
    """A function of the C library, of integers, without the cost of ctypes; None where `_ctypes` was not built."""
    try:
        import _ctypes

        address, call = _ctypes.dlsym(_ctypes.dlopen(None, 0), name), _ctypes.call_function  # type: ignore[arg-type]
        return lambda *args: call(address, args)
    except (ImportError, OSError, AttributeError):
        return None


def waitpid_quietly(pid: int, _: int, options: int) -> int:
    """waitpid as in C: 0 while all children run, -1 where there is none."""
    try:
        return _waitpid(pid, options)[0]
    except ChildProcessError:
        return -1


any_child: "Callable[[int, int, int], int]" = waitpid_quietly  # `become_supervisor` takes that of C if it can


def become_supervisor() -> None:
    """Be out of reach for the tests, and the parent of every orphan of theirs."""
    global any_child
    # That of C, since the exception by which Python says "no child" costs more than the call.
    any_child = libc_function("waitpid") or waitpid_quietly
    prctl = libc_function("prctl")
    if prctl:
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no ptrace, no /proc/1/mem, for the tests share our uid
        if not ALONE:
            prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # PID 1 gets no signals but those it handles; SIGINT has Python's handler, which the children need.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (SIGCHLD, _signal.SIGINT))


def family(tests: int = 0) -> tuple[float, int, bool] | None:
    """(CPU seconds, resident bytes, whether any thread wants the CPU) of all processes but this one; None without
    /proc. `tests`: the tests' process, whose time and memory are not the program's."""
    ticks = pages = 0
    busy = False
    try:
        names = (
            [n for n in os.listdir("/proc") if n.isdigit() and n != "1"] if ALONE else [str(p) for p in descendants()]
        )
    except OSError:
        return None
    for name in names:
        try:
            fields = stat_fields(f"/proc/{name}/stat")
            if int(name) != tests:
                ticks += sum(map(int, fields[11:15]))
                pages += int(fields[21])
            busy = busy or fields[0] in b"RD"
            if not busy and int(fields[17]) > 1:
                busy = any(
                    stat_fields(f"/proc/{name}/task/{t}/stat")[0] in b"RD" for t in os.listdir(f"/proc/{name}/task")
                )
        except (OSError, IndexError):
            continue
    return (ticks / TICK, pages * PAGE, busy) if names else None


def stat_fields(path: str) -> list[bytes]:
    """The fields of a /proc stat file from the state on; the command's name before it may hold anything."""
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.read(fd, 4096)
    finally:
        os.close(fd)
    return data[data.rindex(b")") + 2 :].split()


def descendants() -> list[int]:
    """Process ids below this one; only where there is no pid namespace (--unsafe)."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents.setdefault(int(stat_fields(f"/proc/{name}/stat")[1]), []).append(int(name))
            except (OSError, IndexError):
                continue
    found, todo = [], [os.getpid()]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def kill_all() -> None:
    """SIGKILL every process of the test."""
    for pid in [-1] if ALONE else descendants():
        try:  # noqa: SIM105 contextlib is a module more in every fork
            os.kill(pid, SIGKILL)
        except OSError:
            pass


def over_limit(job: "Job", cpu: float, idle: float, resident: int, wall: float) -> int | None:
    """The limit that a test is beyond, as a kind of end; times in seconds, `resident` in bytes."""
    if cpu > job["cpu"]:
        return CPU
    if resident > job["memory_family"]:
        return MEMORY
    if idle > job["idle"]:
        return IDLE
    return WALL if wall > job["wall"] else None


def wait_for(pid: int, job: "Job", tests: int = 0) -> tuple[int, int, float, resource.struct_rusage]:
    """Wait for a program's process, and kill it when it, with its children, goes beyond a limit.

    CPU time decides, as the scheduler counts it. RLIMIT_CPU counts ticks, which a busy machine can double, and is used
    only without /proc. The idle limit is for sleepers and counts only moments at which no thread of the test wants the
    CPU, so that a busy machine cannot turn a slow program into a timeout. The wall limit is far out, for what escapes
    both. Each test of an assert task has the limits to itself: a new report starts them afresh.

    Args:
        tests: of an assert task, the tests' process: its end is waited for, and only moments at which it does not want
            the CPU either count as idle.

    Returns:
        (kind of end, exit status or signal, CPU seconds, what the kernel says that it used), all of the program.
    """
    started = seen = _monotonic()
    idle = cpu = base = 0.0
    reported, pause, verdict = 0, 0.02, None
    main, ended = tests or pid, {}
    while main not in ended:
        _sigtimedwait(CHILD_ENDED, pause)
        while (child := _wait4(-1, WNOHANG))[0]:  # this one, or an orphan of the test's
            ended[child[0]] = child
            if child[0] == main:
                break
        if main in ended:
            break
        now = _monotonic()
        if now - seen < pause:
            continue
        pause = min(0.1, pause * 1.5)
        step, seen = min(now - seen, 0.2), now
        look = family(tests)
        size = os.fstat(REPORT).st_size if tests else 0
        if look is None:
            over = WALL if now - started > job["wall_blind"] else None
        else:
            cpu = max(cpu, look[0])
            idle += 0.0 if look[2] else step
            if size != reported:
                reported, base, idle = size, cpu, 0.0
            over = over_limit(job, cpu=cpu - base, idle=idle, resident=look[1], wall=now - started)
        if over is not None and verdict is None:
            verdict = over
            kill_all()
            pause = 0.02
    killed = pid not in ended and not ended_by_itself(pid, ended, grace=ended[main][1] == GONE << 8)
    _, status, usage = ended[pid]
    cpu = max(cpu, usage.ru_utime + usage.ru_stime)
    if verdict is not None:
        return verdict, 0, cpu, usage
    if tests and ended[tests][1] not in (0, GONE << 8):
        return TESTS, ended[tests][1], cpu, usage
    if killed:  # all tests are done, or it closed its pipes
        return EXITED, 0, cpu, usage
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return CPU if number == SIGKILL and cpu > job["cpu"] else SIGNALLED, number, cpu, usage
    return EXITED, os.WEXITSTATUS(status), cpu, usage


def ended_by_itself(pid: int, ended: "dict[int, tuple[int, int, resource.struct_rusage]]", grace: bool) -> bool:
    """Wait for a program's process whose tests' process has ended; its end goes into `ended`.

    Args:
        grace: the tests' process saw it close its pipes. The kernel closes them a moment before a process has ended.

    Returns:
        False where it had to be killed.
    """
    deadline = _monotonic() + 0.5
    while grace and _monotonic() < deadline:
        child = _wait4(pid, WNOHANG)
        if child[0]:
            ended[pid] = child
            return True
        _sigtimedwait(CHILD_ENDED, 0.002)
    kill_all()
    ended[pid] = _wait4(pid, 0)
    return False


def bury() -> None:
    """Kill and reap what a test left. Where no child is left there is no process at all: every orphan becomes our
    child."""
    while (done := any_child(-1, 0, WNOHANG)) != -1:
        if not done:
            kill_all()
            any_child(-1, 0, 0)
