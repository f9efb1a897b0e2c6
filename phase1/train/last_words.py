"""Why a training died: the first exception of the rank that failed first, from the console log, and its cure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_EXCEPTION = re.compile(r"^(?:\[rank(\d+)\]: ?)?((?:\w+\.)*\w*(?:Error|Exception|Exit))(?:: (.*))?$")
_ROOT = re.compile(r"Root Cause \(first observed failure\):.*?rank\s*:\s*(\d+)", re.DOTALL)
# torchrun's own words about an end that has another cause.
_OF_TORCHRUN = ("ChildFailedError", "SignalException", "RendezvousConnectionError", "DistBackendError")
FULL = "the disk is full; free some of it, or set CKPT_DIR to a larger one; a checkpoint cut short is passed over"
# torch.save says no more where the disk is full, and the same of a file system that failed.
UNWRITTEN = "a checkpoint could not be written, most often for want of room (df -h); one cut short is passed over"
# A piece of the exception -> what to do about it. In this order.
CURES = {
    "No space left on device": FULL,
    "PytorchStreamWriter failed": UNWRITTEN,
    "unexpected pos": UNWRITTEN,
    "Disk quota exceeded": "the disk quota is used up; free some of it, or set CKPT_DIR elsewhere",
    "out of memory": "set MAX_TOKENS_PER_GPU (engine) or MICRO_BATCH_SIZE (fsdp) lower, GRADIENT_CHECKPOINTING=True",
    "Bus error": "/dev/shm is too small; start the container with a larger --shm-size, or --ipc=host",
    "insufficient shared memory": "/dev/shm is too small; start the container with a larger --shm-size, or --ipc=host",
    "ModuleNotFoundError": "install the package into the environment of PYTHON",
}


@dataclass(frozen=True)
class Death:
    """An exception and, where it is known, its cure; `rank` is None where the log does not tell."""

    rank: int | None
    exception: str
    cure: str

    def __str__(self) -> str:
        who = "" if self.rank is None else f"rank {self.rank}: "
        return f"{who}{self.exception}{f'; {self.cure}' if self.cure else ''}"


def death_of(log: Path) -> Death | None:
    """The root exception in a console log; None where there is none: a signal, or a killed torchrun.

    An exception that was raised while another one was handled comes after it in a traceback: the first is the root.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = [m for line in text.splitlines() if (m := _EXCEPTION.match(line)) and not m[2].endswith(_OF_TORCHRUN)]
    root = _ROOT.search(text)
    of_root = [m for m in found if root and m[1] == root[1]]
    first = next(iter(of_root or found), None)
    if first is None:
        return None
    exception = f"{first[2]}: {first[3]}" if first[3] else first[2]
    cure = next((cure for piece, cure in CURES.items() if piece in exception), "")
    return Death(int(first[1]) if first[1] else None, exception, cure)
