"""Memory cgroups, one for each sandbox where they may be made. Part of the launcher: standard library only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Parent(NamedTuple):
    """A memory cgroup in which this process may make children."""

    version: str  # "1" or "2"
    folder: Path


def find_parent() -> Parent | None:
    """The memory cgroup of this process, or the topmost one, if children can be made there; None elsewhere. Tried by
    making one."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    for _, target, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            version = "1"
            path = next((p for controllers, p in paths.items() if "memory" in controllers.split(",")), None)
        elif kind == "cgroup2":
            version, path = "2", paths.get("")
        else:
            continue
        for folder in () if path is None else (Path(target + path), Path(target)):
            if _can_hold_children(version, folder):
                return Parent(version, folder)
    return None


def _can_hold_children(version: str, folder: Path) -> bool:
    if version == "2" and "memory" not in _read(folder / "cgroup.subtree_control").split():
        return False  # children would have no memory controller, and turning it on is the administrator's choice
    trial = folder / f"phase1-judge-{os.getpid()}"
    try:
        trial.mkdir()
        (trial / ("memory.limit_in_bytes" if version == "1" else "memory.max")).write_text(str(1 << 30))
        trial.rmdir()
        return True
    except OSError:
        with contextlib.suppress(OSError):
            trial.rmdir()
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class Cgroup:
    """A memory cgroup for one sandbox at a time. `limit`: bytes, swap included.

    Raises:
        OSError: when it cannot be made.
    """

    def __init__(self, parent: Parent, name: str, limit: int):
        self.version, self.path, self.limit = parent.version, parent.folder / name, limit
        self._kills = 0
        self.path.mkdir(exist_ok=True)
        if self.version == "1":
            (self.path / "memory.limit_in_bytes").write_text(str(limit))
            with contextlib.suppress(OSError):  # absent where swap accounting is off
                (self.path / "memory.memsw.limit_in_bytes").write_text(str(limit))
        else:
            (self.path / "memory.max").write_text(str(limit))
            with contextlib.suppress(OSError):
                (self.path / "memory.swap.max").write_text("0")

    def enter(self) -> None:
        """Move this process into it."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process in it since the last call."""
        words = _read(self.path / ("memory.oom_control" if self.version == "1" else "memory.events")).split()
        kills = int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0
        before, self._kills = self._kills, kills
        return kills > before

    def remove(self) -> bool:
        """Remove it; False while the kernel still counts a process in it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()
