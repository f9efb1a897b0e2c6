"""What can be known to go wrong before a GPU is taken: checks of a training job, a line each: pass, warn or fail.

A check is a function of the job. It returns (status, detail), or raises BadInput, which is a fail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from phase1.files import BadInput
from phase1.train.job import Job, how_to_set
from phase1.train.preflight.data import messages, model, train_data, val_data
from phase1.train.preflight.machine import devices, disk, gpu_memory, kernels, port, time_needed, trainer, wandb
from phase1.train.schedule import schedule_of


@dataclass(frozen=True)
class Check:
    name: str
    status: str  # pass, warn, fail
    detail: str


def run_checks(job: Job) -> list[Check]:
    """All checks, cheapest first, none of which imports torch."""
    checks = []
    for name, check in CHECKS.items():
        try:
            checks.append(Check(name, *check(job)))
        except BadInput as e:
            checks.append(Check(name, "fail", str(e)))
            if check is batch:  # everything after it counts with these numbers
                break
    return checks


def show(checks: list[Check]) -> None:
    """One line a check, on stderr: stdout is the command's."""
    for c in checks:
        print(f"{c.status}  {c.name:<9} {c.detail}", file=sys.stderr)


def batch(job: Job) -> tuple[str, str]:
    """train_batch_size is global and must divide by the ranks (fsdp: by ranks x micro batch): the trainer asserts it,
    minutes later. The engine's micro batches are packed up to a number of tokens that must hold the longest row."""
    engine = job.trainer == "engine"
    rows = job.number("data.train_batch_size")
    micro = 1 if engine else job.number("data.micro_batch_size_per_gpu")
    if rows % (job.world_size * micro):
        up = -(-rows // (job.world_size * micro)) * job.world_size * micro
        raise BadInput(
            f"data.train_batch_size={rows} does not divide by {job.world_size} "
            f"processes{'' if engine else f' x micro batch {micro}'}; "
            f"{how_to_set('data.train_batch_size')} to {up}, or change "
            f"{'' if engine else 'MICRO_BATCH_SIZE or '}the number of processes"
        )
    each = rows // job.world_size
    if not engine:
        return "pass", f"{rows} rows a step = {job.world_size} processes x {micro} rows x {each // micro} micro batches"
    tokens, longest = job.number("data.max_token_len_per_gpu"), job.number("data.max_length")
    if tokens < longest:
        raise BadInput(
            f"data.max_token_len_per_gpu={tokens} is less than data.max_length={longest}: a row of that length "
            "fits no pack; set MAX_TOKENS_PER_GPU higher"
        )
    return (
        "pass",
        (
            f"{rows} rows a step = {job.world_size} processes x {each} rows, packed into micro batches of up to "
            f"{tokens} tokens"
        ),
    )


def schedule(job: Job) -> tuple[str, str]:
    s = schedule_of(job)
    if s.saves < 3 and job.config["trainer.save_freq"] > 0:
        return (
            "warn",
            (
                f"{s.steps_per_epoch} steps an epoch, {s.total_steps} in all, saved {s.saves} times: little to "
                "choose the best from; set SAVE_FREQ lower"
            ),
        )
    return (
        "pass",
        (
            f"{s.steps_per_epoch} steps an epoch, {s.total_steps} in all, {s.warmup_steps} of warm-up, saved "
            f"{s.saves} times"
        ),
    )


def precision(job: Job) -> tuple[str, str]:
    """Contract 3: with bf16 masters and a small learning rate most updates round away."""
    dtype = job.config["model.fsdp_config.model_dtype"]
    if dtype in ("bf16", "bfloat16"):
        return (
            "warn",
            "bf16 master weights: at a small learning rate most updates round to nothing; MODEL_DTYPE=fp32 keeps them",
        )
    if dtype not in ("fp32", "float32"):
        raise BadInput(f"MODEL_DTYPE={dtype}: fp32, or bf16 as in the original project")
    return "pass", f"{dtype} master weights and moments, {'fp32' if job.on_cpu else 'bf16'} compute"


CHECKS: dict[str, Callable[[Job], tuple[str, str]]] = {
    "batch": batch,
    "train": train_data,
    "messages": messages,
    "val": val_data,
    "schedule": schedule,
    "model": model,
    "precision": precision,
    "trainer": trainer,
    "devices": devices,
    "kernels": kernels,
    "memory": gpu_memory,
    "time": time_needed,
    "disk": disk,
    "port": port,
    "wandb": wandb,
}
