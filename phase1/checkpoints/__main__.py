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
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from phase1.checkpoints.settings import Settings
from phase1.files import BadInput, only_one, run_script

HERE = Path(__file__).resolve().parents[2]
# Flags of phase1_eval.py that are set for each checkpoint, or say that there is nothing to evaluate.
OURS = ("--step", "--datasets", "--best_checkpoint", "--model_path", "--rejudge", "--recompute")


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number that is not below `low`."""

    def parse(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text}: at least {low}")
        return value

    return parse


def at_least_float(low: float) -> Callable[[str], float]:
    """An argparse type: a number that is not below `low`."""

    def parse(text: str) -> float:
        value = float(text)
        if not value >= low:
            raise argparse.ArgumentTypeError(f"{text}: at least {low:g}")
        return value

    return parse


def gpu_list(text: str) -> list[int]:
    """An argparse type: numbers joined by commas."""
    return [int(number) for number in text.split(",")]


# ------------------------------------------------------------------------------------------------------------ arguments
def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="phase1.checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Further flags go to phase1_eval.py as they are.",
    )
    p.add_argument("command", choices=["evaluate", "status"])

    g = p.add_argument_group("where things lie")
    g.add_argument(
        "--checkpoint_dir",
        type=Path,
        default=HERE / "checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder",
        help="folder of the global_step_N folders (default: checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder)",
    )
    g.add_argument(
        "--output_dir",
        type=Path,
        default=HERE / "outputs",
        help="eval_step_N folders, best_checkpoint.json and all else go here (default: outputs)",
    )
    g.add_argument("--manifest_dir", type=Path, default=HERE / "data/manifests", help="default: data/manifests")

    g = p.add_argument_group("which checkpoints, and when")
    g.add_argument("--steps", type=int, nargs="+", default=(), help="only these steps")
    g.add_argument("--since", type=int, default=Settings.since, metavar="STEP", help="only this step and later ones")
    g.add_argument(
        "--tier2_every",
        type=at_least(1),
        default=Settings.tier2_every,
        metavar="STEPS",
        help="evaluate the tier 2 set too at multiples of this step (default: %(default)s)",
    )
    when = g.add_mutually_exclusive_group()
    when.add_argument("--once", action="store_true", help="one pass, then end (default)")
    when.add_argument(
        "--watch",
        type=at_least_float(1),
        metavar="SECONDS",
        help="pass after pass, this long apart, until stopped",
    )
    g.add_argument("--dry_run", action="store_true", help="print what would be done and why each other step is skipped")
    g.add_argument(
        "--settle",
        type=at_least_float(0),
        default=Settings.settle,
        metavar="SECONDS",
        help="a checkpoint whose files change within this time is left for later (default: %(default)g)",
    )
    g.add_argument(
        "--max_attempts",
        type=at_least(1),
        default=Settings.max_attempts,
        help="failures after which a checkpoint is given up until its files change (default: %(default)s)",
    )

    g = p.add_argument_group("the model")
    g.add_argument(
        "--base_model",
        help="gives config and tokenizer to a checkpoint that is converted and has none (default: the one in "
        "train_run.json)",
    )
    g.add_argument(
        "--dtype", choices=["bfloat16", "float32"], help="of the conversion and of the evaluation (default: bfloat16)"
    )

    g = p.add_argument_group("the machine, on which training may run")
    g.add_argument(
        "--gpus",
        type=gpu_list,
        metavar="N[,N…]",
        help="run on these GPUs only, by nvidia-smi's index (default: all that are visible)",
    )
    g.add_argument(
        "--max_gpu_mem_used",
        type=at_least(0),
        default=Settings.max_gpu_mem_used,
        metavar="MIB",
        help="refuse GPUs on which more is in use (default: %(default)s)",
    )
    g.add_argument("--force", action="store_true", help="take the GPUs although more is in use")
    g.add_argument(
        "--min_free_gb",
        type=at_least_float(0),
        default=Settings.min_free_gb,
        metavar="GB",
        help="wait until the output directory's disk has this much room (default: %(default)g)",
    )
    g.add_argument(
        "--max_wait",
        type=at_least_float(0),
        default=Settings.max_wait,
        metavar="SECONDS",
        help="give up waiting for disk space after this time (default: %(default)g)",
    )

    g = p.add_argument_group("what is kept, and what is deleted")
    g.add_argument(
        "--keep_best",
        type=at_least(0),
        default=Settings.keep_best,
        metavar="K",
        help="keep the K best models as hard links in outputs/kept/, 0: none (default: %(default)s)",
    )
    g.add_argument(
        "--prune", action="store_true", help="delete evaluated checkpoints that are neither best, latest nor in use"
    )

    g = p.add_argument_group("comparison with Phase 0")
    g.add_argument(
        "--phase0_metrics",
        type=Path,
        help="metrics.json of the base model: exit 1 when a checkpoint is significantly worse",
    )
    g.add_argument(
        "--phase1_metrics",
        type=Path,
        help="with status: metrics.json of the final evaluation, to show beside --phase0_metrics",
    )

    g = p.add_argument_group("status")
    g.add_argument(
        "--train_log", type=Path, nargs="+", help="logs of the training run (default: outputs/logs/sft_*.log)"
    )
    return p


def settings_from(args: argparse.Namespace, passed_on: Sequence[str]) -> Settings:
    """What a pass is told; the flags have the names of its fields."""
    names = {f.name for f in fields(Settings)}
    values = {name: value for name, value in vars(args).items() if name in names}
    values["steps"] = tuple(args.steps)
    values["gpus"] = None if args.gpus is None else tuple(args.gpus)
    return Settings(**values, passed_on=tuple(passed_on))


# ----------------------------------------------------------------------------------------------------------------- main
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args, passed_on = build_parser().parse_known_args(argv)
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception: the evaluation that runs is ended first
    settings = settings_from(args, passed_on)
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
    """One pass, or with --watch one after the other until a signal ends it; returns the exit code of the one pass."""
    try:
        from phase1.checkpoints.one_pass import one_pass  # late: a start that finds the lock taken needs none of it
    except ImportError as e:
        raise BadInput(
            f"{sys.executable}: {e}; set PYTHON to the interpreter of the environment of requirements.txt"
        ) from None
    if settings.watch is None:
        return one_pass(settings)
    while True:
        try:
            one_pass(settings)
        except (BadInput, OSError) as e:  # OSError: a file system that does not answer now may in the next pass
            print(f"error: {e}", file=sys.stderr, flush=True)
        print(f"next look in {settings.watch:g} s", flush=True)
        time.sleep(settings.watch)


def show_status(args: argparse.Namespace) -> None:
    """The table, and the page beside the evaluations."""
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
