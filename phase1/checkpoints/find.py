"""Which checkpoints of a training run are whole: saved to their end, loadable, and no longer growing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from phase1.files import sha256_json
from phase1.model.loadable import model_problem

TRACKER = "latest_checkpointed_iteration.txt"  # verl's own marker file: the last step that was saved to its end


@dataclass(frozen=True)
class Checkpoint:
    """A `global_step_N` folder. `problem` says why it cannot be evaluated; empty when it can.

    `damaged`: the problem will not go away by waiting, since the step was saved to its end.
    `convert`: huggingface/ holds no weights, but the FSDP shards are whole. `files`: its snapshot when it was settled.
    """

    step: int
    path: Path
    problem: str = ""
    damaged: bool = False
    convert: bool = False
    files: dict[str, tuple[int, int]] = field(default_factory=dict, compare=False)

    @property
    def model_path(self) -> Path:
        return self.path / "huggingface"


def step_folders(parent: Path, prefix: str = "global_step_") -> dict[int, Path]:
    """The folders named `prefix` and a number, by number."""
    found = {p.name.removeprefix(prefix): p for p in parent.glob(f"{prefix}*")}
    return {int(n): p for n, p in found.items() if re.fullmatch(r"\d+", n)}


def read_tracker(checkpoint_dir: Path) -> int | None:
    """The step that verl saved last; None where its tracker file is missing or unreadable."""
    try:
        return int((checkpoint_dir / TRACKER).read_text())
    except (OSError, ValueError):
        return None


def find_checkpoints(checkpoint_dir: Path) -> list[Checkpoint]:
    """The checkpoints of a run by step. verl writes the tracker file last, so a later step than it names is
    unfinished."""
    latest = read_tracker(checkpoint_dir)
    unfinished = (
        f"no {TRACKER} beside it says that it was saved to its end" if latest is None else "still being written"
    )
    return [
        Checkpoint(step, path, unfinished) if latest is None or step > latest else look_at(step, path)
        for step, path in sorted(step_folders(checkpoint_dir).items())
    ]


def look_at(step: int, path: Path) -> Checkpoint:
    """What a folder that was saved to its end holds now; one that vanishes meanwhile is not damaged, but gone."""
    from phase1.train.resume import checkpoint_fault

    model = path / "huggingface"
    try:
        convert = not any(model.glob("*.safetensors*"))  # verl leaves config and tokenizer there even without hf_model
        fault = checkpoint_fault(path, ("model",)) if convert else None
        problem = (
            model_problem(model)
            if not convert
            else f"no weights in huggingface/ and nothing to convert ({fault})"
            if fault
            else ""
        )
    except FileNotFoundError:  # it vanished between two looks
        convert, problem = False, "its files changed while it was looked at"
    if not path.is_dir():
        return Checkpoint(step, path, "gone")
    return Checkpoint(step, path, problem, damaged=bool(problem), convert=convert and not problem)


# -------------------------------------------------------------------------------------------------- is it still growing
def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time (ns) of every file below `folder`; what vanishes meanwhile is left out."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found[os.path.relpath(path, folder)] = (status.st_size, status.st_mtime_ns)
    return found


def files_id(folder: Path) -> str:
    """A hash that changes when any file of the folder is written, added or removed."""
    return sha256_json(snapshot(folder))


def settled(checkpoints: Sequence[Checkpoint], seconds: float) -> list[Checkpoint]:
    """The same checkpoints after `seconds`; one whose files changed in that time is `still growing` and not damaged.

    The tracker tells verl's own half-written folders; this tells those that are being copied in from another machine.
    """
    before = {c.step: snapshot(c.path) for c in checkpoints}
    time.sleep(seconds)
    found = []
    for c in checkpoints:
        after = snapshot(c.path)
        if not after:
            c = replace(c, problem="gone", damaged=False, convert=False)
        elif after != before[c.step]:
            c = replace(
                c, problem=f"still growing: its files changed within {seconds:g} s", damaged=False, convert=False
            )
        found.append(replace(c, files=after))
    return found
