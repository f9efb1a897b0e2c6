"""Evaluate the new checkpoints of a training run, keep the best, warn early; one evaluator at a time.

    python -m phase1.checkpoints evaluate --checkpoint_dir DIR                # what run_eval_checkpoints.sh runs
    python -m phase1.checkpoints evaluate --checkpoint_dir DIR --watch 600 --gpus 7 \\
        --phase0_metrics outputs/phase0/metrics.json
    python -m phase1.checkpoints status --checkpoint_dir DIR    # a table of the steps, and outputs/status.html

Exit 0 done (or another one is at work), 1 a checkpoint could not be evaluated or kept, or is worse than Phase 0, 2 bad
input, busy GPUs or no disk space.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from phase1.checkpoints.arguments import build_parser, settings_from
from phase1.checkpoints.right_folder import refuse_other_folder, refuse_other_steps
from phase1.checkpoints.settings import Settings
from phase1.files import BadInput, only_one, run_script

# Flags of phase1_eval.py that are set for each checkpoint, or say that there is nothing to evaluate.
OURS = ("--step", "--datasets", "--best_checkpoint", "--model_path", "--rejudge", "--recompute")


# ----------------------------------------------------------------------------------------------------------------- main
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after the command's name; None: those of this process.

    Returns:
        The exit code: 0, or 1 when a checkpoint could not be evaluated or kept, or is worse than Phase 0.

    Raises:
        BadInput: a folder or file is missing or damaged, flags do not go together, GPUs are busy, or no disk space.
    """
    args, passed_on = build_parser(__doc__).parse_known_args(argv)
    if not args.checkpoint_dir.is_dir():
        raise BadInput(
            f"{args.checkpoint_dir}: no such folder; --checkpoint_dir is the one with the global_step_N folders"
        )
    args.checkpoint_dir, args.output_dir = args.checkpoint_dir.resolve(), args.output_dir.resolve()
    if args.phase0_metrics and not args.phase0_metrics.is_file():
        raise BadInput(
            f"{args.phase0_metrics}: no such file; --phase0_metrics is the metrics.json that phase1_eval.py "
            "wrote for the base model"
        )
    if args.command == "status":
        if bool(args.phase0_metrics) != bool(args.phase1_metrics):
            raise BadInput("--phase0_metrics and --phase1_metrics go together")
        if passed_on:
            raise BadInput(f"status has no flag {passed_on[0]}")
        show_status(args)
        return 0
    if args.phase1_metrics:
        raise BadInput("--phase1_metrics goes with status")
    if clash := [w for w in passed_on if w.split("=")[0] in OURS]:
        raise BadInput(
            f"{clash[0]}: this script sets it for each checkpoint; choose with --steps, --since and "
            "--tier2_every, or call phase1_eval.py itself"
        )
    refuse_other_folder(args.checkpoint_dir)
    refuse_other_steps(args.checkpoint_dir, args.output_dir, args.steps)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception: the evaluation that runs is ended first
    settings = settings_from(args, passed_on)
    if passed_on:
        with whole_environment():
            from phase1.checkpoints.passed_on import refuse_wrong_flags  # late, as below
        refuse_wrong_flags(settings)
    if settings.dry_run:  # writes nothing, so it needs no lock
        return run_passes(settings)
    lock = settings.output_dir / "eval.lock"
    with only_one(lock) as mine:
        if not mine:
            print(f"another evaluation is at work ({holder(lock)}); nothing to do")
            return 0
        return run_passes(settings)


def holder(lock: Path) -> str:
    """Who holds the lock and since when; the holder writes that a moment after it has the lock."""
    for _ in range(10):
        if text := lock.read_text():
            return text
        time.sleep(0.1)
    return "just started"


def run_passes(settings: Settings) -> int:
    """One pass, or with --watch one after the other until a signal ends it; returns the exit code of the one pass.

    Raises:
        BadInput: PYTHON is not the interpreter of the environment, or as `one_pass`.
    """
    with whole_environment():
        from phase1.checkpoints.one_pass import one_pass  # late: a start that finds the lock taken needs none of it
    if settings.watch is None:
        return one_pass(settings)
    while True:
        try:
            one_pass(settings)
        except (BadInput, OSError) as e:  # OSError: a file system that does not answer now may in the next pass
            print(f"error: {e}", file=sys.stderr, flush=True)
        print(f"next look in {settings.watch:g} s", flush=True)
        time.sleep(settings.watch)


@contextlib.contextmanager
def whole_environment() -> Iterator[None]:
    """Import in it what needs installed packages.

    Raises:
        BadInput: one is missing.
    """
    try:
        yield
    except ImportError as e:
        raise BadInput(
            f"{sys.executable}: {e}; set PYTHON to the interpreter of the environment of requirements.txt"
        ) from None


def show_status(args: argparse.Namespace) -> None:
    """Print the table of the steps, and write the page beside the evaluations."""
    from rich.console import Console

    from phase1.checkpoints.evaluations import warn_of_damaged
    from phase1.checkpoints.status import base_against_best, read_status, status_table
    from phase1.checkpoints.status_page import write_status_page

    status = read_status(args.checkpoint_dir, args.output_dir, args.train_log)
    console = Console(width=None if sys.stdout.isatty() else 160)
    warn_of_damaged(status.damaged)
    print(status.checkpoint_dir)
    console.print(status_table(status.rows))
    print(f"written: {write_status_page(status)}")
    if args.phase0_metrics:
        console.print(base_against_best(args.phase0_metrics, args.phase1_metrics))


if __name__ == "__main__":
    run_script(main)
