"""What the machine has: its GPUs by nvidia-smi, and free ports. Imports no torch, which would take the GPUs' memory."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from phase1.files import BadInput

GIB = 1 << 30
QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total,memory.used", "--format=csv,noheader,nounits")


def amount(size: float) -> str:
    """A number of bytes in GB or MB of a thousand each, as `df -H` counts."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi counts it (by bus id, where CUDA counts by speed unless told otherwise). Memory in MiB."""

    index: int
    name: str
    total_mib: int
    used_mib: int

    @property
    def total_gib(self) -> float:
        return self.total_mib / 1024

    @property
    def free_gib(self) -> float:
        return (self.total_mib - self.used_mib) / 1024


def has_driver() -> bool:
    """Whether nvidia-smi is installed here."""
    return any(os.access(os.path.join(folder, QUERY[0]), os.X_OK) for folder in os.get_exec_path())


def list_gpus() -> tuple[Gpu, ...]:
    """Every GPU of the machine, none where nvidia-smi is not installed.

    Raises:
        BadInput: nvidia-smi is there and does not answer: a broken driver, which is not a machine without GPUs.
    """
    if not has_driver():
        return ()
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=60, check=True).stdout
        rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.strip()]
        return tuple(Gpu(int(index), name, int(total), int(used)) for index, name, total, used in rows)
    except (OSError, ValueError, subprocess.SubprocessError) as e:
        raise BadInput(f"{' '.join(QUERY)}: {e}; see that the driver works") from None


@functools.cache
def known_gpus(path: str | None = None) -> tuple[Gpu, ...]:
    """`list_gpus` once a process, none where the driver is broken: for estimates, which may do without.

    Args:
        path: PATH, so that a changed one is asked anew.
    """
    del path
    try:
        return list_gpus()
    except BadInput:
        return ()


def visible_devices() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names, an index or a UUID each; None where it is not set, [] where it hides all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    return [device.strip() for device in named.split(",") if device.strip() and device.strip() != "-1"]


def usable_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them; none without nvidia-smi.

    Raises:
        BadInput: nvidia-smi is there and does not answer.
    """
    named = visible_devices()
    return [str(gpu.index) for gpu in list_gpus()] if named is None else named


def count_gpus() -> int:
    """How many GPUs this process may use; where nvidia-smi is missing or broken, as many as the driver lists."""
    there = len(known_gpus(os.environ.get("PATH"))) or len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    named = visible_devices()
    return there if named is None else min(there, len(named))


def chosen_gpus() -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; all where it names none by its number."""
    gpus = known_gpus(os.environ.get("PATH"))
    numbers = [int(x) for x in visible_devices() or [] if x.isdecimal() and int(x) < len(gpus)]
    return tuple(gpus[n] for n in numbers) or gpus


def free_ports(count: int) -> list[int]:
    """`count` different ports on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that can still be taken: those of the host, or what a container's own limit leaves.

    Args:
        meminfo: the kernel's account of the host.
        cgroup: where the container's own cgroup is mounted, of version 2 or 1.
    """
    listed = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(listed["MemAvailable"].split()[0]) * 1024
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        *[("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat")],
    ):
        try:
            most, taken = int((cgroup / limit).read_text()), int((cgroup / used).read_text())
            counted = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
        except (OSError, ValueError):  # none, or "max": as much as there is
            continue
        cached = sum(int(counted.get(name, 0)) for name in ("active_file", "inactive_file"))  # given up when needed
        free = min(free, most - taken + cached)
    return max(free, 0)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may keep busy: those it may run on, or the CPU time that a container grants it.

    A container of 32 CPUs on a host of 192 sees all 192, and is throttled when it uses more than its own.

    Args:
        cgroup: where the container's own cgroup is mounted, of version 2 or 1.
    """
    cores = len(os.sched_getaffinity(0))
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and int(period) > 0:  # "max" and -1: as much as there is
            return max(1, min(cores, int(quota) // int(period)))
    return cores
