"""run_sft.sh --preset small: settings that fit few rows.

The contract's numbers are for 95,000 records: with 30 there is not one batch of 128, and no checkpoint before the end.
Each number is the contract's wherever that fits, so that with many rows the preset changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from phase1.files import BadInput
from phase1.train.job import Job
from phase1.train.schedule import row_lengths, used_rows

FITTED = ("TRAIN_BATCH_SIZE", "MICRO_BATCH_SIZE", "MAX_LENGTH", "WARMUP_RATIO", "SAVE_FREQ", "TEST_FREQ")
LEAST_STEPS = 8  # an epoch: with fewer there is hardly a curve, and a dropped last batch is a large share
LEAST_SAVES = 3  # with fewer the preflight warns: there is little to choose the best from
SAVES = 4  # each is evaluated, which takes longer than such a training
LEAST_WARMUP = 2  # steps: the first has a learning rate of 0
PADDING = 64  # MAX_LENGTH is a multiple of so many tokens


@dataclass(frozen=True)
class Fitted:
    """A variable of run_sft.sh whose number does not fit, the one that does, and why."""

    variable: str
    before: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"{self.variable}={self.value} instead of {self.before} ({self.why})"


def fit_to_rows(job: Job, given: Collection[str] = ()) -> list[Fitted]:
    """What to change so that the job's rows are enough; empty where nothing must be.

    Args:
        job: the training run, whose config has a number for each of FITTED.
        given: variables that the user has set, which stay as they are.

    Raises:
        BadInput: there are fewer rows than processes, or the files are none that verl reads.
    """
    found: list[Fitted] = []

    def fit(variable: str, key: str, value: float, why: str) -> float:
        """Note it, unless the number is the user's or the one there is; the number that holds."""
        before = float(job.text(key))
        if variable in given or value == before:
            return before
        found.append(Fitted(variable, job.text(key), f"{value:g}", why))
        return value

    rows, held_out, ranks = used_rows(job, "train"), used_rows(job, "val"), job.data_ranks
    for side, have in (("train", rows), ("val", held_out)):
        if have < ranks:
            path, more = (
                job.files(f"data.{side}_files")[0],
                "" if side == "train" else " or prepare with a larger --val_ratio",
            )
            raise BadInput(
                f"{path}: {have} rows for {ranks} processes, each of which needs one; start fewer "
                f"(./run_sft.sh {have} --preset small){more}"
            )
    most = job.number("data.train_batch_size")
    micro = job.number("data.micro_batch_size_per_gpu") if job.trainer != "engine" else 1
    least = ranks * (micro if "MICRO_BATCH_SIZE" in given else 1)
    if rows // most < LEAST_STEPS:
        why = f"{LEAST_STEPS} steps an epoch"
        if job.trainer == "engine" and held_out < rows // LEAST_STEPS:
            most, why = held_out, f"validation has {held_out} rows and takes whole batches"
        most = max(least, min(most, rows // LEAST_STEPS) // least * least)
    else:
        why = ""
    batch = int(fit("TRAIN_BATCH_SIZE", "data.train_batch_size", most, why))
    if job.trainer != "engine":
        micro = math.gcd(micro, max(1, batch // ranks))
        if held_out < ranks * micro:
            micro = 1
        fit(
            "MICRO_BATCH_SIZE",
            "data.micro_batch_size_per_gpu",
            micro,
            "divides the batch, and validation has as many rows",
        )
        lengths, length = row_lengths(job), job.number("data.max_length")
        if lengths and lengths.longest < length:
            padded = min(length, -(-lengths.longest // PADDING) * PADDING)
            fit(
                "MAX_LENGTH", "data.max_length", padded, f"the longest row has {lengths.longest} tokens, all are padded"
            )
    steps = max(1, rows // ranks // max(1, batch // ranks)) * job.number("trainer.total_epochs")
    ratio = float(job.text("optim.lr_warmup_steps_ratio"))
    if ratio > 0 and int(steps * ratio) < LEAST_WARMUP and steps >= 5 * LEAST_WARMUP:
        enough = math.ceil(LEAST_WARMUP / steps * 1000) / 1000
        fit("WARMUP_RATIO", "optim.lr_warmup_steps_ratio", enough, f"{LEAST_WARMUP} of {steps} steps")
    every = job.number("trainer.save_freq", least=-1)
    if every > 0 and -(-steps // every) < LEAST_SAVES:
        every = -(-steps // SAVES)
    every = int(
        fit("SAVE_FREQ", "trainer.save_freq", every, f"{-(-steps // max(1, every))} checkpoints of {steps} steps")
    )
    if job.number("trainer.test_freq", least=-1) > every:
        fit("TEST_FREQ", "trainer.test_freq", every, "a val/loss for each checkpoint")
    return found
