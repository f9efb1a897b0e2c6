"""BACKGROUND_SAVE=1: verl saves into memory, training goes on, and a process of its own copies the checkpoint to disk.

Installed by phase1_engine_hook where PHASE1_BACKGROUND_SAVE, set by phase1/train/job.py, names the staging folder. What
is saved is verl's own code, unchanged; where it is copied to and how others wait for it is phase1/train/saving.py.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from verl.utils.checkpoint.checkpoint_handler import CheckpointHandler

from phase1.train.saving import (
    copier_command,
    failure_of,
    forget_copied,
    in_memory,
    inventory,
    make_staging,
    memory_filled,
    no_room,
    open_lock,
    take_lock,
)

ROOT = Path(__file__).resolve().parent.parent
ASK_AGAIN = 60.0  # seconds: the other ranks wait in a collective, which must not run into its limit


@dataclass(frozen=True)
class Decision:
    """What all ranks do about a save.

    Attributes:
        wait: the copy of the save before is still under way; ask again.
        failed: why that copy failed, which ends the run.
        direct: why the checkpoint cannot go through memory.
    """

    wait: bool = False
    failed: str = ""
    direct: str = ""


def save_in_background(staging: Path) -> None:
    """Replace CheckpointHandler.save_checkpoint, whose ranks all call it."""
    save_directly = CheckpointHandler.save_checkpoint

    def save_checkpoint(handler: CheckpointHandler, step: int) -> None:
        ckpt_dir = Path(handler.default_local_dir)
        lock = open_lock(ckpt_dir) if handler.rank == 0 else -1
        try:
            while (decision := agreed(decide(handler, lock, staging) if lock >= 0 else None)).wait:
                continue
            if decision.failed:
                raise RuntimeError(decision.failed)
            if decision.direct:
                say(handler, f"BACKGROUND_SAVE=1, but training waits for this save: {decision.direct}")
                save_directly(handler, step)
                return
            manager = handler.engine.checkpoint_manager
            asked = list(manager.checkpoint_save_contents)
            handler.default_local_dir, manager.checkpoint_save_contents = str(staging), in_memory(asked)
            try:
                save_directly(handler, step)
            except (OSError, RuntimeError) as e:
                if full := memory_filled(step):
                    raise RuntimeError(f"{full}: {e}") from None  # of a chain the first is told: "iostream error"
                raise
            finally:
                handler.default_local_dir, manager.checkpoint_save_contents = str(ckpt_dir), asked
            if lock >= 0:
                # verl's list of what it may delete later, which the first rank alone has
                manager.previous_saved_paths[-1] = str(ckpt_dir / f"global_step_{step}")
                add_weights = in_memory(asked) != asked
                start_copier(staging / f"global_step_{step}", ckpt_dir, lock, add_weights=add_weights)
                say(handler, f"training goes on while global_step_{step} is copied to {ckpt_dir}")
        finally:
            if lock >= 0:
                os.close(lock)  # the copier has it too, and holds the lock until it ends

    CheckpointHandler.save_checkpoint = save_checkpoint


def decide(handler: CheckpointHandler, lock: int, staging: Path) -> Decision:
    """On the first rank: what the last copy came to, and whether there is room for another."""
    began = time.monotonic()
    if not take_lock(lock, ASK_AGAIN):
        return Decision(wait=True)
    if (waited := time.monotonic() - began) > 1:
        say(handler, f"waited {waited:.0f} s for the copy of the checkpoint before; set SAVE_FREQ higher to save less")
    if failed := failure_of(staging):
        return Decision(failed=failed)
    forget_copied(staging)
    parameters = list(handler.engine.module.parameters())
    contents = list(handler.engine.checkpoint_manager.checkpoint_save_contents)
    if lacking := no_room(sum(p.numel() for p in parameters), parameters[0].element_size(), contents):
        return Decision(direct=lacking)
    try:
        make_staging(staging)
    except OSError as e:
        return Decision(direct=str(e))
    return Decision()


def agreed(decision: Decision | None) -> Decision:
    """The first rank's decision, on every rank."""
    box: list[Any] = [decision]
    torch.distributed.broadcast_object_list(box, src=0)
    found: Decision = box[0]
    return found


def start_copier(staged: Path, ckpt_dir: Path, lock: int, *, add_weights: bool) -> None:
    """Start the copy in a session of its own, which neither a killed trainer nor torchrun's signals end."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    subprocess.Popen(
        copier_command(staged, ckpt_dir, inventory(staged), add_weights=add_weights),
        pass_fds=(lock,),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
    )


def say(handler: CheckpointHandler, text: str) -> None:
    """A line of the first rank in the console log."""
    if handler.rank == 0:
        print(text, flush=True)
