"""The models that verl's rotation must not delete: hard links to them under outputs/kept/.

outputs/kept/global_step_N/huggingface/    hard links (copies from another file system) to the K best models, and to the
                                           one that is being evaluated
outputs/kept/global_step_N/kept.json       where it came from, how, its fingerprint
outputs/best_model                         a relative link to the best one's huggingface/, swapped by one rename
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from phase1.contract.state.base import Stamp, StateFile, path_beside
from phase1.contract.state.tracker import step_folders
from phase1.files import BadInput, fingerprint, replacing, run_stamp

# No hard link to be had: another file system, a file system without them, one link too many.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


class KeptModel(StateFile):
    """kept.json beside a kept model.

    Attributes:
        step: the training step of the model.
        source: the directory it was kept from, relative to kept.json where it can be.
        how: whether its files share their blocks with those of the checkpoint.
        fingerprint: of the model when it was kept (`phase1.files.fingerprint`).
        bytes: the size of its files.
        stamp: how kept.json was made.
    """

    step: int
    source: str
    how: Literal["hard links", "copy"]
    fingerprint: str
    bytes: int
    stamp: Stamp = Stamp()


def kept_folder(output_dir: Path, step: int) -> Path:
    """Where the model of a step is kept, if it is."""
    return output_dir / "kept" / f"global_step_{step}"


def kept_model(output_dir: Path, step: int) -> Path | None:
    """The kept model of a step; None where there is none, or where its files have changed since it was kept."""
    home = kept_folder(output_dir, step)
    try:
        if KeptModel.read(home / "kept.json").fingerprint == fingerprint(home / "huggingface"):
            return home / "huggingface"
    except (BadInput, OSError):
        pass
    return None


def keep(model: Path, output_dir: Path, step: int, is_whole: Callable[[Path], bool]) -> Path:
    """Keep a model as hard links, or as a copy where links cannot be made.

    The kept folder appears whole or not at all: until then, what was kept of the step before stays.

    Args:
        model: a Hugging Face directory.
        output_dir: the folder that holds kept/.
        step: the training step of the model.
        is_whole: given the linked or copied model, says whether it is all that is to be kept. The model may have been
            half deleted before it was looked at here, and then nothing changes while it is kept.

    Returns:
        Where the model is kept.

    Raises:
        BadInput: the model changes meanwhile, or is not whole.
        OSError: it vanishes, or the disk is full.
    """
    kept = _keep(model, output_dir, step, is_whole, copy=True)
    assert kept is not None  # only without `copy` can it be refused
    return kept


def keep_if_free(model: Path, output_dir: Path, step: int, is_whole: Callable[[Path], bool]) -> Path | None:
    """The same as `keep` where hard links can be made, which take no room; None where it would have to be copied."""
    return _keep(model, output_dir, step, is_whole, copy=False)


def _keep(model: Path, output_dir: Path, step: int, is_whole: Callable[[Path], bool], copy: bool) -> Path | None:
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
            copied = temp / "huggingface"
            if not files or fingerprint(copied) != seen or not is_whole(copied):
                raise BadInput(f"{model}: changed while it was being kept; look again when nothing writes to it")
            KeptModel(
                step=step,
                source=path_beside(model, home / "kept.json"),
                how="hard links" if linked else "copy",
                fingerprint=seen,
                bytes=sum(p.stat().st_size for p in files),
                stamp=Stamp.model_validate(run_stamp({})),
            ).write(temp / "kept.json")
    except _WouldCopyError:
        return None
    return home / "huggingface"


class _WouldCopyError(Exception):
    """Leaves `replacing` without keeping anything."""


def _link_or_copy(path: Path, target: Path, copy: bool) -> bool:
    """Whether it became a hard link; a copy is on the disk when this returns."""
    try:
        os.link(path.resolve(), target)  # the file behind a link: a relative link would lead nowhere from here
        return True
    except OSError as e:
        if e.errno not in NO_LINK:
            raise
    if not copy:
        raise _WouldCopyError
    shutil.copy2(path, target)
    with open(target, "rb") as f:
        os.fsync(f.fileno())
    return False


def point_best_model(output_dir: Path, model: Path | None) -> None:
    """Make outputs/best_model lead to `model`, or remove it for None. A reader finds the old model or the new one.

    Raises:
        BadInput: something else than a link has this name.
    """
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
    """Remove what is kept of all other steps, and what a killed run left half made.

    Call it only under the lock of the output directory.
    """
    for step, home in step_folders(output_dir / "kept").items():
        if step not in wanted:
            remove(home)
    for half in (output_dir / "kept").glob(".*"):
        shutil.rmtree(half, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a folder; it is renamed first, so that nobody finds half of it under its name."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(folder, hidden)
    shutil.rmtree(hidden)
