"""The command line of the evaluator, and the settings that it stands for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from phase1.arguments import Parser, output_folder
from phase1.checkpoints.settings import Settings

HERE = Path(__file__).resolve().parents[2]


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
def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line. What it does not know goes to phase1_eval.py, so no flag may be abbreviated."""
    p = Parser(description, prog="python -m phase1.checkpoints")
    p.epilog = "Further flags go to phase1_eval.py as they are."
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
        type=output_folder,
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
        help="evaluate the tier 2 set too at multiples of this step",
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
        help="failures after which a checkpoint is given up until its files change",
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
        help="refuse GPUs on which more is in use",
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
        help="keep the K best models as hard links in outputs/kept/, 0: none",
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
    """The settings of a pass, whose fields have the names of the flags.

    Args:
        args: what `build_parser` read.
        passed_on: the words that it did not know.
    """
    names = {f.name for f in fields(Settings)}
    values = {name: value for name, value in vars(args).items() if name in names}
    values["steps"] = tuple(args.steps)
    values["gpus"] = None if args.gpus is None else tuple(args.gpus)
    return Settings(**values, passed_on=tuple(passed_on))
