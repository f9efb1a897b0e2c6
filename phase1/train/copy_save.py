"""Copy one checkpoint from memory to CKPT_DIR and publish it whole.

    python -m phase1.train.copy_save /dev/shm/phase1_save_…/global_step_N CKPT_DIR FILES BYTES

Started by patches/phase1_background_save.py in a session of its own, with CKPT_DIR/.saving.lock held for it; it
outlives the trainer. Order: files to CKPT_DIR/.global_step_N.incoming, synced; renamed to global_step_N; verl's tracker
file; the staging folder removed. A step that was saved before is moved aside only once the new one is on the disk.
Where the disk is full, or FILES files of BYTES bytes are no longer in memory, nothing is published, and the staging
folder says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from phase1.contract.state.tracker import TRACKER
from phase1.files import replacing, run_script, write_text
from phase1.train.saving import ASIDE, COPIED, FAILED, HALF, Inventory, forget_copied, inventory

FILES_AT_ONCE = 8
PIECE, SYNC_EVERY = 16 << 20, 256 << 20  # bytes


def main() -> int:
    staged, ckpt_dir = map(Path, sys.argv[1:3])
    files, size = map(int, sys.argv[3:])
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a batch system asks every process of a job to stop
        signal.signal(asked, signal.SIG_IGN)
    os.nice(5)
    return copy_save(staged, ckpt_dir, Inventory(files, size))


def copy_save(staged: Path, ckpt_dir: Path, handed_over: Inventory) -> int:
    """Copy and publish a checkpoint, then remove its staging folder.

    Args:
        staged: the checkpoint in memory.
        ckpt_dir: where it is copied to.
        handed_over: what the trainer left in memory.

    Returns:
        0, or 1 where it could not be written: the staging folder then holds one line that says why, and no checkpoint.
    """
    step = int(staged.name.removeprefix("global_step_"))
    half = ckpt_dir / HALF.format(step)
    try:
        copy_folder(staged, half)
        if inventory(half) != handed_over:
            raise OSError("some of its files vanished from memory before they were copied")
        with replacing(ckpt_dir / TRACKER) as tracker:
            write_through(tracker, str(step))  # before the rename: for it, too, there must be room
            publish(half, ckpt_dir / staged.name, ckpt_dir / ASIDE.format(step))
        sync(ckpt_dir)
    except OSError as e:
        shutil.rmtree(half, ignore_errors=True)
        why = f"{ckpt_dir / staged.name} could not be written: {e.strerror or e}"
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(ckpt_dir).free
            why += f" (a checkpoint of {handed_over.bytes / 1e9:,.2f} GB, {free / 1e9:,.2f} GB free on the disk of "
            why += f"{mount_point(ckpt_dir)})"
        print(f"error: {why}", file=sys.stderr)
        leave_word(staged, why + "\n")
        return 1
    os.rename(staged, staged.with_name(COPIED))  # killed from here on, it has not failed
    forget_copied(staged.parent)
    return 0


def leave_word(staged: Path, why: str) -> None:
    """Write into the staging folder why the copy failed, and remove the checkpoint from it."""
    try:
        write_text(staged.parent / FAILED, why)
        shutil.rmtree(staged, ignore_errors=True)
    except OSError:  # memory is full as well: the checkpoint gives way first
        shutil.rmtree(staged, ignore_errors=True)
        write_text(staged.parent / FAILED, why)


def write_through(path: Path, text: str) -> None:
    """Write a file that is on the disk afterwards."""
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def copy_folder(source: Path, target: Path) -> None:
    """Copy all files below `source`, several at a time; all of them are on the disk afterwards.

    Raises:
        OSError: a file could not be written.
    """
    if target.exists():
        shutil.rmtree(target)
    folders = [source, *(p for p in source.rglob("*") if p.is_dir())]
    for folder in folders:
        (target / folder.relative_to(source)).mkdir()
    files = [p for p in source.rglob("*") if p.is_file()]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for done in [pool.submit(copy_file, p, target / p.relative_to(source)) for p in files]:
            done.result()
    for folder in folders:
        sync(target / folder.relative_to(source))


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to the disk, a piece at a time, so that little of the host's memory holds unwritten pages."""
    piece = memoryview(bytearray(PIECE))
    with open(source, "rb", 0) as read, open(target, "wb", 0) as write:
        unsynced = 0
        while count := read.readinto(piece):
            done = 0
            while done < count:
                done += write.write(piece[done:count])
            unsynced += count
            if unsynced >= SYNC_EVERY:
                to_disk(write.fileno())
                unsynced = 0
        to_disk(write.fileno())


def to_disk(fd: int) -> None:
    """Write a file's pages out, and let the kernel drop them: nobody reads them soon."""
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def publish(half: Path, target: Path, aside: Path) -> None:
    """Give a whole copy its name; a folder of that name is moved aside first and removed afterwards."""
    if target.exists():
        os.rename(target, aside)
    os.rename(half, target)
    sync(target.parent)
    if aside.exists():
        shutil.rmtree(aside)


def sync(folder: Path) -> None:
    """Write a folder's entries to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def mount_point(path: Path) -> Path:
    """Where the file system of a folder is mounted."""
    path = Path(os.path.realpath(path))
    return next(p for p in (path, *path.parents) if os.path.ismount(p))


if __name__ == "__main__":
    run_script(main)
