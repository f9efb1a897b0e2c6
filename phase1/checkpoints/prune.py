"""--prune: delete the checkpoints that nobody needs any more."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from phase1.checkpoints.find import Checkpoint, find_checkpoints
from phase1.checkpoints.keep import remove
from phase1.contract.state.tracker import read_tracker
from phase1.files import now


def prune(checkpoint_dir: Path, *, best: Collection[int], evaluated: Collection[int], dry_run: bool) -> None:
    """Delete every checkpoint that nobody needs, and print what that frees and why each other one stays.

    Args:
        checkpoint_dir: the folder of the global_step_N folders.
        best: steps that stay because they are among the best.
        evaluated: steps whose evaluation is complete; no other one is deleted.
        dry_run: delete nothing, only print.

    Raises:
        OSError: a folder cannot be deleted.
    """
    if not dry_run:
        for half in checkpoint_dir.glob(".global_step_*.removed"):
            shutil.rmtree(half, ignore_errors=True)
    checkpoints = find_checkpoints(checkpoint_dir)
    latest = {read_tracker(checkpoint_dir), max((c.step for c in checkpoints), default=None)}
    total = 0
    for c in checkpoints:
        if why := reason_to_stay(c, best, latest, evaluated):
            print(f"prune: step {c.step} stays: {why}")
            continue
        freed = freed_by(c.path)
        if not dry_run:
            remove(c.path)
        total += freed
        print(f"prune: step {c.step} {'would be deleted' if dry_run else 'deleted'}, {freed / 1e9:.2f} GB", flush=True)
    print(f"prune: {total / 1e9:.2f} GB {'would be freed' if dry_run else 'freed'} at {now()}")


def reason_to_stay(
    c: Checkpoint, best: Collection[int], latest: Collection[int | None], evaluated: Collection[int]
) -> str:
    """Why a checkpoint must not be deleted; empty when it may be."""
    if c.step in best:
        return "one of the best"
    if c.step in latest:  # training resumes there
        return "the latest"
    if c.step not in evaluated:
        return "not evaluated"
    if c.problem:  # its numbers may be those of other weights
        return c.problem
    if pid := user_of(c.path):
        return f"in use by process {pid}"
    return ""


def freed_by(folder: Path) -> int:
    """Bytes that deleting `folder` gives back: files with a hard link elsewhere give nothing."""
    found = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:
            continue
        if path.is_file() and status.st_nlink == 1:
            found += status.st_blocks * 512
    return found


def user_of(folder: Path) -> int | None:
    """A process, not this one, that uses `folder`, as far as we may look; None where none is found.

    It has something in there open or mapped, names it on its command line, or has it as its working directory.
    """
    inside = re.compile(re.escape(str(folder.resolve())) + r"(?!\d)")  # step 50 is not step 500
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()) and any(map(inside.search, _paths_of(process))):
            return int(process.name)
    return None


def _paths_of(process: Path) -> Iterator[str]:
    """What /proc shows of a process: little of another user's, nothing more of one that ends meanwhile."""
    words: list[str] = []
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_text(errors="replace").split("\0")
        yield from words
    with contextlib.suppress(OSError):
        where = os.readlink(process / "cwd")
        yield where
        for word in words:
            yield os.path.normpath(os.path.join(where, word))
    with contextlib.suppress(OSError):
        yield (process / "maps").read_text(errors="replace")
    with contextlib.suppress(OSError):
        yield from [os.readlink(f) for f in (process / "fd").iterdir()]
