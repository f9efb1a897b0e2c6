"""The processes of a test, as the fork-server watches, kills and reaps them. It runs inside the sandbox.

It imports the standard library and its neighbours only.
"""

import _signal
import os
import resource
import time

from phase1.judge.inside.asserts import GONE, REPORT
from phase1.judge.inside.group import Group, process_cpu
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
_getrusage, _random = resource.getrusage, os.urandom
_wait4, _waitpid, WNOHANG, CHILD_ENDED = os.wait4, os.waitpid, os.WNOHANG, (SIGCHLD,)
P_ALL, LEAVE = os.P_ALL, os.WEXITED | os.WNOHANG | os.WNOWAIT  # of waitid: any child, and to be waited for again
FIRST_LOOK = 0.02  # s


def libc_function(name: str) -> "Callable[..., int] | None":
    """A function of the C library, of integers, without the cost of ctypes; None where `_ctypes` was not built."""
    try:
        import _ctypes

        address, call = _ctypes.dlsym(_ctypes.dlopen(None, 0), name), _ctypes.call_function  # type: ignore[arg-type]
        return lambda *args: call(address, args)
    except (ImportError, OSError, AttributeError):
        return None


def first_wait() -> "Callable[[int], tuple[int, int, float, int]]":
    """A function that waits FIRST_LOOK for a child: (its process id, or 0 where it has not ended; status as of wait4;
    CPU seconds; peak RSS in bytes). It calls C where `_ctypes` was built: Python's wait4 imports a module at each call
    and makes an object of each figure, which touches twelve pages more."""

    def by_python(pid: int) -> tuple[int, int, float, int]:
        _sigtimedwait(CHILD_ENDED, FIRST_LOOK)
        ended, status, usage = _wait4(pid, WNOHANG)
        return ended, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024

    try:
        import _ctypes

        class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "l"

        class Longs(_ctypes.Array):  # type: ignore[type-arg]
            _type_, _length_ = Long, 36  # more than any of the four has

        library, call = _ctypes.dlopen(None, 0), _ctypes.call_function  # type: ignore[arg-type]
        wait4, sigtimedwait = _ctypes.dlsym(library, "wait4"), _ctypes.dlsym(library, "sigtimedwait")
        signals, time_limit, code, used = Longs(), Longs(), Longs(), Longs()
    except (ImportError, OSError, AttributeError):
        return by_python
    if _ctypes.sizeof(Long) != 8:  # elsewhere times are not longs
        return by_python
    signals[0], time_limit[1] = 1 << (SIGCHLD - 1), int(FIRST_LOOK * 1e9)
    moment = (signals, 0, time_limit)

    def by_c(pid: int) -> tuple[int, int, float, int]:
        call(sigtimedwait, moment)
        ended = call(wait4, (pid, code, WNOHANG, used))
        return ended, code[0], used[0] + used[2] + (used[1] + used[3]) / 1e6, used[4] * 1024

    return by_c


def waitpid_quietly(pid: int, _: int, options: int) -> int:
    """waitpid as in C: 0 while all children run, -1 where there is none."""
    try:
        return _waitpid(pid, options)[0]
    except ChildProcessError:
        return -1


def waitid_quietly(kind: int, number: int, _: int, options: int) -> int:
    """waitid as in C: -1 where there is no child."""
    try:
        os.waitid(kind, number, options)
        return 0
    except ChildProcessError:
        return -1


# `become_supervisor` takes those of C if it can.
any_child: "Callable[[int, int, int], int]" = waitpid_quietly
look_for_child: "Callable[[int, int, int, int], int]" = waitid_quietly
ended_soon = first_wait()


def become_supervisor() -> None:
    """Be out of reach for the tests, and the parent of every orphan of theirs."""
    global any_child, look_for_child
    # Those of C, since the exception by which Python says "no child" costs more than the call.
    any_child = libc_function("waitpid") or waitpid_quietly
    look_for_child = libc_function("waitid") or waitid_quietly
    prctl = libc_function("prctl")
    if prctl:
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no ptrace, no /proc/1/mem, for the tests share our uid
        if not ALONE:
            prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # PID 1 gets no signals but those it handles; SIGINT has Python's handler, which the children need.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (SIGCHLD, _signal.SIGINT))


class Look:
    """What the processes of a test were seen to be at one moment.

    Attributes:
        cpu: s of all of them.
        delay: s that they waited for a processor, up to the last time that each got one.
        resident: bytes.
        busy: whether one of them wanted a processor, or the disk.
        queued: whether one has waited for a processor since the look before.
    """

    def __init__(self, cpu: float, delay: float, resident: int, busy: bool, queued: bool) -> None:
        self.cpu, self.delay, self.resident, self.busy, self.queued = cpu, delay, resident, busy, queued


class Seen:
    """One process when it was seen last."""

    def __init__(self, ticks: int, faults: int) -> None:
        self.ticks, self.faults = ticks, faults  # of CPU; major page faults
        self.ran = self.delay = 0  # ns of all its threads on a processor, and waiting for one

    def add(self, folder: str) -> None:
        """Add a thread's account; nothing where the kernel keeps none."""
        try:
            fd = os.open(f"{folder}/schedstat", os.O_RDONLY)
        except OSError:
            return
        try:
            ran, delay, _ = os.read(fd, 100).split()
        finally:
            os.close(fd)
        self.ran += int(ran)
        self.delay += int(delay)


class Account:
    """What a test takes of the processor, whichever of its processes does, dead ones included.

    The kernel adds a process to its parent's account when it is waited for, and orphans are waited for by this process.
    One that nobody waits for (its parent ignores SIGCHLD) is in no such account: without a cgroup, of these counts what
    was seen of them. A cgroup's account has them all. The greater account is taken.

    Args:
        group: the cgroup that the test runs in, which is counted from now on; None where there is none.

    Attributes:
        tests: of an assert task, the process id of the tests' process, whose time and memory are not the program's; 0
            of a stdin task.
        tests_cpu: CPU seconds that it took, once it has ended.
    """

    def __init__(self, group: Group | None) -> None:
        self.tests, self.tests_cpu = 0, 0.0
        self.tests_waited = 0.0  # CPU seconds of processes that it has waited for, while it runs
        self.group = group
        self.begun = group.cpu() if group else None  # what the group had taken before the test; None: it is not counted
        self.before = children_cpu()
        self.seen: dict[tuple[str, bytes], Seen] = {}  # by process id and start

    def closed(self) -> float:
        """CPU seconds of a test of which no process is left. The next one begins here."""
        before, self.before = self.before, children_cpu()
        used = self.before - before - self.tests_cpu
        if self.seen:
            used = max(used, sum(seen.ticks for seen in self.seen.values()) / TICK)
            self.seen = {}
        used, self.begun = max(used, self.by_group()), None
        return used

    def passed_first_look(self, pid: int) -> None:
        """A test's only process until now is still there: its group's account counts from here. Shorter tests do not
        pay for it."""
        self.before = children_cpu()
        if self.group:
            used = process_cpu(pid)
            self.begun = self.group.cpu() - used

    def by_group(self) -> float:
        """CPU seconds as the cgroup counts them; 0 where it does not."""
        if self.group is None or self.begun is None:
            return 0.0
        tests = self.tests_cpu or (process_cpu(self.tests) + self.tests_waited if self.tests else 0.0)
        return self.group.cpu() - self.begun - tests

    def look(self) -> Look | None:
        """The processes now; None without /proc, and where there is none.

        A thread in state R wants the CPU. State D may be the disk, or a `vfork` that waits for its child, however long
        that sleeps: it counts where there is no other process, or while pages come from the disk.
        """
        ticks = pages = 0
        busy = queued = False
        try:
            names = (
                [n for n in os.listdir("/proc") if n.isdigit() and n != "1"]
                if ALONE
                else [str(p) for p in descendants()]
            )
        except OSError:
            return None
        for name in names:
            try:
                fields = stat_fields(f"/proc/{name}/stat")
                now, states = Seen(int(fields[11]) + int(fields[12]), int(fields[9])), {fields[0]}
                if int(name) == self.tests:
                    now.ticks, alone = 0, False
                    self.tests_waited = (int(fields[13]) + int(fields[14])) / TICK
                else:
                    ticks += now.ticks + int(fields[13]) + int(fields[14])
                    pages += int(fields[21])
                    alone = len(names) == (2 if self.tests else 1)
                if int(fields[17]) > 1:
                    for thread in os.listdir(f"/proc/{name}/task"):
                        states.add(stat_fields(f"/proc/{name}/task/{thread}/stat")[0])
                        now.add(f"/proc/{name}/task/{thread}")
                else:
                    now.add(f"/proc/{name}")
                busy = busy or b"R" in states or (b"D" in states and alone)
                before = self.seen.get((name, fields[19]))
                if before is not None:
                    busy = busy or (b"D" in states and now.faults > before.faults)
                    waits = now.ran > 0 and (now.ran, now.delay) == (before.ran, before.delay)
                    queued = queued or (b"R" in states and waits)
                    now.delay = max(now.delay, before.delay)  # threads that have ended are no longer there
                self.seen[name, fields[19]] = now
            except (OSError, IndexError):
                continue
        if not names:
            return None
        own, delay = sum(seen.ticks for seen in self.seen.values()), sum(seen.delay for seen in self.seen.values())
        cpu = max(children_cpu() - self.before + ticks / TICK, own / TICK, self.by_group())
        return Look(cpu, delay / 1e9, pages * PAGE, busy, queued)


def children_cpu() -> float:
    """CPU seconds of every process that this one has waited for, and that those have."""
    usage = _getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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


def short_end(pid: int, account: Account) -> "tuple[int, float, int] | None":
    """Wait a moment for a test's process. Most end in it and leave no other, and cost no more than this: all that this
    process touches between two forks has its page copied.

    Args:
        account: of this test, which is closed where the process has ended, and right where it has not.

    Returns:
        (status as of wait4, CPU seconds of the test, peak RSS of its process in bytes); nothing of the test is left.
        None where the process has not ended, and `wait_for` goes on.
    """
    ended, status, cpu, peak = ended_soon(pid)
    if not ended:
        account.passed_first_look(pid)
        return None
    if look_for_child(P_ALL, 0, 0, LEAVE) != -1:
        account.before, account.begun = children_cpu() - cpu, None
        bury()
        cpu = max(cpu, account.closed())
    return status, cpu, peak


def kind_of_end(status: int, cpu: float, job: "Job") -> tuple[int, int]:
    """How a process ended that nobody killed here: the kind, and its exit status or signal. `status`: as of wait4."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return CPU if number == SIGKILL and cpu > job["cpu"] else SIGNALLED, number
    return EXITED, os.WEXITSTATUS(status)


def wait_for(
    pid: int, job: "Job", account: Account, beat: "Callable[[], None]", first_look: float = FIRST_LOOK
) -> tuple[int, int, float, resource.struct_rusage]:
    """Wait for a program's process, and kill it when it, with its children, goes beyond a limit.

    CPU time decides, as the scheduler counts it. RLIMIT_CPU counts ticks, which a busy machine can double, and is used
    only without /proc. The idle limit is for sleepers and counts only moments at which no thread of the test wants the
    CPU, so that a busy machine cannot turn a slow program into a timeout; the moments are random, so that a program
    cannot be awake at just these. The wall limit is far out, for what escapes both, and counts no time in which the
    test waited for a processor. Each test of an assert task has the limits to itself: a new report starts them afresh.

    Args:
        account: of this test; the caller closes it. With a tests' process in it, the end of that one is waited for.
        beat: called now and then.
        first_look: s until the first look at the processes.

    Returns:
        (kind of end, exit status or signal, CPU seconds, what the kernel says that it used), all of the program.
    """
    started = seen = _monotonic()
    idle = base = delay = 0.0
    reported, pause, verdict, next_look = 0, FIRST_LOOK, None, first_look
    main, ended = account.tests or pid, {}
    while True:
        _sigtimedwait(CHILD_ENDED, next_look)
        while (child := _wait4(-1, WNOHANG))[0]:
            if child[0] in (pid, main):  # and no orphan of the program's
                ended[child[0]] = child
            if child[0] == main:
                break
        if main in ended:
            break
        now = _monotonic()
        if now - seen < next_look:
            continue
        pause = min(0.1, pause * 1.5)
        next_look = pause * (0.5 + _random(1)[0] / 256)
        step, seen = min(now - seen, 0.2), now
        beat()
        look = account.look()
        size = os.fstat(REPORT).st_size if account.tests else 0
        if size != reported:  # the next test of an assert task
            reported, idle, started = size, 0.0, now
            if look is not None:
                base, delay = look.cpu, look.delay
            else:
                base = max(base, account.by_group())
        if look is None:
            over = WALL if now - started > job["wall_blind"] else None
            if account.by_group() - base > job["cpu"]:
                over = CPU
        else:
            idle += 0.0 if look.busy else step
            wall = now - started - (look.delay - delay)
            over = over_limit(job, cpu=look.cpu - base, idle=idle, resident=look.resident, wall=wall)
            if over == WALL and look.queued:  # how long is not known before it gets a processor
                over = None
            if over == CPU:  # a child that was waited for while one looked was seen twice, so one looks again
                again = account.look()
                over = CPU if again is None or again.cpu - base > job["cpu"] else None
        if over is not None and verdict is None:
            verdict = over
            kill_all()
            pause = next_look = 0.02
    killed = False
    if account.tests:
        account.tests_cpu = ended[main][2].ru_utime + ended[main][2].ru_stime
        killed = pid not in ended and not ended_by_itself(pid, ended, grace=ended[main][1] == GONE << 8)
    _, status, usage = ended[pid]
    cpu = usage.ru_utime + usage.ru_stime
    if verdict is not None:
        return verdict, 0, cpu, usage
    if account.tests and ended[main][1] not in (0, GONE << 8):
        return TESTS, ended[main][1], cpu, usage
    if killed:  # all tests are done, or it closed its pipes
        return EXITED, 0, cpu, usage
    return *kind_of_end(status, cpu, job), cpu, usage


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
