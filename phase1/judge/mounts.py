"""What programs see of this machine: the arguments for bubblewrap, and a tree in which most of them are carried out
once for all sandboxes. Part of the launcher: standard library only.

Each mount costs every sandbox 0.15 ms. As root the launcher has a mount namespace of its own, so it puts together there
what all sandboxes see alike, and each of them binds that as a whole.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

USR_FOLDERS = ("bin", "lib", "lib32", "lib64")
SHARED = ("zoneinfo",)  # below /usr/share: data of the standard library
# Of /proc, what tells of this machine: its start, disks and devices. What a program may want (cpuinfo, meminfo, stat,
# loadavg) stays, and so does what uname tells as well.
HOST_FILES = ("cmdline", "partitions", "diskstats")
HOST_FOLDERS = ("bus", "driver", "fs")
DEVICES = ("null", "zero", "full", "random", "urandom")
EMPTY = "empty"  # the name of an empty folder beside the tree
MS_BIND_ALL, MS_PRIVATE_ALL = 0x1000 | 0x4000, 0x4000 | 0x40000  # linux/mount.h: MS_BIND, MS_PRIVATE, with MS_REC
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # asm-generic/unistd.h, linux/fcntl.h
READ_ONLY, NO_SUID, NO_DEVICES = 1, 2, 4  # linux/mount.h: MOUNT_ATTR_RDONLY and so on
LIBC = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """`struct mount_attr` of linux/mount.h."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def libc_call(name: str, *args: object) -> None:
    """Call a function of the C library that returns 0 on success. Raises OSError otherwise."""
    if getattr(LIBC, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def usr_folders() -> list[str]:
    """What of /usr programs see: where a distribution and a Python installation put what runs. Container images keep
    checkouts and data elsewhere below it (/usr/src/app)."""
    names = [*USR_FOLDERS, *(f"local/{name}" for name in USR_FOLDERS), *(f"share/{name}" for name in SHARED)]
    return [f"/usr/{name}" for name in names if os.path.exists(f"/usr/{name}")]


def covered(hidden: list[str], shown: list[str]) -> list[str]:
    """Of the folders that programs must not see, those that lie within one that they see."""
    return [path for path in hidden if any(path.startswith(f"{folder}/") for folder in shown)]


def of_the_system() -> list[str]:
    """bwrap arguments that show the system's programs and libraries, nothing of /etc, /home, /var or the project."""
    args = []
    for folder in usr_folders():
        if os.path.islink(folder):
            args += ["--symlink", os.readlink(folder), folder]
        else:
            args += ["--ro-bind", folder, folder]
    for name in ("/bin", "/lib", "/lib64", "/lib32", "/sbin"):
        if os.path.islink(name):
            args += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            args += ["--ro-bind", name, name]
    for name in ("/etc/ld.so.cache", "/etc/alternatives", "/nix/store"):
        if os.path.exists(name):
            args += ["--ro-bind", name, name]
    return args


def of_every_sandbox(mounts: list[list[str]], hidden: list[str], proc: bool, headers: bool) -> list[str]:
    """bwrap arguments for what is the same in all sandboxes.

    Args:
        mounts: (source, target) of what they see beside the system.
        hidden: folders that they must not see.
        proc: whether there is a /proc.
        headers: whether they see what a compiler reads.
    """
    args = of_the_system()
    for folder in ("/usr/include", "/usr/local/include", "/usr/libexec") if headers else ():
        if os.path.isdir(folder):
            args += ["--ro-bind", folder, folder]
    for source, target in mounts:
        args += ["--ro-bind", source, target]
    for path in covered(hidden, [*usr_folders(), *(target for _, target in mounts)]):
        args += ["--tmpfs", path, "--remount-ro", path]
    args += ["--dir", "/dev"]
    for name in DEVICES:
        args += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    if proc:
        args += ["--symlink", "/proc/self/fd", "/dev/fd"]
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            args += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    return args


def of_proc(empty: str | None) -> list[str]:
    """bwrap arguments for a sandbox's own /proc. `empty`: a folder to cover others with; None: a new one for each."""
    args = ["--proc", "/proc"]
    for name in HOST_FILES:
        if os.path.exists(f"/proc/{name}"):
            args += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in HOST_FOLDERS:
        path = f"/proc/{name}"
        if os.path.isdir(path):
            args += ["--tmpfs", path, "--remount-ro", path] if empty is None else ["--ro-bind", empty, path]
    return args


def put_together(args: list[str], root: str) -> list[str]:
    """Do in `root` what `of_every_sandbox` asks of bubblewrap; the caller has a mount namespace of its own.

    Returns:
        The bwrap arguments that show the result.

    Raises:
        OSError: it cannot be done here.
    """
    os.mkdir(root)
    libc_call("mount", b"tmpfs", os.fsencode(root), b"tmpfs", 0, b"mode=755,size=64k")
    rest = iter(args)
    for option in rest:
        source = next(rest) if option in ("--ro-bind", "--dev-bind", "--symlink") else ""
        target = Path(root + next(rest))
        target.parent.mkdir(parents=True, exist_ok=True)
        if not f"{os.path.realpath(target.parent)}/".startswith(f"{root}/"):
            raise OSError(f"{target.parent} is a link out of {root}")
        if option == "--symlink":
            target.symlink_to(source)
        elif option == "--dir":
            target.mkdir()
        elif option == "--tmpfs":
            libc_call("mount", b"tmpfs", os.fsencode(target), b"tmpfs", 0, b"mode=755,size=4k")
        elif option == "--remount-ro":
            _restrict(target, READ_ONLY | NO_SUID | NO_DEVICES)
        else:
            if os.path.isdir(source):
                target.mkdir(exist_ok=True)
            else:
                target.touch()
            libc_call("mount", os.fsencode(source), os.fsencode(target), None, MS_BIND_ALL, None)
            _restrict(target, READ_ONLY | NO_SUID | (NO_DEVICES if option == "--ro-bind" else 0))
    for name in ("proc", "tmp", "dev/shm"):  # where each sandbox mounts its own
        Path(root, name).mkdir()
    _restrict(Path(root), READ_ONLY | NO_SUID)
    return ["--dev-bind", root, "/"]


def _restrict(path: Path, attributes: int) -> None:
    """Restrict a mount and those below it."""
    wanted = MountAttributes(attr_set=attributes)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    libc_call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, ctypes.byref(wanted), size)
