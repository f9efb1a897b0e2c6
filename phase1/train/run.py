"""The training stage around verl: check the job, decide where it resumes, record it, and say afterwards whether it
ended.

    python -m phase1.train --dry_run -- [HYDRA_OVERRIDE …]            # print checks and command, write nothing
    python -m phase1.train --argv_file FILE -- [HYDRA_OVERRIDE …]     # record the start, write the command to FILE
    python -m phase1.train --stopped METRICS -- [HYDRA_OVERRIDE …]    # after a crash or a signal: say what is lost
    python -m phase1.train --finished -- [HYDRA_OVERRIDE …]           # afterwards: exit 0 if the last step is saved

Called by run_sft.sh, where the knobs and their defaults stand. FILE stays empty when nothing is left to train.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phase1.files import (
    BadInput,
    fingerprint,
    now,
    read_json,
    run_stamp,
    sha256_file,
    write_json,
    write_text,
)
from phase1.train.health import metric_rows
from phase1.train.job import Job, launch_command, read_job
from phase1.train.preflight.checks import Check, run_checks, show
from phase1.train.preflight.machine import wandb_offline
from phase1.train.schedule import schedule_of

RUN_FILE = "train_run.json"  # beside the checkpoints: what they were trained on, and when; further nodes write one each
SHARD_PREFIX = {"model": "model", "optimizer": "optim", "extra": "extra_state"}  # of verl's save_contents
TRACKER = "latest_checkpointed_iteration.txt"  # verl's own: the step to resume at, a bare integer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dry_run", action="store_true", help="print checks and command, write nothing")
    what.add_argument("--argv_file", type=Path, help="write the command here; left empty when nothing is left to train")
    what.add_argument(
        "--stopped",
        type=Path,
        metavar="METRICS",
        help="say what an ended training saved and lost, by train_metrics.jsonl",
    )
    what.add_argument("--finished", action="store_true", help="compare the last saved step with the expected one")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for verl, after all of ours")
    args = parser.parse_args()

    job = read_job(dict(os.environ), args.overrides)
    if args.finished:
        return report_end(job)
    if args.stopped:
        return report_stop(job, args.stopped)
    if args.dry_run:
        checks = run_checks(job)
        show(checks)
        if failed := [c for c in checks if c.status == "fail"]:
            raise BadInput(
                failed[0].detail
                if len(failed) == 1
                else f"{len(failed)} checks failed: {', '.join(c.name for c in failed)}"
            )
    schedule = schedule_of(job)
    total = schedule.total_steps
    resume = resume_point(job)
    shape = run_shape(job)
    if resume.step:
        refuse_other_world_size(job, resume.folder or job.ckpt_dir / f"global_step_{resume.step}")
        refuse_changes(job, shape)
    command = launch_command(job, wandb_offline(job), schedule.span)
    if args.dry_run:
        if resume.note:
            show([Check("resume", "warn", resume.note)])
        print(shlex.join(command))
    elif resume.step >= total:
        print(f"finished already: step {resume.step} of {total} is saved in {job.ckpt_dir}; nothing is trained")
    else:
        resume.settle(job.ckpt_dir)
        record_start(job, shape, command, resume.step, total)
        args.argv_file.write_bytes("".join(f"{word}\0" for word in command).encode())
    return 0


# -------------------------------------------------------------------------------------------------- where to resume
@dataclass(frozen=True)
class ResumePoint:
    """The step that training goes on from, 0 for the start."""

    step: int
    tracker: int | None  # what verl's tracker file says; None: no readable one
    note: str = ""
    folder: Path | None = None  # where it lies, when trainer.resume_from_path names it

    def settle(self, ckpt_dir: Path) -> None:
        """Make verl's tracker say `step`: verl trusts it, crashes on a partial folder and starts over on a missing
        one."""
        if self.step and self.tracker != self.step:
            write_text(ckpt_dir / TRACKER, str(self.step))
        elif self.step == 0 and self.tracker is not None:
            (ckpt_dir / TRACKER).unlink(missing_ok=True)  # another node may have done it


def resume_point(job: Job) -> ResumePoint:
    """The tracker's checkpoint if it is whole, else the newest whole one before it (verl writes the tracker last)."""
    mode, path = job.config["trainer.resume_mode"], job.config.get("trainer.resume_from_path")
    if mode == "disable":
        return ResumePoint(0, tracker=None)
    if path or mode == "resume_path":
        found = re.search(r"global_step_(\d+)", str(path))
        if not found:
            raise BadInput(
                f"trainer.resume_from_path={path}: verl goes on from a folder global_step_N; name one, or "
                "leave RESUME_MODE=auto without it"
            )
        return ResumePoint(int(found[1]), tracker=int(found[1]), folder=Path(str(path)))
    tracker = read_tracker(job.ckpt_dir)
    fault = job_fault(job, tracker) if tracker is not None else f"no readable {TRACKER} in {job.ckpt_dir}"
    if tracker is not None and fault is None:
        return ResumePoint(tracker, tracker)
    steps = saved_steps(job.ckpt_dir)
    step = max((s for s in steps if (tracker is None or s < tracker) and job_fault(job, s) is None), default=0)
    if tracker is None and not steps:
        return ResumePoint(0, None)
    return ResumePoint(
        step,
        tracker,
        f"{fault}: "
        + (f"going on from global_step_{step}" if step else "no whole checkpoint before it, starting over"),
    )


def job_fault(job: Job, step: int) -> str | None:
    return checkpoint_fault(job.ckpt_dir / f"global_step_{step}", job.config["trainer.checkpoint.save_contents"])


def saved_steps(ckpt_dir: Path) -> list[int]:
    return sorted(int(p.name[12:]) for p in ckpt_dir.glob("global_step_*") if p.name[12:].isdecimal())


def read_tracker(ckpt_dir: Path) -> int | None:
    try:
        return int((ckpt_dir / TRACKER).read_text())
    except (OSError, ValueError):
        return None


def checkpoint_fault(folder: Path, contents: Collection[str] = ("model", "optimizer", "extra")) -> str | None:
    """Why training cannot go on from this checkpoint, None if it can: all ranks' shards are there and not torn.

    `contents` is verl's trainer.checkpoint.save_contents. torch.save writes zip files, whose directory stands at the
    end: a torn one has none. data.pt is the last file that verl writes.
    """
    if not folder.is_dir():
        return f"{folder} is gone"
    try:
        world_size = int(read_json(folder / "fsdp_config.json")["world_size"])
    except (BadInput, KeyError, TypeError, ValueError):
        return f"{folder} is partial: no whole fsdp_config.json"
    kinds = [prefix for content, prefix in SHARD_PREFIX.items() if content in contents]
    loader = (
        ["data.pt"] if not (folder / "data_0.pt").exists() else [f"data_{r}.pt" for r in range(world_size)]
    )  # fsdp, engine
    for name in [*(f"{k}_world_size_{world_size}_rank_{r}.pt" for k in kinds for r in range(world_size)), *loader]:
        if not (folder / name).is_file() or not zipfile.is_zipfile(folder / name):
            return f"{folder} is partial: no whole {name}"
    return None


def refuse_other_world_size(job: Job, folder: Path) -> None:
    """The shards and moments are cut for one number of processes; verl would end in a FileNotFoundError."""
    saved = read_json(folder / "fsdp_config.json")["world_size"]
    if saved != job.world_size:
        raise BadInput(
            f"{folder}: saved by {saved} processes, this run has {job.world_size}; run with {saved}, or start "
            "anew from its "
            f"weights with MODEL_PATH={folder}/huggingface and another CKPT_DIR (moments and schedule start over)"
        )


# --------------------------------------------------------------------------------------------- the record of the run
def run_shape(job: Job) -> dict[str, Any]:
    """What a resumed run must share with the one that saved its checkpoint: data, model, schedule, optimizer."""
    shape = {k: v for k, v in job.config.items() if k.startswith("optim.")} | {"trainer": job.trainer}
    for key in (
        "data.max_length",
        "data.truncation",
        "data.train_batch_size",
        "data.train_max_samples",
        "trainer.total_epochs",
    ):
        shape[key] = job.config.get(key)
    model = str(job.config["model.partial_pretrain"])  # a name on the Hub stays a name, downloaded meanwhile or not
    shape["model.partial_pretrain"] = f"sha256 {fingerprint(model)}" if Path(model).is_dir() else model
    shape["data.train_files"] = [f"sha256 {sha256_file(f)}" for f in job.files("data.train_files")]
    return shape


def refuse_changes(job: Job, shape: dict[str, Any]) -> None:
    """Data or schedule other than the first run's: the loader's position and the learning rate would not fit them."""
    path = job.ckpt_dir / RUN_FILE
    if not path.exists():  # checkpoints made without run_sft.sh
        return
    before = {"trainer": "fsdp"} | read_json(path)["shape"]  # runs from before there was a choice
    changed = [k for k in sorted(before.keys() | shape.keys()) if before.get(k) != shape.get(k)]
    if changed and job.environ.get("ALLOW_CHANGED_DATA") != "1":
        said = "; ".join(f"{k} was {before.get(k)}, is {shape.get(k)}" for k in changed)
        raise BadInput(
            f"{path}: the checkpoints were trained otherwise: {said}. Set it back, choose another CKPT_DIR, or "
            "set ALLOW_CHANGED_DATA=1"
        )


def run_file(job: Job) -> Path:
    """This node's record; run_sft.sh knows the name too. Several nodes share CKPT_DIR."""
    return job.ckpt_dir / (RUN_FILE if job.node_rank == 0 else f"train_run_node{job.node_rank}.json")


def record_start(job: Job, shape: dict[str, Any], command: list[str], step: int, total: int) -> None:
    path = run_file(job)
    sessions = read_json(path)["sessions"] if step and path.exists() else []
    write_json(
        path,
        {
            "status": "running",
            "expected_steps": total,
            "world_size": job.world_size,
            "shape": shape,
            "sessions": [*sessions, {"started": now(), "from_step": step}],
            "command": command,
            "stamp": run_stamp(job.config),
        },
    )


def report_end(job: Job) -> int:
    """Compare the last saved step with the expected one: verl exits 0 even where it trained nothing."""
    path = run_file(job)
    record = read_json(path)
    step, total = read_tracker(job.ckpt_dir) or 0, record["expected_steps"]
    fault = job_fault(job, step)
    if step != total or fault:
        print(
            (
                f"error: training ended at step {step} of {total}{f' ({fault})' if fault else ''}; run the same "
                "command again to go on"
            ),
            file=sys.stderr,
        )
        return 1
    write_json(path, record | {"status": "complete", "final_step": step, "finished": now()})
    print(f"trained: step {step} of {total} is saved in {job.ckpt_dir / f'global_step_{step}'}")
    return 0


def report_stop(job: Job, metrics: Path) -> int:
    """After a signal or a crash: the step that the next start goes on from, and how much is done again."""
    rows = list(metric_rows(metrics, job.ckpt_dir.name))
    trained, saved = max((r["step"] for r in rows), default=0), resume_point(job).step
    if job.node_rank:  # steps are logged on the first node alone
        print(f"saved up to step {saved}; the first node says how many steps after it are lost")
        return 0
    first = min((r["step"] for r in rows if "train/loss" in r and r["train/loss"] is None), default=None)
    if first is not None and saved >= first - 1:  # the update before it broke the weights
        print(
            f"train/loss is no number from step {first} on: global_step_{first - 1} and later hold broken "
            "weights; delete them, then set LR lower "
            "with ALLOW_CHANGED_DATA=1"
        )
    print(
        f"trained up to step {trained}, saved up to step {saved}: {max(trained - saved, 0)} steps after it are "
        "lost and done again by the next start"
    )
    return 0
