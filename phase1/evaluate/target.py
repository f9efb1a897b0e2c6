"""What is evaluated: the model, the folder for the result, and whether it may see the test-only sets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from phase1.contract.problems import EVAL_SETS, EvalSet
from phase1.contract.state import train_run
from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.contract.state.tracker import steps_told
from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput, fingerprint
from phase1.model.hub import how_to_get
from phase1.model.matches_base import config_failures, reads_old_form_alone, rope_lost
from phase1.model.matches_config import check_model
from phase1.model.small_files import read_object, refuse_torn_json
from phase1.model.tokenizer import COPY_FROM_BASE, TOKENIZER_FILES, refuse_newer_tokenizer


@dataclass(frozen=True)
class TargetChoice:
    """How a user names what is evaluated: `model_path`, or `checkpoint_dir` with `step` (a number, or `best`)."""

    model_path: Path | None
    checkpoint_dir: Path | None
    step: str | None
    best_checkpoint: Path
    output_dir: Path | None


@dataclass(frozen=True)
class Target:
    """What is evaluated and where the result goes. `step` is None for a model that is no checkpoint."""

    model_path: Path
    step: int | None
    is_best: bool
    output_dir: Path


def find_target(choice: TargetChoice, outputs: Path) -> Target:
    """The model directory and output folder that `choice` names.

    Args:
        outputs: where eval_step_N lies unless the choice names an output folder.

    Raises:
        BadInput: the choice is incomplete, contradicts itself, or names what is not there.
    """
    if choice.model_path:
        if choice.step or choice.checkpoint_dir:
            raise BadInput("--model_path names the model; leave out --checkpoint_dir and --step")
        if not choice.output_dir:
            raise BadInput("--model_path needs --output_dir, for example --output_dir outputs/phase0")
        if not choice.model_path.is_dir():
            raise BadInput(f"{choice.model_path}: no such folder; {how_to_get(str(choice.model_path))}")
        return Target(_model_dir(choice.model_path), None, False, choice.output_dir)
    if not choice.checkpoint_dir or not choice.step:
        raise BadInput("give --checkpoint_dir and --step, or --model_path")
    if not choice.checkpoint_dir.is_dir():
        raise BadInput(f"{choice.checkpoint_dir}: no such folder; --checkpoint_dir holds the global_step_N folders")
    if choice.step == "best" and not choice.output_dir:
        raise BadInput("--step best needs --output_dir, for example --output_dir outputs/eval_final")
    best = None
    if choice.step == "best" or choice.best_checkpoint.exists():
        best = BestCheckpoint.read(choice.best_checkpoint)
    step = _step_number(choice, best)
    best_model = _best_model(choice, choice.checkpoint_dir, best) if best and best.best_step == step else None
    model = choice.checkpoint_dir / f"global_step_{step}" / "huggingface"
    if best_model and best_model.is_dir() and not model.is_dir():
        print(f"{model} is gone; evaluating {best_model}, which {choice.best_checkpoint} names")
        model = best_model
    if not model.parent.is_dir():
        raise BadInput(f"{choice.checkpoint_dir}: no step {step}; {steps_told(choice.checkpoint_dir)}")
    output_dir = choice.output_dir or outputs / f"eval_step_{step}"
    found = _model_dir(model)
    if best and best_model and best.fingerprint not in (None, fingerprint(found)):
        if choice.step == "best":
            raise BadInput(
                f"{found}: is not the model that {choice.best_checkpoint} chose as step {step} (fingerprint differs: "
                "trained again, or one of the two was changed); run run_eval_checkpoints.sh, which chooses anew"
            )
        best_model = None
    return Target(found, step, best_model is not None, output_dir)


def _step_number(choice: TargetChoice, best: BestCheckpoint | None) -> int:
    if choice.step == "best" and best:
        return best.best_step
    try:
        return int(choice.step or "")
    except ValueError:
        there = steps_told(choice.checkpoint_dir) if choice.checkpoint_dir else ""
        raise BadInput(f"--step {choice.step}: neither a number nor `best`; {there}") from None


def _best_model(choice: TargetChoice, checkpoint_dir: Path, best: BestCheckpoint) -> Path | None:
    """The best model, where best_checkpoint.json speaks of this training run; None where it is another run's.

    Its model lies in the run's own folder or was kept beside best_checkpoint.json; in a project that was moved or
    copied, the model of that step in either place is the chosen one if its files are.
    """
    home = choice.best_checkpoint.resolve().parent
    model = best.model_dir(choice.best_checkpoint.resolve()) or Path("/")
    if any(model.resolve().is_relative_to(place) for place in (checkpoint_dir.resolve(), home)):
        return model.resolve()
    for place in (checkpoint_dir, home / "kept"):
        here = place / f"global_step_{best.best_step}" / "huggingface"
        if best.fingerprint is not None and here.is_dir() and fingerprint(here) == best.fingerprint:
            return here.resolve()
    return None


def _model_dir(path: Path) -> Path:
    """The absolute path of a model directory: it goes into run.json, which is read from anywhere."""
    path = path.resolve()
    if not (path / "config.json").is_file():
        raise BadInput(
            f"{path}: no config.json there; a checkpoint without huggingface/ is converted by convert_fsdp_to_hf.py"
        )
    return path


def check_loadable(model: Path, base: Path | None, *, backend: str, served: bool) -> None:
    """Refuse a model that would be loaded as another one than was trained, before anything loads it.

    What could not be compared, or looks odd, is a warning on stderr.

    Args:
        model: the model directory.
        base: the model that training started from, where that is known.
        backend: of the generation; transformers is this Python's own.
        served: running servers hold the weights (--vllm_url), so that they need not lie here too.

    Raises:
        BadInput: names the tensor, the field or the file, and what to do.
    """
    refuse_torn_json(model)
    if not (model / "tokenizer_config.json").is_file():
        raise BadInput(f"{model}: no tokenizer_config.json; {COPY_FROM_BASE}")
    if not any((model / name).is_file() for name in TOKENIZER_FILES):
        raise BadInput(f"{model}: no tokenizer ({', '.join(TOKENIZER_FILES)}); {COPY_FROM_BASE}")
    refuse_newer_tokenizer(model)
    config = read_object(model / "config.json")
    of_base = read_object(base / "config.json") if base and (base / "config.json").is_file() else {}
    if failures := config_failures(config, of_base):
        raise BadInput(f"{model / 'config.json'}: {failures[0]}; copy the value that was trained")
    doubts = []
    if lost := rope_lost(config):
        if backend == "transformers" and reads_old_form_alone():
            raise BadInput(f"{model / 'config.json'}: {lost}")
        doubts.append(lost)
    if served and not any(p.suffix in (".safetensors", ".bin") for p in model.iterdir()):
        doubts.append("no weights here; those of the running server are not checked")
    else:
        doubts += check_model(model).doubts
    for doubt in doubts:
        print(f"warning: {model}: {doubt}", file=sys.stderr)


def training_model(checkpoint_dir: Path | None) -> Path | None:
    """The model that training started from, whose chat template was training's.

    None where no train_run.json names one, or where it is not a folder with a tokenizer (a name on the Hub, or moved).

    Raises:
        BadInput: train_run.json is damaged.
    """
    path = checkpoint_dir / train_run.NAME if checkpoint_dir else None
    named = TrainRun.read(path).base_model if path and path.is_file() else None
    return Path(named) if named and (Path(named) / "tokenizer_config.json").is_file() else None


def guard_test_sets(
    target: Target,
    datasets: Iterable[str],
    allowed: bool,
    best_checkpoint: Path,
    sets: Mapping[str, EvalSet] = EVAL_SETS,
) -> None:
    """Refuse the test-only sets to a checkpoint that is not the chosen one: who looks at them earlier selects on them.

    Args:
        allowed: the user insists (--final).
        sets: all sets by name.

    Raises:
        BadInput: a set is refused.
    """
    test_only = [d for d in datasets if sets[d].test_only]
    if not test_only or target.step is None or target.is_best or allowed:
        return
    refused = f"--datasets {test_only[0]} is test-only"
    if not best_checkpoint.exists():
        raise BadInput(
            f"{refused}, and no checkpoint is chosen yet: there is no {best_checkpoint}; run "
            "run_eval_checkpoints.sh, or name the file with --best_checkpoint"
        )
    best = BestCheckpoint.read(best_checkpoint)
    if best.best_step == target.step:
        raise BadInput(
            f"{refused}, and {best_checkpoint} chose step {target.step} of another run, or as it was before "
            f"({best.model_path}); name this run's file with --best_checkpoint, or choose anew with "
            "run_eval_checkpoints.sh"
        )
    raise BadInput(
        f"{refused}, and {best_checkpoint} chose step {best.best_step}, not {target.step}; evaluate --step best, or "
        "say --final"
    )
