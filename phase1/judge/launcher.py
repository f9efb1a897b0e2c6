"""Starting sandboxes, one bubblewrap a program, in a small process of its own.

The judge starts one launcher and asks it over a socket for sandboxes. The launcher is small, so its forks are cheap
however large the evaluator is. As root it makes the interpreter reachable for the unprivileged uid by a bind mount in a
mount namespace of its own, so nothing is left behind; it drops the uid *before* bubblewrap, since root is exempt from
RLIMIT_NPROC. It kills every sandbox when the judge is gone, however the judge ended.

It runs isolated and without installed packages (`python -I -S`): this module and what it imports of ours
import nothing but the standard library.

Messages are JSON, one a packet. To the launcher: `{"op": "plan", "plan": Plan}` once, with a file of what runs inside
(BOOT), answered by Cgroups; `{"op": "start", "id", "memory", "headers"}` with the sandbox's end of its socket;
`{"op": "kill", "id"}`. From it, when a sandbox ends: `{"id", "status", "oom", "stderr"}`.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from phase1.judge import cgroup, mounts, seccomp
from phase1.judge.mounts import MS_BIND_ALL, MS_PRIVATE_ALL, libc_call
from phase1.owned import own_name

NOBODY = 65534
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same program gets the same verdict every time
    "MALLOC_ARENA_MAX": "1",  # an arena a thread takes 64 MiB of address space: the 16th would not fit into 1 GiB
    "LD_BIND_NOW": "1",  # a symbol bound before the fork-server forks is not bound again in each test
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
# What the interpreter in the sandbox runs: the modules of phase1/judge/inside/, compiled, from file descriptor 5: u32
# length of the first part, little-endian, that part, and the modules of assert tasks, which the fork-server loads where
# there is one: what is in memory costs every fork. The main one is executed outside the loop: from its eighth turn on,
# Python 3.11 does not count the call of `exec` as a level of recursion (stage.frames_below).
BOOT = """
import builtins, marshal, os, sys
def load(modules):
    for name, code in marshal.loads(modules):
        module = type(sys)(name)
        module.__dict__["__builtins__"] = dict(vars(builtins))  # of its own: a program may patch the real ones
        sys.modules[name] = module
        if name == "__main__":
            module.load_assert_tasks = lambda: load(os.pread(5, 1 << 20, 4 + size))
            return code, module.__dict__
        exec(code, module.__dict__)
size = int.from_bytes(os.pread(5, 4, 0), "little")
exec(*load(os.pread(5, size, 4)))
"""
TMP_BYTES, SHM_BYTES = 64 << 20, 16 << 20
IDLE_CGROUPS = 64
MOUNT_ROOTS = ("/mnt", "/media", "/srv", "/opt")
CLONE_NEWNS = 0x00020000  # linux/sched.h
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class Plan(NamedTuple):
    """How to start every sandbox of a judge."""

    bwrap: str | None  # path of bubblewrap; None: no isolation
    features: list[str]  # the options that this bubblewrap knows
    python: list[str]  # the interpreter and its flags
    mounts: list[list[str]]  # (source, target) of what programs see beside the system
    hidden: list[str]  # folders that they must not see, wherever they lie
    proc: bool  # whether /proc can be mounted
    seccomp: bool
    cgroup: bool  # make a cgroup for each sandbox, where that can be done


class Cgroups(NamedTuple):
    """What the launcher makes for each sandbox."""

    cgroup: str | None  # version of the memory cgroups, "1" or "2"; None where none can be made
    cpu_account: str  # what counts CPU time: "cgroup", all that ran; "processes", what was waited for or seen


class _Running(NamedTuple):
    """A sandbox that runs."""

    id: int  # as the judge calls it
    stderr: int  # file descriptor
    group: cgroup.Cgroup | None


class _Request(NamedTuple):
    """A packet from the judge; an empty one when the judge is gone."""

    data: bytes
    files: list[int]


# ------------------------------------------------------------------------------------------------ calls of the system
def sealed(name: str, data: bytes) -> int:
    """A file in memory with `data` that can no longer be changed, so that all sandboxes may share it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def reopened(fd: int) -> int:
    """The file again, with a position of its own: bubblewrap reads its filter to the end."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def sandbox_argv(plan: Plan, headers: bool = False, root: str | None = None) -> list[str]:
    """The command line of one sandbox.

    Args:
        headers: it sees what a compiler reads.
        root: a folder of a mount namespace of the launcher's own, to put together there what all sandboxes see.

    Raises:
        OSError: that cannot be done there.
    """
    boot = [*plan.python, "-c", BOOT]
    if not plan.bwrap:
        return boot
    args = [plan.bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    wanted = ("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1", "--disable-userns")
    args += [option for option in wanted if option in plan.features]
    if "--hostname" in plan.features:
        args += ["--hostname", "sandbox"]
    shown = mounts.of_every_sandbox(plan.mounts, plan.hidden, plan.proc, headers)
    empty = None
    if root is not None:
        empty = f"{root}/{mounts.EMPTY}"
        os.mkdir(empty, 0o755)
        shown = mounts.put_together(shown, f"{root}/tree")
    args += shown
    if plan.proc:
        args += mounts.of_proc(empty)
    if "--size" in plan.features:  # without a size a program could fill the machine's memory with files
        args += ["--size", str(SHM_BYTES), "--tmpfs", "/dev/shm", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"]
    else:
        args += ["--dir", "/tmp"]
    args += ["--remount-ro", "/", "--chdir", "/tmp"]
    if plan.seccomp:
        args += ["--seccomp", "6"]
    return [*args, "--", *boot]


# ----------------------------------------------------------------------------------------------------------- launcher
class Launcher:
    """Takes requests and starts sandboxes until the judge's end of the socket closes."""

    def __init__(self, channel: socket.socket):
        self.channel, self.parent = channel, os.getppid()
        self.running: dict[int, _Running] = {}  # by pid
        self.idle: list[cgroup.Cgroup] = []  # making one takes longer than starting bubblewrap: they are used again
        self.name = own_name(cgroup.KIND)
        self.drop = os.getuid() == 0
        # Set by the plan, which is the first request:
        self.isolated = True
        self.argv: dict[bool, list[str]] = {}  # by whether a sandbox sees the headers of a compiler
        self.code = -1  # file descriptors of files that nobody can write to any more
        self.filter: int | None = None
        self.cgroups: cgroup.Parent | None = None

    def own_folder(self, sources: list[str]) -> str | None:
        """As root, an empty folder in a mount namespace of the launcher's own, in the place of one that holds none of
        `sources`."""
        free = [r for r in MOUNT_ROOTS if os.path.isdir(r) and not any(s.startswith(r + "/") for s in sources)]
        if not self.drop or not free:
            return None
        try:
            libc_call("unshare", CLONE_NEWNS)
            libc_call("mount", b"none", b"/", None, MS_PRIVATE_ALL, None)
            libc_call("mount", b"tmpfs", free[0].encode(), b"tmpfs", 0, b"mode=755,size=64k")
            return free[0]
        except OSError:  # no CAP_SYS_ADMIN: whether the interpreter can be reached without shows when it is tried
            return None

    def reach(self, sources: list[list[str]], root: str) -> list[list[str]]:
        """The same mounts with sources that uid 65534 can reach, for each is bound into a folder of `own_folder`."""
        reached = []
        for number, (source, target) in enumerate(sources):
            point = f"{root}/{number}"
            os.mkdir(point, 0o755)
            libc_call("mount", os.fsencode(source), point.encode(), None, MS_BIND_ALL, None)
            reached.append([point, target])
        return reached

    def serve(self) -> None:
        """Obey requests until the judge is gone; then end every sandbox and remove the cgroups."""
        libc_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # to wait for what bubblewrap leaves behind
        # Ctrl-C is for the judge to handle; the launcher ends when the judge closes the socket.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        sources: list[socket.socket | int] = [self.channel, wake_r]
        while True:
            ready, _, _ = select.select(sources, [], [], 0.5)
            if os.getppid() != self.parent:
                break
            if wake_r in ready:
                os.read(wake_r, 4096)
                self.reap()
            if self.channel in ready:
                request = self.receive()
                if not request.data:
                    break
                self.obey(request)
        while not self.reap():  # until no child is left
            self.kill_children(self.running)
            time.sleep(0.005)
        self.remove_cgroups()

    def kill_children(self, known: Iterable[int] = ()) -> None:
        """SIGKILL the `known` children, and orphans: a bubblewrap killed while starting leaves its PID 1 to us."""
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(name)
                parent = int(Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[1])
                if parent == os.getpid() and (pid in known or pid not in self.running):
                    os.kill(pid, signal.SIGKILL)

    def receive(self) -> _Request:
        try:
            data, ancillary, _, _ = self.channel.recvmsg(1 << 20, socket.CMSG_SPACE(16))
        except ConnectionError:
            return _Request(b"", [])
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        return _Request(data, list(fds))

    def tell(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self.channel.sendall(json.dumps(message).encode())

    def obey(self, request: _Request) -> None:
        """Do what one request asks for."""
        message = json.loads(request.data)
        if message["op"] == "plan":
            self.prepare(Plan(**message["plan"]), os.pread(request.files[0], 1 << 20, 0))
            os.close(request.files[0])
            account = "cgroup" if self.cgroups and self.cgroups.cpu else "processes"
            self.tell(**Cgroups(self.cgroups and self.cgroups.version, account)._asdict())
        elif message["op"] == "start":
            self.start(message["id"], message["memory"], message["headers"], request.files[0])
            os.close(request.files[0])
        elif message["op"] == "kill":
            for pid, sandbox in self.running.items():
                if sandbox.id == message["id"]:
                    os.kill(pid, signal.SIGKILL)

    def prepare(self, plan: Plan, code: bytes) -> None:
        """Do once what all sandboxes of a plan share. `code`: what runs inside, marshalled (BOOT)."""
        self.code = sealed("code", code)
        program = seccomp.seccomp_filter() if plan.seccomp else None
        self.filter = sealed("seccomp", program) if program else None
        self.cgroups = cgroup.find_parent() if plan.cgroup else None
        if self.cgroups:
            cgroup.remove_left(self.cgroups)
        self.isolated = plan.bwrap is not None
        os.umask(0o022)
        root = self.own_folder([source for source, _ in plan.mounts]) if plan.bwrap else None
        quick = None
        if root is not None:
            with contextlib.suppress(OSError):  # an older kernel: then each sandbox mounts everything itself
                quick = sandbox_argv(plan, root=root)
            with contextlib.suppress(OSError):
                reached = [[f"{root}/tree{t}", t] for _, t in plan.mounts] if quick else self.reach(plan.mounts, root)
                plan = plan._replace(mounts=reached)
        self.argv = {False: quick or sandbox_argv(plan), True: sandbox_argv(plan, headers=True)}

    def start(self, number: int, memory: int, headers: bool, channel: int) -> None:
        """Start a sandbox.

        Args:
            number: by which the judge knows it.
            memory: bytes that its cgroup may hold.
            headers: it sees what a compiler reads.
            channel: file descriptor of its end of the socket to the judge.
        """
        group = next((g for g in self.idle if g.limit == memory and g.empty()), None)
        if group:
            self.idle.remove(group)
        elif self.cgroups:
            with contextlib.suppress(OSError):  # then only the fork-server's samples bound all processes together
                group = cgroup.Cgroup(self.cgroups, f"{self.name}-{number}", memory)
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr", "report")]
        files.append(reopened(self.code))
        if self.filter is not None:
            files.append(reopened(self.filter))
        pid = os.fork()
        if pid == 0:
            try:
                self.become_sandbox(files, channel, group, headers)
            except BaseException as e:
                os.write(2, f"launcher: {e}".encode())
            finally:
                os._exit(125)
        for fd in [*files[:2], *files[3:]]:
            os.close(fd)
        self.running[pid] = _Running(number, files[2], group)

    def become_sandbox(self, files: list[int], channel: int, group: cgroup.Cgroup | None, headers: bool) -> None:
        """In the forked child: give the file descriptors their numbers, enter the cgroup, drop the uid, exec."""
        account = group.enter() if group else None
        wanted = [*files[:3], channel, *files[3:]]
        environment = dict(ENVIRONMENT)
        # The fork-server removes these: with a cgroup it limits resident memory, not address space, and takes the CPU
        # time from the file that it is given.
        if group:
            environment["PHASE1_CGROUP"] = "1"
        if account is not None:
            environment["PHASE1_CPU_ACCOUNT"] = str(len(wanted))
            wanted.append(account)
        # Copied to free numbers first: any fixed ones may be taken, since this process holds a file for each running
        # sandbox.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(wanted)) for fd in wanted]
        for target, fd in enumerate(high):
            os.dup2(fd, target, inheritable=True)
        os.closerange(len(high), 1024)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.umask(0o022)
        if self.drop:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # until bubblewrap asks for it itself
        if not self.isolated:
            os.setsid()
            os.chdir("/")
        argv = self.argv[headers]
        os.execve(argv[0], argv, environment)

    def reap(self) -> bool:
        """Tell the judge of the sandboxes that ended. Returns whether no child is left."""
        killed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                break
            if pid not in self.running:
                continue  # an orphan
            ended = self.running.pop(pid)
            stderr = os.pread(ended.stderr, 400, 0).decode(errors="replace").strip()
            os.close(ended.stderr)
            oom = ended.group is not None and ended.group.out_of_memory()
            if ended.group:
                self.idle.append(ended.group)
            killed = killed or os.WIFSIGNALED(status)
            self.tell(id=ended.id, status=status, oom=oom, stderr=stderr)
        if killed:
            self.kill_children()
        while len(self.idle) > IDLE_CGROUPS and self.idle[0].remove():
            del self.idle[0]
        return False

    def remove_cgroups(self) -> None:
        """Remove them; a group is busy until the kernel no longer counts a process in it."""
        for _ in range(200):  # two seconds
            self.idle = [g for g in self.idle if not g.remove()]
            if not self.idle:
                break
            time.sleep(0.01)


def main(fd: int) -> None:
    """The launcher's process. `fd`: its end of the socket to the judge."""
    channel = socket.socket(fileno=fd)
    channel.set_inheritable(False)
    gc.freeze()  # each sandbox starts as a fork of this process
    gc.disable()
    Launcher(channel).serve()
