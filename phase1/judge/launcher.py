"""Starting sandboxes: which interpreter, which isolation, one bubblewrap a program.

The judge starts one launcher process (this file as a script) and asks it over a socket for sandboxes. The launcher is
small, so its forks are cheap however large the evaluator is; as root it makes the interpreter reachable for the
unprivileged uid by a bind mount in a mount namespace of its own, so nothing is left behind; it drops the uid *before*
bubblewrap, since root is exempt from RLIMIT_NPROC; and it kills every sandbox when the judge is gone, SIGKILL included.

    python -I -S phase1/judge/launcher.py FD       # not for people: the judge runs it
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

NOBODY = 65534
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same program gets the same verdict every time
    "MALLOC_ARENA_MAX": "1",  # an arena a thread takes 64 MiB of address space: threads would die at 15 under 1 GiB
    "LD_BIND_NOW": "1",  # a symbol bound before the fork-server forks is not bound again in each test
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
BOOT = """
import builtins, marshal, os, sys
for name, code in marshal.loads(os.pread(5, 1 << 20, 0)):
    module = type(sys)(name)
    module.__dict__["__builtins__"] = dict(vars(builtins))  # of its own: a program may patch the real ones
    sys.modules[name] = module
    if name == "__main__":
        os.close(5)
    exec(code, module.__dict__)
"""
TMP_BYTES, SHM_BYTES = 64 << 20, 16 << 20
# Optional packages that contest programs use; each is shown to them where the judge's own environment has it.
PROGRAM_PACKAGES = ("numpy", "scipy", "sortedcontainers")
IDLE_CGROUPS = 64
MOUNT_ROOTS = ("/mnt", "/media", "/srv", "/opt")


# ----------------------------------------------------------------------------------------------------- system calls
LIBC = ctypes.CDLL(None, use_errno=True)


def libc_call(name: str, *args: object) -> None:
    """A libc function that returns 0 on success; OSError otherwise."""
    if getattr(LIBC, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def sealed(name: str, data: bytes) -> int:
    """A file in memory with `data` that can no longer be changed, so that all sandboxes may share it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def reopened(fd: int) -> int:
    """The file again, with a position of its own: bubblewrap reads its filter to the end."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


# ------------------------------------------------------------------------------------------------------ what to mount
def system_mounts() -> list[str]:
    """bwrap arguments that show /usr and the loader's paths, nothing of /etc, /home, /var or the project."""
    args = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/lib", "/lib64", "/lib32", "/sbin"):
        if os.path.islink(name):
            args += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            args += ["--ro-bind", name, name]
    for name in ("/etc/ld.so.cache", "/etc/alternatives", "/nix/store"):
        if os.path.exists(name):
            args += ["--ro-bind", name, name]
    return args


def bwrap_argv(plan: dict) -> list[str]:
    """The command line of one sandbox for a plan (`sandbox.LocalSandbox` makes it): interpreter, mounts, features."""
    features = set(plan["features"])
    args = [plan["bwrap"], "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    args += [
        a
        for a in ("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1", "--disable-userns")
        if a in features
    ]
    args += [*system_mounts()]
    for source, target in plan["mounts"]:
        args += ["--ro-bind", source, target]
    args += ["--dir", "/dev"]
    for name in ("null", "zero", "full", "random", "urandom"):
        args += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    if plan["proc"]:
        args += ["--proc", "/proc", "--symlink", "/proc/self/fd", "/dev/fd"]
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            args += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    if "--size" in features:  # without a size a program could fill the machine's memory with files
        args += ["--size", str(SHM_BYTES), "--tmpfs", "/dev/shm", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"]
    else:
        args += ["--dir", "/tmp"]
    args += ["--remount-ro", "/", "--chdir", "/tmp"]
    if plan["filter"]:
        args += ["--seccomp", "6"]
    return [*args, "--", *plan["python"], "-c", BOOT]


# ------------------------------------------------------------------------------------------------------------ cgroups
def own_cgroup() -> tuple[str, Path] | None:
    """(version "1" or "2", directory) of a memory cgroup in which this process may make children; None elsewhere."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [m.split() for m in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    for _, target, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            path = next((p for c, p in paths.items() if "memory" in c.split(",")), None)
            candidates = [] if path is None else [("1", Path(target + path)), ("1", Path(target))]
        elif kind == "cgroup2" and "" in paths:
            candidates = [("2", Path(target + paths[""])), ("2", Path(target))]
        else:
            continue
        for version, folder in candidates:
            if version == "2" and "memory" not in _read(folder / "cgroup.subtree_control").split():
                # its children would have no memory controller, and turning it on is the administrator's choice
                continue
            trial = folder / f"phase1-judge-{os.getpid()}"
            try:
                trial.mkdir()
                limit = trial / ("memory.limit_in_bytes" if version == "1" else "memory.max")
                limit.write_text(str(1 << 30))
                trial.rmdir()
                return version, folder
            except OSError:
                with contextlib.suppress(OSError):
                    trial.rmdir()
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class Cgroup:
    """A memory cgroup for one sandbox."""

    def __init__(self, version: str, parent: Path, name: str, limit: int):
        self.version, self.path, self.limit, self.seen = version, parent / name, limit, 0
        self.path.mkdir(exist_ok=True)
        if version == "1":
            (self.path / "memory.limit_in_bytes").write_text(str(limit))
            with contextlib.suppress(OSError):  # absent where swap accounting is off
                (self.path / "memory.memsw.limit_in_bytes").write_text(str(limit))
        else:
            (self.path / "memory.max").write_text(str(limit))
            with contextlib.suppress(OSError):
                (self.path / "memory.swap.max").write_text("0")

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process in it since the last call."""
        words = _read(self.path / ("memory.oom_control" if self.version == "1" else "memory.events")).split()
        kills = int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0
        before, self.seen = self.seen, kills
        return kills > before

    def remove(self) -> bool:
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


# ----------------------------------------------------------------------------------------------------------- launcher
class Launcher:
    """The launcher process's side: requests in, sandboxes out, until the judge's end of the socket closes."""

    def __init__(self, channel: socket.socket):
        self.channel, self.parent = channel, os.getppid()
        self.running: dict[int, tuple[int, int, Cgroup | None]] = {}  # pid -> (id, fd of its stderr, cgroup)
        self.idle: list[Cgroup] = []  # making one takes longer than starting bubblewrap, so they are used again
        self.plan: dict = {}
        self.code = -1
        self.filter: int | None = None  # descriptors of files that nobody can write to any more
        self.drop = os.getuid() == 0
        self.cgroup: tuple[str, Path] | None = None

    def reach(self, mounts: list[list[str]]) -> list[list[str]]:
        """Mounts whose sources uid 65534 can reach: as root, each is bound into a tmpfs of a private mount
        namespace."""
        if not self.drop or not mounts:
            return mounts
        root = next(
            (r for r in MOUNT_ROOTS if os.path.isdir(r) and not any(m[0].startswith(r + "/") for m in mounts)), None
        )
        if root is None:
            return mounts
        try:
            libc_call("unshare", 0x00020000)  # CLONE_NEWNS
            libc_call("mount", b"none", b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
            libc_call("mount", b"tmpfs", root.encode(), b"tmpfs", 0, b"mode=755,size=64k")
            reached = []
            for number, (source, target) in enumerate(mounts):
                point = f"{root}/{number}"
                os.mkdir(point, 0o755)
                libc_call("mount", os.fsencode(source), point.encode(), None, 0x1000, None)  # MS_BIND
                reached.append([point, target])
            return reached
        except OSError:  # no CAP_SYS_ADMIN: the probes will tell whether the interpreter can be reached without
            return mounts

    def serve(self) -> None:
        libc_call("prctl", 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what bubblewrap leaves behind is ours to wait for
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C is the judge's to handle; we end when it closes the socket
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
                data, fds = self.receive()
                if not data:
                    break
                self.obey(json.loads(data), fds)
        while not self.reap():  # until no child is left
            self.kill_children(self.running)
            time.sleep(0.005)
        self.remove_cgroups()

    def kill_children(self, known: Iterable[int] = ()) -> None:
        """SIGKILL the `known` children, and the orphans: a bubblewrap killed while starting leaves its PID 1 to us."""
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(name)
                parent = int(Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[1])
                if parent == os.getpid() and (pid in known or pid not in self.running):
                    os.kill(pid, signal.SIGKILL)

    def receive(self) -> tuple[bytes, list[int]]:
        try:
            data, ancillary, _, _ = self.channel.recvmsg(1 << 20, socket.CMSG_SPACE(16))
        except ConnectionError:
            return b"", []
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        return data, list(fds)

    def tell(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self.channel.sendall(json.dumps(message).encode())

    def obey(self, request: dict, fds: list[int]) -> None:
        if request["op"] == "plan":
            self.plan = request["plan"]
            self.code = sealed("code", bytes.fromhex(request["code"]))
            program = bytes.fromhex(self.plan["filter"])
            self.filter = sealed("seccomp", program) if program else None
            self.plan["mounts"] = self.reach(self.plan["mounts"])
            self.cgroup = own_cgroup() if self.plan["cgroup"] else None
            self.argv = bwrap_argv(self.plan) if self.plan["bwrap"] else [*self.plan["python"], "-c", BOOT]
            self.tell(cgroup=self.cgroup and self.cgroup[0])
        elif request["op"] == "start":
            self.start(request, fds[0])
            os.close(fds[0])
        elif request["op"] == "kill":
            for pid, (number, *_) in self.running.items():
                if number == request["id"]:
                    os.kill(pid, signal.SIGKILL)

    def start(self, request: dict, channel: int) -> None:
        number = request["id"]
        group = next((g for g in self.idle if g.limit == request["memory"]), None)
        if group:
            self.idle.remove(group)
        elif self.cgroup:
            with contextlib.suppress(OSError):  # then only the fork-server's samples bound all processes together
                group = Cgroup(*self.cgroup, f"phase1-judge-{os.getpid()}-{number}", request["memory"])
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr", "report")]
        files.append(reopened(self.code))
        if self.filter is not None:
            files.append(reopened(self.filter))
        pid = os.fork()
        if pid == 0:
            try:
                self.become_sandbox(files, channel, group)
            except BaseException as e:
                os.write(2, f"launcher: {e}".encode())
            finally:
                os._exit(125)
        for fd in [*files[:2], *files[3:]]:
            os.close(fd)
        self.running[pid] = (number, files[2], group)

    def become_sandbox(self, files: list[int], channel: int, group: Cgroup | None) -> None:
        """In the forked child: descriptors to their numbers, cgroup, uid, exec."""
        if group:
            group.enter()
        wanted = [*files[:3], channel, *files[3:]]
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
        libc_call("prctl", 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, until bubblewrap sees to it itself
        if not self.plan["bwrap"]:
            os.setsid()
            os.chdir("/")
        # The fork-server takes it out again: with a cgroup it limits resident memory, not address space.
        os.execve(self.argv[0], self.argv, {**ENVIRONMENT, **({"PHASE1_CGROUP": "1"} if group else {})})

    def reap(self) -> bool:
        """Tell the judge of the sandboxes that ended; whether no child is left."""
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
            number, err, group = self.running.pop(pid)
            words = os.pread(err, 400, 0).decode(errors="replace").strip()
            os.close(err)
            oom = group is not None and group.out_of_memory()
            if group:
                self.idle.append(group)
            killed = killed or os.WIFSIGNALED(status)
            self.tell(id=number, status=status, oom=oom, stderr=words)
        if killed:
            self.kill_children()
        while len(self.idle) > IDLE_CGROUPS and self.idle[0].remove():
            del self.idle[0]
        return False

    def remove_cgroups(self) -> None:
        """The last act; a group is busy until the kernel has buried its processes."""
        for _ in range(200):
            self.idle = [g for g in self.idle if not g.remove()]
            if not self.idle:
                break
            time.sleep(0.01)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    gc.freeze()  # each sandbox starts as a fork of this process
    gc.disable()
    Launcher(channel).serve()


if __name__ == "__main__":
    main()
