"""What can be known to go wrong before a GPU is taken: checks of a training job, a line each: pass, warn or fail.

A check is a function of the job that returns an Outcome, or raises BadInput, which is a fail. A new one is listed in
CHECKS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from phase1.files import BadInput
from phase1.train.job import BF16, FP32, Job, how_to_set
from phase1.train.preflight.data import messages, train_data, val_data
from phase1.train.preflight.disk_and_port import disk, host_memory, port, shared_memory, trainer
from phase1.train.preflight.gpus import devices, gpu_memory, kernels, time_needed
from phase1.train.preflight.model import model
from phase1.train.preflight.outcome import Outcome, passes, warns
from phase1.train.preflight.settings import settings
from phase1.train.preflight.tracking import wandb
from phase1.train.schedule import schedule_of


@dataclass(frozen=True)
class Check:
    """A check and what it found."""

    name: str
    outcome: Outcome

    @property
    def failed(self) -> bool:
        """Whether the training must not start."""
        return self.outcome.status == "fail"


def run_checks(job: Job) -> list[Check]:
    """All checks in the order of CHECKS. None imports torch."""
    found = []
    for name, check in CHECKS.items():
        try:
            found.append(Check(name, check(job)))
        except BadInput as e:
            found.append(Check(name, Outcome("fail", str(e))))
            if check is batch:  # all others count with its numbers
                break
    return found


def show(checks: list[Check]) -> None:
    """One line a check, on stderr: stdout is the command's."""
    for check in checks:
        print(f"{check.outcome.status}  {check.name:<9} {check.outcome.detail}", file=sys.stderr)


def refuse_failed(checks: list[Check]) -> None:
    """End the start where a check failed.

    Raises:
        BadInput: the message of the first failed check, and the names of others that say something else.
    """
    failed = [check for check in checks if check.failed]
    if failed:
        first = failed[0].outcome.detail
        others = [check.name for check in failed if check.outcome.detail != first]
        raise BadInput(f"{first} (failed too: {', '.join(others)})" if others else first)


def batch(job: Job) -> Outcome:
    """Whether the batch can be divided.

    train_batch_size counts the rows of all processes and must divide by their number (fsdp: times the micro batch),
    which the trainer would say minutes later. The engine's micro batches hold up to so many tokens, and must hold the
    longest row.
    """
    engine = job.trainer == "engine"
    rows = job.number("data.train_batch_size")
    micro = 1 if engine else job.number("data.micro_batch_size_per_gpu")
    ranks = job.data_ranks
    if rows % (ranks * micro):
        up = -(-rows // (ranks * micro)) * ranks * micro
        shared = "" if ranks == job.world_size else "data-parallel "
        raise BadInput(
            f"data.train_batch_size={rows} does not divide by {ranks} "
            f"{shared}processes{'' if engine else f' x micro batch {micro}'}; "
            f"{how_to_set('data.train_batch_size')} to {up}, or change "
            f"{'' if engine else 'MICRO_BATCH_SIZE or '}the number of processes"
        )
    each = rows // ranks
    if not engine:
        return passes(f"{rows} rows a step = {ranks} processes x {micro} rows x {each // micro} micro batches")
    tokens, longest = job.number("data.max_token_len_per_gpu"), job.number("data.max_length")
    if tokens < longest:
        raise BadInput(
            f"data.max_token_len_per_gpu={tokens} is less than data.max_length={longest}: a row of that length "
            "does not fit into a micro batch; set MAX_TOKENS_PER_GPU higher"
        )
    return passes(
        f"{rows} rows a step = {ranks} processes x {each} rows, packed into micro batches of up to {tokens} tokens"
    )


def schedule(job: Job) -> Outcome:
    """How many steps there will be, and whether enough checkpoints to choose from."""
    s = schedule_of(job)
    steps = f"{s.steps_per_epoch} steps an epoch, {s.total_steps} in all"
    if s.saves < 3 and job.number("trainer.save_freq", least=-1) > 0:
        return warns(f"{steps}, saved {s.saves} times: few to choose the best from; set SAVE_FREQ lower")
    return passes(f"{steps}, {s.warmup_steps} of warm-up, saved {s.saves} times")


def precision(job: Job) -> Outcome:
    """Contract 3: with bf16 master weights and a small learning rate most updates round to nothing."""
    dtype = job.text("model.fsdp_config.model_dtype")
    if dtype in BF16:
        return warns(
            "bf16 master weights: at a small learning rate most updates round to nothing; MODEL_DTYPE=fp32 keeps them"
        )
    if dtype not in FP32:
        raise BadInput(f"MODEL_DTYPE={dtype}: fp32, or bf16 as in the original project")
    return passes(f"{dtype} master weights and moments, {'fp32' if job.on_cpu else 'bf16'} compute")


CHECKS: dict[str, Callable[[Job], Outcome]] = {
    "batch": batch,
    "train": train_data,
    "messages": messages,
    "val": val_data,
    "schedule": schedule,
    "model": model,
    "precision": precision,
    "settings": settings,
    "trainer": trainer,
    "devices": devices,
    "kernels": kernels,
    "memory": gpu_memory,
    "time": time_needed,
    "disk": disk,
    "shm": shared_memory,
    "host": host_memory,
    "port": port,
    "wandb": wandb,
}
