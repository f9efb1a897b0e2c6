"""Where a training run goes on: which checkpoints are whole, and what a resumed run must share with the one before."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from phase1.contract.state.tracker import TRACKER, read_tracker, step_folders
from phase1.files import BadInput, read_json, write_text
from phase1.train.job import Job
from phase1.train.verl_version import RANKS_FILE, SHARD_PREFIX, files_to_resume


@dataclass(frozen=True)
class ResumePoint:
    """The step that training goes on from.

    Attributes:
        step: 0 for the beginning.
        tracker: the step in verl's tracker file, None where there is none that can be read.
        note: why it is not the tracker's step, for people.
        folder: the checkpoint, where trainer.resume_from_path names one.
    """

    step: int
    tracker: int | None
    note: str = ""
    folder: Path | None = None

    def settle(self, ckpt_dir: Path) -> None:
        """Make verl's tracker say `step`: verl fails if that folder is partial, and starts over if it is missing."""
        if self.step and self.tracker != self.step:
            write_text(ckpt_dir / TRACKER, str(self.step))
        elif self.step == 0 and self.tracker is not None:
            (ckpt_dir / TRACKER).unlink(missing_ok=True)  # another node may have done it


def resume_point(job: Job) -> ResumePoint:
    """The tracker's checkpoint if it is whole, else the newest whole one before it.

    verl writes the tracker last: a checkpoint of a later step is not complete.

    Raises:
        BadInput: trainer.resume_from_path names no checkpoint.
    """
    mode, path = job.config["trainer.resume_mode"], job.config.get("trainer.resume_from_path")
    if mode == "disable":
        return ResumePoint(0, tracker=None)
    if path or mode == "resume_path":
        named = re.search(r"global_step_(\d+)", str(path))
        if not named:
            raise BadInput(
                f"trainer.resume_from_path={path}: verl resumes from a folder global_step_N; name one, or "
                "leave RESUME_MODE=auto without it"
            )
        return ResumePoint(int(named[1]), tracker=int(named[1]), folder=Path(str(path)))
    tracker, steps = read_tracker(job.ckpt_dir), sorted(step_folders(job.ckpt_dir), reverse=True)
    if tracker is None and not steps:
        return ResumePoint(0, tracker=None)
    fault = job_fault(job, tracker) if tracker is not None else f"no readable {TRACKER} in {job.ckpt_dir}"
    if tracker is not None and fault is None:
        return ResumePoint(tracker, tracker)
    for step in steps:
        if (tracker is None or step < tracker) and job_fault(job, step) is None:
            return ResumePoint(step, tracker, f"{fault}: resuming from global_step_{step}")
    return ResumePoint(0, tracker, f"{fault}: no whole checkpoint before it, starting over")


def job_fault(job: Job, step: int) -> str | None:
    """`checkpoint_fault` of one of the job's own checkpoints."""
    return checkpoint_fault(job.ckpt_dir / f"global_step_{step}", job.save_contents)


def checkpoint_fault(folder: Path, contents: Collection[str] = tuple(SHARD_PREFIX)) -> str | None:
    """Why training cannot go on from this checkpoint, None if it can: all ranks' files are there and not torn.

    torch.save writes zip files, whose directory stands at the end: a torn one has none.

    Args:
        folder: global_step_N.
        contents: verl's trainer.checkpoint.save_contents.
    """
    if not folder.is_dir():
        return f"{folder} is gone"
    try:
        world_size = saved_world_size(folder)
    except BadInput:
        return f"{folder} is partial: no whole {RANKS_FILE}"
    for name in files_to_resume(folder, contents, world_size):
        if not (folder / name).is_file() or not zipfile.is_zipfile(folder / name):
            return f"{folder} is partial: no whole {name}"
    return None


def saved_world_size(folder: Path) -> int:
    """How many processes saved a checkpoint.

    Raises:
        BadInput: the checkpoint does not say.
    """
    path = folder / RANKS_FILE
    try:
        return int(read_json(path)["world_size"])
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{path}: no world_size in it; resume from another checkpoint") from None


def refuse_other_world_size(job: Job, resume: ResumePoint) -> None:
    """Refuse a resume by another number of processes, for which shards and moments are not cut.

    Raises:
        BadInput: says by how many it was saved, and how to start anew from its weights.
    """
    folder = resume.folder or job.ckpt_dir / f"global_step_{resume.step}"
    saved = saved_world_size(folder)
    if saved != job.world_size:
        raise BadInput(
            f"{folder}: saved by {saved} processes, this run has {job.world_size}; run with {saved}, or start "
            f"anew from its weights with MODEL_PATH={folder}/huggingface and another CKPT_DIR (moments and schedule "
            "start over)"
        )
