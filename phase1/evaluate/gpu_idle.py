"""How long the GPUs had nothing to do while an evaluation ran, as NVML (the NVIDIA driver's own library) counts it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from phase1.machine import visible_devices

LIBRARY = "libnvidia-ml.so.1"
LOOK = 0.5  # seconds between two looks; NVML's figure is of the last sixth of a second to second


class _Utilization(ctypes.Structure):
    """Percent of the time since NVML's last sample in which a kernel ran, and memory was read or written."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass
class GpuIdle:
    """Seconds in which a GPU ran nothing, as the mean of those seen; None where NVML tells nothing."""

    seconds: float | None = None


@contextlib.asynccontextmanager
async def watch_gpus() -> AsyncIterator[GpuIdle]:
    """Count while the block runs, over the GPUs that CUDA_VISIBLE_DEVICES names, else all."""
    idle = GpuIdle()
    shares = _shares()
    if shares is None:
        yield idle
        return
    idle.seconds = 0.0
    task = asyncio.create_task(_count(idle, shares))
    try:
        yield idle
    finally:
        task.cancel()


async def _count(idle: GpuIdle, shares: Callable[[], list[float]]) -> None:
    before = time.monotonic()
    while True:
        await asyncio.sleep(LOOK)
        now = time.monotonic()
        if seen := shares():
            idle.seconds = (idle.seconds or 0.0) + (now - before) * (1 - sum(seen) / len(seen))
        before = now


def _shares() -> Callable[[], list[float]] | None:
    """A function that tells each GPU's busy share, 0 to 1; None where there is no NVML or no GPU."""
    try:
        nvml = ctypes.CDLL(LIBRARY)
        if nvml.nvmlInit_v2():
            return None
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        handles = []
        named = visible_devices()
        for device in map(str, range(count.value)) if named is None else named:
            handle = ctypes.c_void_p()
            if device.isdecimal():
                failed = nvml.nvmlDeviceGetHandleByIndex_v2(int(device), ctypes.byref(handle))
            else:
                failed = nvml.nvmlDeviceGetHandleByUUID(device.encode(), ctypes.byref(handle))
            handles += [] if failed else [handle]
    except (OSError, AttributeError):
        return None

    def busy() -> list[float]:
        found = []
        for handle in handles:
            used = _Utilization()
            if not nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(used)):
                found.append(used.gpu / 100)
        return found

    return busy if handles else None
