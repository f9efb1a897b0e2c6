"""Which checkpoints of a training run are whole: saved to their end, loadable, and no longer growing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from phase1.contract.state.tracker import TRACKER, read_tracker, step_folders
from phase1.files import sha256_json
from phase1.model.loadable import model_problem
from phase1.train.resume import checkpoint_fault


class FileState(NamedTuple):
    """A file's size in bytes and time of its last change in nanoseconds."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Checkpoint:
    """A `global_step_N` folder. `problem` says why it cannot be evaluated; empty when it can.

    `damaged`: waiting does not help, since the step was saved to its end.
    `convert`: huggingface/ holds no weights, but the FSDP shards are whole.
    `files`: its files by relative path when `settled` looked at it.
    """

    step: int
    path: Path
    problem: str = ""
    damaged: bool = False
    convert: bool = False
    files: dict[str, FileState] = field(default_factory=dict, compare=False)

    @property
    def model_path(self) -> Path:
        """The HF directory in it."""
        return self.path / "huggingface"


def find_checkpoints(checkpoint_dir: Path) -> list[Checkpoint]:
    """The checkpoints of a run by step.

    verl writes its tracker file last, so a step later than the one it names is unfinished.
    """
    latest = read_tracker(checkpoint_dir)
    unfinished = (
        f"no {TRACKER} beside it says that it was saved to its end" if latest is None else "still being written"
    )
    return [
        Checkpoint(step, path, unfinished) if latest is None or step > latest else look_at(step, path)
        for step, path in sorted(step_folders(checkpoint_dir).items())
    ]


def look_at(step: int, path: Path) -> Checkpoint:
    """What a checkpoint that was saved to its end holds now; one that vanishes meanwhile is gone, not damaged.

    Args:
        step: its training step.
        path: its folder, global_step_N or one of the same form in outputs/kept/.
    """
    model = path / "huggingface"
    try:
        convert = not any(model.glob("*.safetensors*"))  # verl leaves config and tokenizer there even without hf_model
        if not convert:
            problem = model_problem(model)
        elif fault := checkpoint_fault(path, ("model",)):
            problem = f"no weights in huggingface/ and nothing to convert ({fault})"
        else:
            problem = ""
    except FileNotFoundError:  # it vanished between two looks
        convert, problem = False, "its files changed while it was looked at"
    if not path.is_dir():
        return Checkpoint(step, path, "gone")
    return Checkpoint(step, path, problem, damaged=bool(problem), convert=convert and not problem)


# -------------------------------------------------------------------------------------------------- is it still growing
def snapshot(folder: Path) -> dict[str, FileState]:
    """Every file below `folder` by relative path; what vanishes meanwhile is left out."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found[os.path.relpath(path, folder)] = FileState(status.st_size, status.st_mtime_ns)
    return found


def files_id(folder: Path) -> str:
    """A hash that changes when any file of the folder is written, added or removed."""
    return sha256_json(snapshot(folder))


def settled(checkpoints: Sequence[Checkpoint], seconds: float) -> list[Checkpoint]:
    """The same checkpoints after `seconds`; one whose files changed in that time is `still growing` and not damaged.

    The tracker file tells which folders verl has not finished; this finds those that are being copied in from another
    machine. It rests on a promise: whoever writes or deletes a checkpoint changes some file of it within `seconds`.
    """
    before = {c.step: snapshot(c.path) for c in checkpoints}
    time.sleep(seconds)
    return [_compared(c, before[c.step], seconds) for c in checkpoints]


def _compared(c: Checkpoint, before: dict[str, FileState], seconds: float) -> Checkpoint:
    after = snapshot(c.path)
    if not after:
        return replace(c, files=after, problem="gone", damaged=False, convert=False)
    if after != before:
        growing = f"still growing: its files changed within {seconds:g} s"
        return replace(c, files=after, problem=growing, damaged=False, convert=False)
    return replace(c, files=after)


def look_again(c: Checkpoint) -> Checkpoint:
    """A settled checkpoint as it is now: the pass that found it may have begun hours ago."""
    if c.problem and not c.damaged:
        return c
    files = snapshot(c.path)
    if files != c.files:
        return replace(c, problem="changed since this pass looked first" if files else "gone", damaged=False)
    return replace(look_at(c.step, c.path), files=files)


def rotation_began(c: Checkpoint) -> bool:
    """Whether files are gone that were there when it settled: deleting a large checkpoint takes a while.

    A conversion writes huggingface/ anew, so what is missing in there says nothing then.
    """
    names = [n for n in c.files if not (c.convert and n.startswith("huggingface/"))]
    return not c.path.is_dir() or not all((c.path / n).exists() for n in names)
