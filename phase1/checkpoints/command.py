"""Checkpoints in the night: evaluate what is new, keep the best, warn early; one evaluator at a time.

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
from pathlib import Path

from phase1.files import BadInput, only_one

HERE = Path(__file__).resolve().parents[2]
# Flags of phase1_eval.py that are set for each checkpoint, or say that there is nothing to evaluate.
OURS = ("--step", "--datasets", "--best_checkpoint", "--model_path", "--rejudge", "--recompute")


def at_least(low: float, kind: type = int):
    """An argparse type: a number of `kind` that is not below `low`."""

    def parse(text: str):
        if (value := kind(text)) < low:
            raise argparse.ArgumentTypeError(f"{text}: at least {low:g}")
        return value

    return parse


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    p = argparse.ArgumentParser(
        prog="phase1.checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Further flags go to phase1_eval.py as they are.",
    )
    p.add_argument("command", choices=["evaluate", "status"])
    # where
    p.add_argument(
        "--checkpoint_dir",
        type=Path,
        default=HERE / "checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder",
        help="folder of the global_step_N folders (default: checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder)",
    )
    p.add_argument(
        "--output_dir",
        type=Path,
        default=HERE / "outputs",
        help="eval_step_N folders, best_checkpoint.json and all else go here (default: outputs)",
    )
    p.add_argument("--manifest_dir", type=Path, default=HERE / "data/manifests", help="default: data/manifests")
    # what and when
    p.add_argument("--steps", type=int, nargs="+", help="only these steps")
    p.add_argument("--since", type=int, metavar="STEP", help="only this step and later ones")
    p.add_argument(
        "--tier2_every",
        type=at_least(1),
        default=2000,
        metavar="STEPS",
        help="evaluate the tier 2 set too at multiples of this step (default: 2000)",
    )
    when = p.add_mutually_exclusive_group()
    when.add_argument("--once", action="store_true", help="one pass, then end (default)")
    when.add_argument(
        "--watch", type=at_least(1, float), metavar="SECONDS", help="pass after pass, this long apart, until stopped"
    )
    p.add_argument("--dry_run", action="store_true", help="print what would be done and why each other step is skipped")
    p.add_argument(
        "--settle",
        type=at_least(0, float),
        default=5.0,
        metavar="SECONDS",
        help="a checkpoint whose files change within this time is left for later (default: 5)",
    )
    p.add_argument(
        "--max_attempts",
        type=at_least(1),
        default=3,
        help="failures after which a checkpoint is given up until its files change (default: 3)",
    )
    # how: the model
    p.add_argument(
        "--base_model",
        help=(
            "gives config and tokenizer to a checkpoint that is converted and has none (default: the one in "
            "train_run.json)"
        ),
    )
    p.add_argument(
        "--dtype", choices=["bfloat16", "float32"], help="of the conversion and of the evaluation (default: bfloat16)"
    )
    # the machine, while training runs
    p.add_argument(
        "--gpus",
        type=lambda text: [int(g) for g in text.split(",")],
        metavar="N[,N…]",
        help="run on these GPUs only, by nvidia-smi's index (default: all that are visible)",
    )
    p.add_argument(
        "--max_gpu_mem_used",
        type=at_least(0),
        default=2000,
        metavar="MIB",
        help="refuse GPUs on which more is in use (default: 2000)",
    )
    p.add_argument("--force", action="store_true", help="take the GPUs although they are busy")
    p.add_argument(
        "--min_free_gb",
        type=at_least(0, float),
        default=2.0,
        help="wait until the output directory's disk has this much room (default: 2)",
    )
    p.add_argument(
        "--max_wait",
        type=at_least(0, float),
        default=3600.0,
        metavar="SECONDS",
        help="give up waiting for disk space after this time (default: 3600)",
    )
    # what is kept, what may go
    p.add_argument(
        "--keep_best",
        type=at_least(0),
        default=1,
        metavar="K",
        help="keep the K best models as hard links in outputs/kept/, 0: none (default: 1)",
    )
    p.add_argument(
        "--prune", action="store_true", help="delete evaluated checkpoints that are neither best, latest nor in use"
    )
    # early warning; with status, --phase0_metrics and --phase1_metrics show the two side by side
    p.add_argument(
        "--phase0_metrics",
        type=Path,
        help="metrics.json of the base model: exit 1 when a checkpoint is significantly worse",
    )
    p.add_argument(
        "--on_regression",
        metavar="COMMAND",
        help="shell command to run then; the numbers are in $PHASE1_REGRESSION, the step in $PHASE1_STEP",
    )
    p.add_argument(
        "--phase1_metrics",
        type=Path,
        help="with status: metrics.json of the final evaluation, to show beside --phase0_metrics",
    )
    p.add_argument(
        "--train_log",
        type=Path,
        nargs="+",
        help="with status: logs of the training run (default: outputs/logs/sft_*.log)",
    )
    return p.parse_known_args()


def main() -> int:
    args, passed_on = parse_args()
    if not args.checkpoint_dir.is_dir():
        raise BadInput(
            f"{args.checkpoint_dir}: no such folder; name the one that holds the global_step_N folders with "
            "--checkpoint_dir"
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
            raise BadInput(f"status knows no {passed_on[0]}")
        return show_status(args)
    if args.phase1_metrics:
        raise BadInput("--phase1_metrics goes with status")
    if clash := [w for w in passed_on if w.split("=")[0] in OURS]:
        raise BadInput(
            f"{clash[0]}: this script sets it for each checkpoint; choose with --steps, --since and "
            "--tier2_every, or call phase1_eval.py itself"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: the evaluation that runs is ended with us
    if args.dry_run:  # writes nothing, so it needs no lock
        return evaluate(args, passed_on)
    with only_one(args.output_dir / "eval.lock") as mine:
        if not mine:
            print(f"another evaluation is at work ({holder(args.output_dir / 'eval.lock')}); nothing to do")
            return 0
        return evaluate(args, passed_on)


def holder(lock: Path) -> str:
    """Who holds the lock and since when; it writes that a moment after it has the lock."""
    for _ in range(10):
        if text := lock.read_text():
            return text
        time.sleep(0.1)
    return "just started"


def evaluate(args: argparse.Namespace, passed_on: list[str]) -> int:
    """One pass, or with --watch one after the other until a signal ends it."""
    try:
        from phase1.checkpoints.one_pass import one_pass  # late: a start that finds the lock taken needs none of it
    except ImportError as e:
        raise BadInput(
            f"{sys.executable}: {e}; set PYTHON to the interpreter of the environment of requirements.txt"
        ) from None

    while True:
        try:
            code = one_pass(args, passed_on)
        except (BadInput, OSError) as e:  # OSError: a file system that does not answer now may in the next pass
            if args.watch is None:
                raise
            print(f"error: {e}", file=sys.stderr, flush=True)
        if args.watch is None:
            return code
        print(f"next look in {args.watch:g} s", flush=True)
        time.sleep(args.watch)


def show_status(args: argparse.Namespace) -> int:
    """The table, and the page beside the evaluations."""
    from rich.console import Console

    from phase1.checkpoints.status import base_against_best, status_rows, status_table, write_status_page

    rows = status_rows(args)
    console = Console(width=None if sys.stdout.isatty() else 160)
    print(args.checkpoint_dir)
    console.print(status_table(rows))
    print(f"written: {write_status_page(args, rows)}")
    if args.phase0_metrics:
        console.print(base_against_best(args.phase0_metrics, args.phase1_metrics))
    return 0
