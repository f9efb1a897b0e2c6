"""Copy one checkpoint from memory to CKPT_DIR and publish it whole.

    python -m phase1.train.copy_save /dev/shm/phase1_save_…/global_step_N CKPT_DIR FILES BYTES [add_weights]

Started by patches/phase1_background_save.py in a session of its own, with CKPT_DIR/.saving.lock held for it; it
outlives the trainer. Order: files to CKPT_DIR/.global_step_N.incoming, synced; huggingface/'s weights, made from the
shards, where asked for; renamed to global_step_N; verl's tracker file; the staging folder removed. A step that was
saved before is moved aside only once the new one is on the disk. Where the disk is full, or FILES files of BYTES bytes
are no longer in memory, nothing is published, and the staging folder says why. It does so too where the shards do not
make the weights; the checkpoint is published without them then.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from phase1.contract.state.tracker import TRACKER
from phase1.files import replacing, run_script, write_text
from phase1.train.saving import ADD_WEIGHTS, ASIDE, COPIED, FAILED, HALF, Inventory, forget_copied, inventory

FILES_AT_ONCE = 8
PIECE, SYNC_EVERY = 16 << 20, 256 << 20  # bytes
WEIGHTS_A_FILE = 5 * 10**9  # bytes, as transformers 4 splits them


def main() -> int:
    staged, ckpt_dir = map(Path, sys.argv[1:3])
    files, size = map(int, sys.argv[3:5])
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a batch system asks every process of a job to stop
        signal.signal(asked, signal.SIG_IGN)
    os.nice(5)
    return copy_save(staged, ckpt_dir, Inventory(files, size), add_weights=sys.argv[5:] == [ADD_WEIGHTS])


def copy_save(staged: Path, ckpt_dir: Path, handed_over: Inventory, *, add_weights: bool) -> int:
    """Copy and publish a checkpoint, then remove its staging folder.

    Args:
        staged: the checkpoint in memory.
        ckpt_dir: where it is copied to.
        handed_over: what the trainer left in memory.
        add_weights: make huggingface/'s weights from the shards.

    Returns:
        0, or 1 where it could not be written, or its weights not made: the staging folder then holds one line that says
        why, and no checkpoint.
    """
    step = int(staged.name.removeprefix("global_step_"))
    half, not_made = ckpt_dir / HALF.format(step), ""
    try:
        copy_folder(staged, half)
        if inventory(half) != handed_over:
            raise OSError("some of its files vanished from memory before they were copied")
        if add_weights:
            try:
                write_weights(staged, half / "huggingface")
            except OSError:
                raise
            except Exception as e:  # whatever it is, the shards are whole and must not be lost
                for weights in (half / "huggingface").glob("*.safetensors*"):
                    weights.unlink()  # a file has its full size before it has its values
                published = str(ckpt_dir / staged.name)
                words = " ".join(str(e).split()) or type(e).__name__
                not_made = words.replace(str(staged), published).replace(str(half), published)
        with replacing(ckpt_dir / TRACKER) as tracker:
            write_through(tracker, str(step))  # before the rename: for it, too, there must be room
            publish(half, ckpt_dir / staged.name, ckpt_dir / ASIDE.format(step))
        sync(ckpt_dir)
    except OSError as e:
        shutil.rmtree(half, ignore_errors=True)
        why = f"{ckpt_dir / staged.name} could not be written: {e.strerror or e}"
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(ckpt_dir).free
            size = f"{handed_over.bytes / 1e9:,.2f} GB{' and the weights of huggingface/' if add_weights else ''}"
            why += f" (a checkpoint of {size}, {free / 1e9:,.2f} GB free on the disk of "
            why += f"{mount_point(ckpt_dir)})"
        print(f"error: {why}", file=sys.stderr)
        leave_word(staged, why + "\n")
        return 1
    if not_made:
        why = f"{ckpt_dir / staged.name} is saved, but its huggingface/ not made: {not_made}; set BACKGROUND_SAVE=0"
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


def write_weights(checkpoint: Path, folder: Path) -> None:
    """Make the weights of a Hugging Face folder from a checkpoint's shards, in the precision that the shards have.

    Args:
        checkpoint: has the shards of all ranks.
        folder: has the model's config.json, as verl wrote it.

    Raises:
        OSError: a file could not be written.
        BadInput: the shards do not belong together, or are not those of such a model.
    """
    # Only here, once the shards are on the disk: torch takes two seconds.
    import torch

    from phase1.model.matches_config import check_shapes, tensors_to_write
    from phase1.model.shapes import expected_tensors
    from phase1.model.shards import find_shards, read_shards
    from phase1.model.small_files import read_object
    from phase1.model.writing import write_safetensors

    torch.set_num_threads(1)  # writing has threads of its own, and training needs the cores
    path = folder / "config.json"
    config = read_object(path)
    expected = expected_tensors(config, path)
    tensors = tensors_to_write(read_shards(find_shards(checkpoint), lambda: expected.needed), config)
    check_shapes(tensors, expected, path)
    dtype = next(tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point)
    write_safetensors(folder, tensors, dtype=dtype, max_file_bytes=WEIGHTS_A_FILE, progress=lambda written: None)
    for name in ("dtype", "torch_dtype"):  # of transformers 5 and 4
        if name in config:  # verl's own save says so whatever the weights are: it is what they are to be loaded as
            config[name] = "bfloat16"
    write_through(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
    sync(folder)


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
