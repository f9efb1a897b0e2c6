"""BACKGROUND_SAVE=1: a checkpoint on its way from memory to CKPT_DIR, as everybody who meets it has to see it.

verl saves into a staging folder in /dev/shm, training goes on, and `phase1.train.copy_save` copies the checkpoint to
CKPT_DIR/.global_step_N.incoming and renames it. From before verl saves until the copy has ended the kernel's lock on
CKPT_DIR/.saving.lock is held, first by the trainer, then by the copier, which outlives it.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from phase1.contract.state.tracker import step_folders
from phase1.files import BadInput, only_one
from phase1.machine import free_memory
from phase1.train.estimate import checkpoint_bytes

MEMORY_DISK = Path("/dev/shm")
LOCK, FAILED = ".saving.lock", "failed.txt"  # the second in the staging folder: why a copy failed, one line
HALF, ASIDE = ".global_step_{}.incoming", ".global_step_{}.replaced"
SPARE = 256 << 20  # bytes of /dev/shm that a checkpoint leaves to verl's loader workers, beside a twentieth of its size


def staging_folder(ckpt_dir: Path) -> Path:
    """Where checkpoints of CKPT_DIR wait in memory: a name that every start of this user finds again."""
    digest = hashlib.sha256(os.path.realpath(ckpt_dir).encode()).hexdigest()[:12]
    return MEMORY_DISK / f"phase1_save_{os.getuid()}_{digest}"


def make_staging(staging: Path) -> None:
    """Make the folder, for this user alone.

    Raises:
        OSError: it cannot be made, or somebody else made one of that name, or a link.
    """
    staging.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(staging):
        raise PermissionError(f"{staging}: belongs to somebody else")


def _is_ours(staging: Path) -> bool:
    return staging.is_dir() and not staging.is_symlink() and staging.stat().st_uid == os.getuid()


def no_room(parameters: int, master_bytes: int, contents: Collection[str]) -> str:
    """Why a checkpoint cannot be held in memory, "" where it can.

    Args:
        parameters: of the model, on all ranks together.
        master_bytes: of one of them.
        contents: verl's save_contents.
    """
    size = checkpoint_bytes(parameters, master_bytes, contents=contents)
    wanted = size + size // 20 + SPARE
    # While rank 0 writes huggingface/, verl holds all weights in master precision, and the model in bf16.
    beside = parameters * (master_bytes + 2) if "hf_model" in contents else 0
    try:
        free = shutil.disk_usage(MEMORY_DISK).free
    except OSError as e:
        return f"{MEMORY_DISK}: {e.strerror}"
    for name, need, there in ((str(MEMORY_DISK), wanted, free), ("memory", wanted + beside, free_memory())):
        if need > there:
            return f"{need / 1e9:,.1f} GB of {name} are needed for a checkpoint, {there / 1e9:,.1f} GB are free"
    return ""


# ---------------------------------------------------------------------------------------------------------- the lock
def open_lock(ckpt_dir: Path) -> int:
    """A file descriptor of the lock's file, which a child process may be given."""
    return os.open(ckpt_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def take_lock(fd: int, seconds: float) -> bool:
    """Take the lock, waiting up to so many seconds. It ends with the last process that has `fd` open."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)


def copy_ended(ckpt_dir: Path, seconds: float = math.inf) -> bool:
    """Wait until no checkpoint is being copied to CKPT_DIR; what is waited for is said in a line.

    Returns:
        False where it still is after `seconds`.
    """
    lock = ckpt_dir / LOCK
    if not lock.exists():
        return True
    with only_one(lock) as free:
        if free:
            return True
    step = max(step_folders(staging_folder(ckpt_dir)), default=None)
    what = "the last checkpoint" if step is None else f"global_step_{step}"
    limit = "" if math.isinf(seconds) else f" up to {seconds:g} s"
    print(f"{what} is still being copied from memory to {ckpt_dir}: waiting{limit} for it", flush=True)
    with only_one(lock, seconds) as free:
        return free


# ------------------------------------------------------------------------------------------------- what was left behind
def failure_of(staging: Path) -> str:
    """Why the last copy did not come to its end, "" where it did. Asked while nothing is being copied."""
    if not _is_ours(staging):
        return ""
    try:
        return (staging / FAILED).read_text().strip()
    except OSError:
        steps = step_folders(staging)
        return f"global_step_{max(steps)} was not copied from memory to its end: the copier was killed" if steps else ""


def ready_to_start(ckpt_dir: Path, seconds: float) -> None:
    """Before a run begins: wait for the copy of the run before, and remove what a killed one left, a line each.

    Raises:
        BadInput: it is still under way after `seconds`.
    """
    if not copy_ended(ckpt_dir, seconds):
        raise BadInput(
            f"{ckpt_dir}: a checkpoint is still being copied here from memory; start again when it is done, or wait "
            "longer with LOCK_WAIT=seconds"
        )
    for line in remove_leftovers(ckpt_dir):
        print(line, flush=True)


def remove_leftovers(ckpt_dir: Path) -> Iterator[str]:
    """Remove half copies and the staging folder, and put back what a copier moved aside; yields a line for each."""
    for half in sorted(ckpt_dir.glob(HALF.format("*"))):
        shutil.rmtree(half)
        yield f"removed {half}: its copy was cut short, the checkpoints before it are whole"
    for aside in sorted(ckpt_dir.glob(ASIDE.format("*"))):
        target = ckpt_dir / aside.name.removeprefix(".").removesuffix(".replaced")
        if target.exists():
            shutil.rmtree(aside)
        else:  # the copier was killed between its two renames
            os.rename(aside, target)
            yield f"put {target} back: the copy that was to take its place was cut short"
    staging = staging_folder(ckpt_dir)
    if _is_ours(staging):
        why = failure_of(staging)
        shutil.rmtree(staging)
        yield f"removed {staging}{f': {why}' if why else ''}"
