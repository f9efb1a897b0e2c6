"""Which model is evaluated, into which folder, and who may look at the test-only sets."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from phase1.contract.problems import EVAL_SETS
from phase1.contract.state import train_run
from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """What is evaluated and where the result goes."""

    model_path: Path
    step: int | None
    is_best: bool
    output_dir: Path


def find_target(args: argparse.Namespace) -> Target:
    """Turn --model_path, or --checkpoint_dir with --step, into a model directory and an output directory."""
    if args.model_path:
        if args.step or args.checkpoint_dir:
            raise BadInput("--model_path names the model by itself; leave out --checkpoint_dir and --step")
        if not args.output_dir:
            raise BadInput("--model_path needs --output_dir, for example --output_dir outputs/phase0")
        return Target(_model_dir(args.model_path), None, False, args.output_dir)
    if not args.checkpoint_dir or not args.step:
        raise BadInput("give --checkpoint_dir and --step, or --model_path")
    if not args.checkpoint_dir.is_dir():
        raise BadInput(f"{args.checkpoint_dir}: no such folder; --checkpoint_dir holds the global_step_N folders")
    path = args.best_checkpoint
    best = BestCheckpoint.read(path) if args.step == "best" or path.exists() else None
    if args.step == "best" and not args.output_dir:
        raise BadInput("--step best needs --output_dir, for example --output_dir outputs/eval_final")
    try:
        step = best.best_step if args.step == "best" and best else int(args.step)
    except ValueError:
        raise BadInput(f"--step {args.step}: neither a number nor a best_step in {args.best_checkpoint}") from None
    model = args.checkpoint_dir / f"global_step_{step}" / "huggingface"
    # A best_checkpoint.json of another run says nothing here: its model lies in this folder, or was kept beside the
    # file.
    best_model = Path((best.model_path if best else None) or "/").resolve()
    homes = (args.checkpoint_dir.resolve(), args.best_checkpoint.resolve().parent)
    is_best = best is not None and step == best.best_step and any(best_model.is_relative_to(home) for home in homes)
    if not model.is_dir() and is_best and best_model.is_dir():
        print(f"{model} is gone; evaluating {best_model}, which {args.best_checkpoint} names")
        model = best_model
    return Target(_model_dir(model), step, is_best, args.output_dir or ROOT / "outputs" / f"eval_step_{step}")


def _model_dir(path: Path) -> Path:
    path = path.resolve()  # it goes into best_checkpoint.json, which others read from elsewhere
    if not (path / "config.json").is_file():
        raise BadInput(
            f"{path}: no config.json there; a checkpoint without huggingface/ is converted by convert_fsdp_to_hf.py"
        )
    return path


def guard_test_sets(args: argparse.Namespace, target: Target) -> None:
    """The test-only sets are for the chosen checkpoint and for Phase 0: whoever looks at them earlier selects on
    them."""
    test_only = [d for d in args.datasets if EVAL_SETS[d].test_only]
    if test_only and target.step is not None and not target.is_best and not args.final:
        raise BadInput(
            f"--datasets {test_only[0]} is test-only and step {target.step} is not the best step of "
            f"{args.best_checkpoint}; choose the best first, or say --final"
        )


def training_model(checkpoint_dir: Path | None) -> Path | None:
    """The model that training started from, where train_run.json names one that is still there: its chat template was
    training's."""
    path = (checkpoint_dir or Path("/")) / train_run.NAME
    base = TrainRun.read(path).base_model if path.is_file() else None
    return Path(base) if base and (Path(base) / "tokenizer_config.json").is_file() else None
