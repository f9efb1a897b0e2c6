"""The record of a training run, train_run.json beside its checkpoints: written at the start, compared by a resume,
completed at the end."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from pydantic import JsonValue

from phase1.arguments import show_next, with_variables
from phase1.contract.state.base import Stamp
from phase1.contract.state.tracker import read_tracker
from phase1.contract.state.train_run import NAME, TrainRun, TrainSession
from phase1.files import BadInput, fingerprint, finite, now, run_stamp, sha256_file
from phase1.train.job import Job
from phase1.train.last_words import death_of
from phase1.train.resume import job_fault, resume_point
from phase1.train.step_log import steps_of_run
from phase1.train.verl_version import LOSS

# What a resumed run must share with the one before, beside the optimizer, the trainer, the model and the data.
SHARED = (
    "data.max_length",
    "data.truncation",
    "data.train_batch_size",
    "data.train_max_samples",
    "trainer.total_epochs",
)


def run_file(job: Job) -> Path:
    """This node's record; run_sft.sh knows the name too. Several nodes share CKPT_DIR."""
    return job.ckpt_dir / (NAME if job.node_rank == 0 else f"train_run_node{job.node_rank}.json")


def run_shape(job: Job) -> dict[str, JsonValue]:
    """Data, model, schedule, optimizer and trainer, which a resumed run must share with the one before."""
    shape: dict[str, JsonValue] = finite({k: v for k, v in job.config.items() if k.startswith("optim.")})
    shape |= {"trainer": job.trainer} | finite({key: job.config.get(key) for key in SHARED})
    model = job.text("model.partial_pretrain")  # a name on the Hub stays a name, downloaded meanwhile or not
    shape["model.partial_pretrain"] = f"sha256 {fingerprint(model)}" if Path(model).is_dir() else model
    shape["data.train_files"] = [f"sha256 {sha256_file(f)}" for f in job.files("data.train_files")]
    return shape


def refuse_changes(job: Job, shape: dict[str, JsonValue]) -> None:
    """Refuse to resume with another shape: the data's position and the learning rate would not fit.

    Raises:
        BadInput: names what differs, unless ALLOW_CHANGED_DATA=1.
    """
    path = job.ckpt_dir / NAME
    if not path.exists():  # checkpoints made without run_sft.sh
        return
    before = {"trainer": "fsdp"} | TrainRun.read(path).shape  # early records name no trainer
    changed = [k for k in sorted(before.keys() | shape.keys()) if before.get(k) != shape.get(k)]
    if changed and job.environ.get("ALLOW_CHANGED_DATA") != "1":
        said = "; ".join(f"{k} was {before.get(k)}, is {shape.get(k)}" for k in changed)
        raise BadInput(
            f"{path}: the checkpoints were trained with other settings: {said}. Set them back, choose another "
            "CKPT_DIR, or set ALLOW_CHANGED_DATA=1"
        )


def record_start(job: Job, shape: dict[str, JsonValue], command: list[str], *, step: int, total: int) -> None:
    """Write that a run starts.

    Args:
        job: the run.
        shape: of `run_shape`.
        command: of torchrun, for people.
        step: that it goes on from, 0 for the beginning.
        total: the run's last step.
    """
    path = run_file(job)
    before = TrainRun.read(path).sessions if step and path.exists() else []
    run = TrainRun(
        status="running",
        expected_steps=total,
        world_size=job.world_size,
        shape=shape,
        sessions=[*before, TrainSession(started=now(), from_step=step)],
        command=command,
        stamp=Stamp.model_validate(run_stamp(job.config)),
    )
    run.write(path)


def report_end(job: Job, copy_failed: str = "") -> int:
    """Compare the last saved step with the expected one: verl exits with 0 even where it trained nothing.

    Args:
        job: the run.
        copy_failed: why its last checkpoint could not be copied from memory.

    Returns:
        The exit code: 0 when the last step is saved, else 1.
    """
    path = run_file(job)
    run = TrainRun.read(path)
    step, total = read_tracker(job.ckpt_dir) or 0, run.expected_steps
    fault = job_fault(job, step)
    if step != total or fault:
        why = f" ({copy_failed or fault})" if copy_failed or fault else ""
        print(
            f"error: training ended at step {step} of {total}{why}; run the same command again to go on",
            file=sys.stderr,
        )
        return 1
    _complete(run, path, step)
    print(f"trained: step {step} of {total} is saved in {job.ckpt_dir / f'global_step_{step}'}")
    where = {"CKPT_DIR": job.ckpt_dir} | {n: job.environ[n] for n in ("OUTPUT_DIR", "MANIFEST_DIR") if n in job.environ}
    command = with_variables(where, "bash run_eval_checkpoints.sh")
    show_next("evaluate the checkpoints and choose the best", command)
    return 0


def record_finished(job: Job, step: int) -> None:
    """Complete the record of a run whose last step was saved after run_sft.sh had ended: killed, or ended early.

    Args:
        job: the run, which trains nothing more.
        step: the last saved step.
    """
    path = run_file(job)
    run = TrainRun.read(path) if path.exists() else None
    if run and run.status != "complete" and run.expected_steps == step:
        _complete(run, path, step)


def _complete(run: TrainRun, path: Path, step: int) -> None:
    run.model_copy(update={"status": "complete", "final_step": step, "finished": now()}).write(path)


def report_stop(job: Job, metrics: Path, log: Path | None = None, copy_failed: str = "") -> None:
    """After a signal or a crash, say which step the next start goes on from, how much is done again, and what ended it.

    Args:
        job: the run.
        metrics: train_metrics.jsonl.
        log: the console log.
        copy_failed: why its last checkpoint could not be copied from memory.
    """
    _report_steps(job, metrics)
    if death := (death_of(log) if log else None) or copy_failed:
        print(f"error: {death}", file=sys.stderr)


def _report_steps(job: Job, metrics: Path) -> None:
    saved = resume_point(job).step
    if job.node_rank:  # steps are logged on the first node alone
        print(f"saved up to step {saved}; the first node says how many steps after it are lost")
        return
    steps = steps_of_run(metrics, job.ckpt_dir.name)
    broken = [s.number for s in steps if not math.isfinite(s.values.get(LOSS, 0.0))]
    if broken and saved >= min(broken) - 1:  # the update before it broke the weights
        print(
            f"train/loss is NaN or infinite from step {min(broken)} on: global_step_{min(broken) - 1} and later hold "
            "broken weights; delete them, then set LR lower with ALLOW_CHANGED_DATA=1"
        )
    trained = max((s.number for s in steps), default=0)
    if not trained and not saved:
        print("no step was trained")
        return
    again = f": run the same command again to resume at step {saved}"
    print(
        f"trained up to step {trained}, saved up to step {saved}: {max(trained - saved, 0)} steps after it are "
        f"lost and done again by the next start{'' if broken else again}"
    )
