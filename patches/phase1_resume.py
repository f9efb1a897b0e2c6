"""What both of verl's SFT trainers need changed.

The next epoch after a resume at an epoch's end, no process left behind by a killed launcher, an end between two steps
when asked to stop, and the tokens of a padded batch counted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchdata.stateful_dataloader

ASKED_TO_STOP: list[int] = []  # signals received
COUNTED: dict[str, int] = {}  # "tokens": of the last padded batch, padding left out, over all ranks


def die_with_the_launcher() -> None:
    """A killed torchrun takes its workers along (Linux): orphans would go on writing into the checkpoints.

    The kernel's signal comes only if torchrun dies after it was asked for. The imports before take many seconds, so a
    worker whose torchrun (run_sft.sh tells its process) has ended by now ends itself.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG
        launcher = os.environ.get("PHASE1_LAUNCHER")
        if launcher and _has_ended(launcher):
            os.kill(os.getpid(), signal.SIGKILL)


def _has_ended(process: str) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def stop_between_steps() -> None:
    """When asked to stop, end the current step and begin no other.

    torchrun passes a signal on to its workers and kills them 30 s later: SIGTERM from a batch system, SIGINT from
    Ctrl-C, SIGHUP from a closed terminal. The ranks agree on it before each step, so that none waits for another that
    has ended, and one preempted node ends them all.
    """
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(asked, lambda number, frame: ASKED_TO_STOP.append(number))


def leave_signals_to_the_trainer(worker: int) -> None:
    """Let a loader's worker process ignore the signals that ask to stop.

    torchrun signals the whole process group, and a worker that dies of it ends the trainer with a RuntimeError in the
    middle of its step. Workers end by themselves once the trainer is gone.
    """
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(asked, signal.SIG_IGN)


class ResumableDataLoader(torchdata.stateful_dataloader.StatefulDataLoader):
    """The trainer's data loader, which starts the next epoch when the state it resumes from is that of a finished one.

    A checkpoint taken at an epoch's last step holds a loader state with every batch handed out. Loaded into the next
    epoch it yields nothing: verl trains no step and exits 0 (verl#7401).
    """

    def __init__(self, *args: Any, on_cpu: bool = False, **kwargs: Any):
        if on_cpu:  # the trainers' 8 workers a loader and rank are for hosts of GPUs; here the process tokenises itself
            kwargs |= {"num_workers": 0, "pin_memory": False, "pin_memory_device": ""}
        super().__init__(*args, worker_init_fn=leave_signals_to_the_trainer, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            padded = isinstance(batch, dict) and "attention_mask" in batch
            counts = torch.tensor([int(batch["attention_mask"].sum()) if padded else 0, bool(ASKED_TO_STOP)])
            if torch.distributed.is_initialized():
                # verl 0.7.0's process group has NCCL alone
                counts = counts.to("cuda" if torch.cuda.is_available() else "cpu")
                torch.distributed.all_reduce(counts)
            tokens, asked = counts.tolist()
            if asked:
                sys.exit(128 + (ASKED_TO_STOP or [signal.SIGTERM])[0])
            if padded:
                COUNTED["tokens"] = tokens
            yield batch

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if batches_handed_out(state_dict) >= len(self):
            return
        super().load_state_dict(state_dict)


def batches_handed_out(state_dict: dict[str, Any]) -> int:
    """How many batches of its epoch a StatefulDataLoader's state (with or without workers) has yielded."""
    if "_snapshot" in state_dict:  # with workers
        return int(state_dict["_snapshot"]["_snapshot_step"] + state_dict["_steps_since_snapshot"])
    return int(state_dict.get("_num_yielded", 0))
