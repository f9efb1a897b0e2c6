"""What must not be lost: the best checkpoints' models as hard links under outputs/kept/, and --prune of what may go.

outputs/kept/global_step_N/huggingface/    hard links (copies from another file system) of the K best, and of the one
                                           that is being evaluated, so that verl's rotation cannot delete it
outputs/kept/global_step_N/kept.json       where it came from, how, its fingerprint
outputs/best_model                         a relative link to the best one's huggingface/, swapped by one rename
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from phase1.checkpoints.find import Checkpoint, read_tracker, step_folders
from phase1.files import BadInput, fingerprint, now, read_json, replacing, run_stamp, write_json

# No hard link to be had: another file system, a file system without them, one link too many.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


def kept_folder(output_dir: Path, step: int) -> Path:
    return output_dir / "kept" / f"global_step_{step}"


def kept_model(output_dir: Path, step: int) -> Path | None:
    """The kept model of a step, None where there is none or its files are no longer those that were kept."""
    home = kept_folder(output_dir, step)
    try:
        if read_json(home / "kept.json")["fingerprint"] == fingerprint(home / "huggingface"):
            return home / "huggingface"
    except (BadInput, OSError, KeyError, TypeError):
        pass
    return None


def keep(model: Path, output_dir: Path, step: int, copy: bool = True) -> Path | None:
    """Keep `model`, an HF directory, and return where; None where it would have to be copied and `copy` is False.

    The kept folder appears whole or not at all. BadInput when the model changes meanwhile; OSError when it vanishes or
    the disk is full.
    """
    seen = fingerprint(model)
    if (kept := kept_model(output_dir, step)) and fingerprint(kept) == seen:
        return kept
    files = sorted(p for p in model.rglob("*") if p.is_file())
    home, linked = kept_folder(output_dir, step), True
    try:
        with replacing(home) as temp:
            for path in files:
                target = temp / "huggingface" / path.relative_to(model)
                target.parent.mkdir(parents=True, exist_ok=True)
                linked = _link_or_copy(path, target, copy) and linked
            if not files or fingerprint(temp / "huggingface") != seen:
                raise BadInput(f"{model}: changed while it was being kept; look again when nothing writes to it")
            write_json(
                temp / "kept.json",
                {
                    "step": step,
                    "source": str(model),
                    "how": "hard links" if linked else "copy",
                    "fingerprint": seen,
                    "bytes": sum(p.stat().st_size for p in files),
                    "stamp": run_stamp({}),
                },
            )
    except _WouldCopy:
        return None
    return home / "huggingface"


class _WouldCopy(Exception):
    """Leaves `replacing` without keeping anything."""


def _link_or_copy(path: Path, target: Path, copy: bool) -> bool:
    try:
        os.link(path.resolve(), target)  # of a link its file: a relative link would lead nowhere from here
        return True
    except OSError as e:
        if e.errno not in NO_LINK:
            raise
    if not copy:
        raise _WouldCopy
    shutil.copy2(path, target)
    with open(target, "rb") as f:
        os.fsync(f.fileno())
    return False


def point_best_model(output_dir: Path, model: Path | None) -> None:
    """Make outputs/best_model lead to `model`, None: to nothing. A reader finds the old one or the new one."""
    link, temp = output_dir / "best_model", output_dir / ".best_model.tmp"
    if link.exists() and not link.is_symlink():
        raise BadInput(f"{link}: is no link of this script; move it away, the best model is to be linked there")
    if model is None:
        link.unlink(missing_ok=True)
        return
    temp.unlink(missing_ok=True)
    temp.symlink_to(os.path.relpath(model, output_dir))
    os.replace(temp, link)


def release(output_dir: Path, wanted: Collection[int]) -> None:
    """Remove what is kept of all other steps, and what a kill left half-made. Only under the lock of the output
    directory."""
    for step, home in step_folders(output_dir / "kept").items():
        if step not in wanted:
            remove(home)
    for half in (output_dir / "kept").glob(".*"):
        shutil.rmtree(half, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a folder; it loses its name first, so that nobody reads half of it."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(folder, hidden)
    shutil.rmtree(hidden)


# ------------------------------------------------------------------------------------------------------------- prune
def prunable(
    checkpoints: list[Checkpoint], checkpoint_dir: Path, keep_steps: Collection[int], evaluated: Collection[int]
) -> Iterator[tuple[Checkpoint, str, int]]:
    """(checkpoint, why it stays or empty, bytes that deleting it frees) of every checkpoint, oldest first.

    Only what is evaluated goes; the best ones, the latest (training resumes there) and those in use stay.
    """
    latest = {read_tracker(checkpoint_dir), max((c.step for c in checkpoints), default=None)}
    for c in checkpoints:
        if c.step in keep_steps:
            why = "one of the best"
        elif c.step in latest:
            why = "the latest"
        elif c.step not in evaluated:
            why = "not evaluated"
        elif pid := user_of(c.path):
            why = f"in use by process {pid}"
        else:
            why = ""
        yield c, why, freed_by(c.path)


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
    """A process that has `folder` or something in it open, mapped, on its command line or as its working directory, as
    far as we may look; ourselves left out."""
    inside = re.compile(re.escape(str(folder.resolve())) + r"(?!\d)")  # step 50 is not step 500
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()) and any(map(inside.search, _paths_of(process))):
            return int(process.name)
    return None


def _paths_of(process: Path) -> Iterator[str]:
    """What a process says of itself in /proc; another user's says little, one that ends meanwhile nothing more."""
    with contextlib.suppress(OSError):
        yield from (process / "cmdline").read_text(errors="replace").split("\0")
    with contextlib.suppress(OSError):
        where = os.readlink(process / "cwd")
        yield where
        yield from (
            os.path.normpath(os.path.join(where, w))
            for w in (process / "cmdline").read_text(errors="replace").split("\0")
        )
    with contextlib.suppress(OSError):
        yield (process / "maps").read_text(errors="replace")
    with contextlib.suppress(OSError):
        yield from [os.readlink(f) for f in (process / "fd").iterdir()]


def prune(
    checkpoints: list[Checkpoint],
    checkpoint_dir: Path,
    keep_steps: Collection[int],
    evaluated: Collection[int],
    dry_run: bool,
) -> None:
    """Delete the checkpoints that nobody needs any more, and say what that frees."""
    total = 0
    for half in () if dry_run else checkpoint_dir.glob(".global_step_*.removed"):
        shutil.rmtree(half, ignore_errors=True)
    for c, why, freed in prunable(checkpoints, checkpoint_dir, keep_steps, evaluated):
        if why:
            print(f"prune: step {c.step} stays: {why}")
            continue
        if not dry_run:
            remove(c.path)
        total += freed
        print(f"prune: step {c.step} {'would be deleted' if dry_run else 'deleted'}, {freed / 1e9:.2f} GB", flush=True)
    print(f"prune: {total / 1e9:.2f} GB {'would be freed' if dry_run else 'freed'} at {now()}")
