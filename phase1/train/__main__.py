"""The training stage around verl: check the job, decide where it resumes, record it, and say afterwards whether it
ended.

    python -m phase1.train --dry_run -- [HYDRA_OVERRIDE …]            # print checks and command, write nothing
    python -m phase1.train --argv_file FILE -- [HYDRA_OVERRIDE …]     # record the start, write the command to FILE
    python -m phase1.train --stopped METRICS --log LOG -- [HYDRA_OVERRIDE …]   # after a crash or a signal: what is lost
    python -m phase1.train --finished -- [HYDRA_OVERRIDE …]           # afterwards: exit 0 if the last step is saved
    python -m phase1.train --preset small --given LR,EPOCHS -- [HYDRA_OVERRIDE …]   # variables that fit the rows

Called by run_sft.sh, where the variables and their defaults stand. FILE stays empty when nothing is left to train.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from phase1.arguments import Parser
from phase1.files import BadInput, run_script
from phase1.train.hydra_grammar import parse_override
from phase1.train.job import Job, launch_command, read_job
from phase1.train.nodes import lock_wait, meet_nodes, refuse_start_over
from phase1.train.preflight.checks import Check, refuse_failed, run_checks, show
from phase1.train.preflight.outcome import warns
from phase1.train.preflight.tracking import wandb_offline
from phase1.train.record import record_finished, record_start, refuse_changes, report_end, report_stop, run_shape
from phase1.train.resume import refuse_other_world_size, resume_point
from phase1.train.saving import copy_ended, failure_of, ready_to_start, show_removed, staging_folder
from phase1.train.schedule import schedule_of, used_rows
from phase1.train.small_data import fit_to_rows
from phase1.train.verl_version import SETTINGS


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__, prog="python -m phase1.train")
    group = parser.add_argument_group("what to do, one of these", "run_sft.sh calls each in its turn")
    what, more = group.add_mutually_exclusive_group(required=True), parser.add_argument_group("what goes with these")
    what.add_argument("--dry_run", action="store_true", help="print checks and command, write nothing")
    what.add_argument("--argv_file", type=Path, help="write the command here; left empty when nothing is left to train")
    what.add_argument(
        "--stopped", type=Path, metavar="METRICS", help="read train_metrics.jsonl and say what was saved and lost"
    )
    what.add_argument("--finished", action="store_true", help="compare the last saved step with the expected one")
    what.add_argument(
        "--preset", choices=["small"], help="print the variables that must change for few rows, and say why"
    )
    more.add_argument(
        "--given", default="", metavar="NAMES", help="with --preset: variables to leave, with commas between"
    )
    more.add_argument("--log", type=Path, help="with --stopped: the console log, whose root exception is said last")
    more.add_argument("overrides", nargs="*", help="Hydra overrides for verl, after all of ours")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    job = read_job(dict(os.environ), args.overrides)
    if args.preset:
        show_preset(job, args.given.split(","), args.overrides)
        return 0
    if args.finished or args.stopped:
        copy_ended(job.ckpt_dir)
        failure = failure_of(staging_folder(job.ckpt_dir))
        if job.node_rank == 0:  # memory is free again without a next start
            show_removed(job.ckpt_dir)
        if args.finished:
            return report_end(job, failure)
        report_stop(job, args.stopped, args.log, failure)
        return 0
    if args.dry_run:
        checks = run_checks(job)
        show(checks)
        if any(check.failed for check in checks):
            show_command(job)  # people look at it to see what is wrong
        refuse_failed(checks)
    elif job.node_rank == 0:
        ready_to_start(job.ckpt_dir, lock_wait(job))
    schedule, resume, shape = schedule_of(job), resume_point(job), run_shape(job)
    refuse_start_over(job, resume)
    if resume.step:
        refuse_other_world_size(job, resume)
        refuse_changes(job, shape)
    command = launch_command(job, wandb_offline=wandb_offline(job), schedule_steps=schedule.span)
    if args.dry_run:
        if resume.note:
            show([Check("resume", warns(resume.note))])
        print(shlex.join(command))
    elif resume.step >= schedule.total_steps:
        place = f"step {resume.step} of {schedule.total_steps} is saved in {job.ckpt_dir}"
        print(f"finished already: {place}; nothing is trained")
        record_finished(job, resume.step)
    else:
        meet_nodes(job)
        resume.settle(job.ckpt_dir)
        write_command(args.argv_file, command)  # before the record, which says that the run began
        record_start(job, shape, command, step=resume.step, total=schedule.total_steps)
    return 0


def write_command(path: Path, command: Sequence[str]) -> None:
    """Write a command's words, each with a NUL behind it. Raises BadInput where there is no room."""
    try:
        path.write_bytes("".join(f"{word}\0" for word in command).encode())
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror}; make room there, or set TMPDIR to another folder") from None


def show_preset(job: Job, given: Collection[str], overrides: Iterable[str]) -> None:
    """Print the variables that --preset small sets, a line each, and on stderr one line that says why.

    Args:
        job: the run as it is without the preset.
        given: variables that the user has set.
        overrides: the trailing ones, which are the user's too.
    """
    theirs = {key for word in overrides for key in parse_override(word)}
    given = {*given, *(s.variable for s in SETTINGS if s.variable and s.key_of(job.trainer) in theirs)}
    fitted = fit_to_rows(job, given)
    for one in fitted:
        print(f"{one.variable}={one.value}")
    what = ", ".join(map(str, fitted)) or "nothing had to change"
    print(f"preset small, for {used_rows(job, 'train')} rows: {what}", file=sys.stderr)


def show_command(job: Job) -> None:
    """Print the command of a job that is refused, as far as it can be told."""
    try:
        span: int | None = schedule_of(job).span
    except BadInput:
        span = None
    with contextlib.suppress(BadInput):
        print(shlex.join(launch_command(job, wandb_offline=wandb_offline(job), schedule_steps=span)))


if __name__ == "__main__":
    run_script(main)
