"""Cgroups, one for each sandbox where they may be made: they bound its memory and count its CPU time. Part of the
launcher: standard library only."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from phase1.owned import left_behind, own_name

KIND = "phase1-judge"
ACCOUNT = {"1": "cpuacct.usage", "2": "cpu.stat"}  # files with the CPU time of a group (inside/group.py reads them)


class Parent(NamedTuple):
    """A memory cgroup in which this process may make children."""

    version: str  # "1" or "2"
    folder: Path
    cpu: Path | None  # where children count CPU time: of version 2 the same, of version 1 another hierarchy's folder


class _Hierarchy(NamedTuple):
    """A mounted hierarchy of cgroups."""

    version: str
    controllers: list[str]  # of version 1
    folders: list[Path]  # this process's, and the topmost one


def find_parent() -> Parent | None:
    """The memory cgroup of this process, or the topmost one, if children can be made there; None elsewhere. Tried by
    making one."""
    hierarchies = _hierarchies()
    for hierarchy in hierarchies:
        if hierarchy.version == "1" and "memory" not in hierarchy.controllers:
            continue
        for folder in hierarchy.folders:
            if _can_hold_children(hierarchy.version, folder):
                counting = [folder]  # version 2 counts in every group, whichever controllers are on
                if hierarchy.version == "1":
                    counting = [f for h in hierarchies if "cpuacct" in h.controllers for f in h.folders]
                cpu = next((f for f in counting if _counts_cpu(hierarchy.version, f)), None)
                return Parent(hierarchy.version, folder, cpu)
    return None


def remove_left(parent: Parent) -> None:
    """Remove the cgroups of launchers that were killed, in this parent's folders and those beside them: a container or
    a job that starts again has another one. A group with a process in it stays, as the kernel will have it."""
    for folder in {parent.folder, parent.cpu or parent.folder}:
        places = {folder}
        if not os.path.ismount(folder):
            with contextlib.suppress(OSError):
                places |= {path for path in folder.parent.iterdir() if path.is_dir()}
        for left in [group for place in places for group in left_behind(place, KIND)]:
            with contextlib.suppress(OSError):
                left.rmdir()


def _hierarchies() -> list[_Hierarchy]:
    """Those that are mounted here, in the order of their mounts."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return []
    paths = {frozenset(names.split(",")): path for _, names, path in (line.split(":", 2) for line in lines)}
    found = []
    for _, target, kind, options, *_ in mounts:
        if kind == "cgroup":
            version, controllers = "1", options.split(",")
            path = next((path for names, path in paths.items() if names <= set(controllers)), None)
        elif kind == "cgroup2":
            version, controllers, path = "2", [], paths.get(frozenset([""]))
        else:
            continue
        if path is not None:
            found.append(_Hierarchy(version, controllers, [Path(target + path), Path(target)]))
    return found


def _can_hold_children(version: str, folder: Path) -> bool:
    if version == "2" and "memory" not in _read(folder / "cgroup.subtree_control").split():
        return False  # children would have no memory controller, and turning it on is the administrator's choice
    trial = folder / own_name(KIND)
    try:
        trial.mkdir()
        (trial / ("memory.limit_in_bytes" if version == "1" else "memory.max")).write_text(str(1 << 30))
        trial.rmdir()
        return True
    except OSError:
        with contextlib.suppress(OSError):
            trial.rmdir()
        return False


def _counts_cpu(version: str, folder: Path) -> bool:
    """Whether a process can enter a child of this cgroup that counts its CPU time. Tried by one that does."""
    trial = folder / own_name(KIND)
    try:
        trial.mkdir(exist_ok=True)
    except OSError:
        return False
    child = os.fork()
    if child == 0:
        try:
            (trial / "cgroup.procs").write_text(str(os.getpid()))
            os._exit(0 if _read(trial / ACCOUNT[version]) else 1)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    for _ in range(100):  # it may be counted for a moment longer
        with contextlib.suppress(OSError):
            trial.rmdir()
            break
        time.sleep(0.01)
    return status == 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class Cgroup:
    """A cgroup for one sandbox at a time; of version 1 two, in two hierarchies. `limit`: bytes, swap included.

    Raises:
        OSError: when it cannot be made.
    """

    def __init__(self, parent: Parent, name: str, limit: int):
        self.version, self.path, self.limit = parent.version, parent.folder / name, limit
        self._kills = 0
        self.cpu = parent.cpu and parent.cpu / name
        self.path.mkdir(exist_ok=True)
        if self.cpu:
            try:
                self.cpu.mkdir(exist_ok=True)
            except OSError:  # then the accounts of the processes count
                self.cpu = None
        if self.version == "1":
            (self.path / "memory.limit_in_bytes").write_text(str(limit))
            with contextlib.suppress(OSError):  # absent where swap accounting is off
                (self.path / "memory.memsw.limit_in_bytes").write_text(str(limit))
        else:
            (self.path / "memory.max").write_text(str(limit))
            with contextlib.suppress(OSError):
                (self.path / "memory.swap.max").write_text("0")

    def enter(self) -> int | None:
        """Move this process into it. Returns a file descriptor of its account of CPU time, for reading only; None where
        it keeps none."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))
        if self.cpu is None:
            return None
        try:
            if self.cpu != self.path:
                (self.cpu / "cgroup.procs").write_text(str(os.getpid()))
            return os.open(self.cpu / ACCOUNT[self.version], os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def empty(self) -> bool:
        """Whether no process is in it. A sandbox that was killed may still be ending, which takes CPU time."""
        return not _read(self.path / "cgroup.procs")

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process in it since the last call."""
        words = _read(self.path / ("memory.oom_control" if self.version == "1" else "memory.events")).split()
        kills = int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0
        before, self._kills = self._kills, kills
        return kills > before

    def remove(self) -> bool:
        """Remove it; False while the kernel still counts a process in it."""
        folders = [folder for folder in (self.path, self.cpu) if folder]
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in folders)
