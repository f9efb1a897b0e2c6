"""BACKGROUND_SAVE=1: a checkpoint on its way from memory to CKPT_DIR, as everybody who meets it has to see it.

verl saves into a staging folder in /dev/shm, training goes on, and `phase1.train.copy_save` copies the checkpoint to
CKPT_DIR/.global_step_N.incoming, adds huggingface/'s weights, made from the shards, and renames it. From before verl
saves until the copy has ended the kernel's lock on CKPT_DIR/.saving.lock is held, first by the trainer, then by the
copier, which outlives it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from phase1.contract.state.tracker import TRACKER, read_tracker, step_folders
from phase1.files import BadInput, only_one
from phase1.machine import free_memory
from phase1.train.estimate import checkpoint_bytes

MEMORY_DISK = Path("/dev/shm")
LOCK = ".saving.lock"
# In the staging folder: why a copy failed, one line; and what a published checkpoint is called while it is removed.
FAILED, COPIED = "failed.txt", "copied"
HALF, ASIDE = ".global_step_{}.incoming", ".global_step_{}.replaced"
ADD_WEIGHTS = "add_weights"  # the copier's last word: huggingface/'s weights are to be made from the shards
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


@dataclass(frozen=True)
class Inventory:
    """How many files a folder holds, and how many bytes they have together."""

    files: int
    bytes: int


def inventory(folder: Path) -> Inventory:
    """Count what lies in a folder, and below it."""
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return Inventory(len(sizes), sum(sizes))


def copier_command(staged: Path, ckpt_dir: Path, handed_over: Inventory, *, add_weights: bool) -> list[str]:
    """The command line of the copier.

    Args:
        staged: the checkpoint in memory.
        ckpt_dir: where it is copied to.
        handed_over: what it holds now; what vanishes before it is copied is missed then.
        add_weights: make huggingface/'s weights from the shards.
    """
    words = [str(staged), os.path.realpath(ckpt_dir), str(handed_over.files), str(handed_over.bytes)]
    return [sys.executable, "-m", "phase1.train.copy_save", *words, *([ADD_WEIGHTS] if add_weights else [])]


def in_memory(contents: Collection[str]) -> list[str]:
    """What of verl's save_contents goes through memory.

    huggingface/'s weights are those of the shards once more: gathering them holds training up for longer than all the
    rest (35 s of a 7B model's 94 s on two H200), and the copier can make them as well.
    """
    return [content for content in contents if content != "hf_model" or "model" not in contents]


def no_room(parameters: int, master_bytes: int, contents: Collection[str], to_be_freed: int = 0) -> str:
    """Why a checkpoint cannot be held in memory, "" where it can.

    Args:
        parameters: of the model, on all ranks together.
        master_bytes: of one of them.
        contents: verl's save_contents, of which `in_memory` is held there.
        to_be_freed: bytes in memory that count as free.
    """
    contents = in_memory(contents)
    size = checkpoint_bytes(parameters, master_bytes, contents=contents)
    wanted = size + size // 20 + SPARE
    # While rank 0 writes huggingface/, verl holds all weights in master precision, and the model in bf16.
    beside = parameters * (master_bytes + 2) if "hf_model" in contents else 0
    try:
        free = shutil.disk_usage(MEMORY_DISK).free + to_be_freed
    except OSError as e:
        return f"{MEMORY_DISK}: {e.strerror}"
    for name, need, there in (
        (str(MEMORY_DISK), wanted, free),
        ("memory", wanted + beside, free_memory() + to_be_freed),
    ):
        if need > there:
            return f"{need / 1e9:,.1f} GB of {name} are needed for a checkpoint, {there / 1e9:,.1f} GB are free"
    return ""


def memory_filled(step: int) -> str:
    """Why a rank could not save into memory: others filled it after `no_room` had looked. "" where there is room."""
    with contextlib.suppress(OSError):
        if (free := shutil.disk_usage(MEMORY_DISK).free) < SPARE // 2:
            return f"global_step_{step} could not be saved to memory, {free / 1e9:,.2f} GB are free in {MEMORY_DISK}"
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
    if not steps:
        return ""
    if read_tracker(staging) != max(steps):  # verl's last word on a save
        return f"global_step_{max(steps)} was not saved to memory to its end"
    return f"global_step_{max(steps)} was not copied from memory to its end: the copier was killed"


def forget_copied(staging: Path) -> None:
    """Free the memory of a checkpoint that was published, whose copier was killed before it had. Asked as above."""
    if _is_ours(staging) and (staging / COPIED).exists():
        shutil.rmtree(staging / COPIED)
        with contextlib.suppress(OSError):  # another checkpoint is in there
            (staging / TRACKER).unlink(missing_ok=True)
            staging.rmdir()


def left_in_memory(ckpt_dir: Path) -> int:
    """Bytes of /dev/shm that an ended run's checkpoint still takes, and the next start frees."""
    staging = staging_folder(ckpt_dir)
    return inventory(staging).bytes if _is_ours(staging) else 0


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
    show_removed(ckpt_dir)


def show_removed(ckpt_dir: Path) -> None:
    """Remove what a killed run or copier left, a line each. Asked while nothing is being copied."""
    for line in remove_leftovers(ckpt_dir):
        print(line, flush=True)


def remove_leftovers(ckpt_dir: Path) -> Iterator[str]:
    """Remove half copies and the staging folder, and put back what a copier moved aside; yields a line for each."""
    for half in ckpt_dir.glob(f".{TRACKER}.*.tmp"):
        shutil.rmtree(half)
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
