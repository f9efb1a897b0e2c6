"""Which model is evaluated, and whether it may see the test-only sets."""

import json
import shutil
from pathlib import Path

import pytest

from phase1.contract.state.base import path_beside
from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.evaluate.target import Target, TargetChoice, find_target, guard_test_sets, training_model
from phase1.files import BadInput, fingerprint
from phase1.train.record import record_start, run_shape
from tests.train.sft_runs import job_of


def model_dir(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A training run's folder with one checkpoint."""
    model_dir(tmp_path / "ckpt" / "global_step_7" / "huggingface")
    return tmp_path


def find(run_dir: Path, *, best: dict | None = None, **changes: object) -> Target:
    """The target of the run's folder; `best` is written as best_checkpoint.json."""
    path = run_dir / "best_checkpoint.json"
    if best:
        path.write_text(json.dumps(best))
    choice = {
        "model_path": None,
        "checkpoint_dir": run_dir / "ckpt",
        "step": None,
        "best_checkpoint": path,
        "output_dir": None,
    }
    return find_target(TargetChoice(**{**choice, **changes}), run_dir / "outputs")


ELSEWHERE = {"best_step": 9, "model_path": "/elsewhere/global_step_9/huggingface"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"step": "8"}, "ckpt: no step 8; there are 7"),
        ({"step": "9", "best": ELSEWHERE}, "ckpt: no step 9; there are 7"),  # another run's best
        ({"step": "seven"}, "--step seven: neither a number nor `best`"),
        ({"step": "best", "best": ELSEWHERE}, "--step best needs --output_dir"),
        ({"step": "best", "output_dir": Path("o")}, "best_checkpoint.json: no such file"),
        ({"step": "best", "output_dir": Path("o"), "best": {"step": 7}}, "best_checkpoint.json: best_step: "),
        ({}, "give --checkpoint_dir and --step, or --model_path"),
        ({"step": "7", "checkpoint_dir": Path("nowhere")}, "nowhere: no such folder"),
        ({"step": "7", "model_path": Path("m")}, "leave out --checkpoint_dir and --step"),
        ({"model_path": Path("m"), "checkpoint_dir": None}, "--model_path needs --output_dir"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.split()[0].split("/")[-1],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(run_dir, choice, message):
    with pytest.raises(BadInput) as refused:
        find(run_dir, **choice)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_step_goes_to_its_own_folder_unless_another_is_named(run_dir):
    assert find(run_dir, step="7").output_dir == run_dir / "outputs" / "eval_step_7"
    assert find(run_dir, step="7", output_dir=run_dir / "o").output_dir == run_dir / "o"


def test_the_best_step_is_that_of_this_run_only(run_dir):
    own = {"best_step": 7, "model_path": str(run_dir / "ckpt" / "global_step_7" / "huggingface")}
    assert find(run_dir, step="7", best=own).is_best
    assert not find(run_dir, step="7", best={"best_step": 7, "model_path": "/elsewhere/huggingface"}).is_best
    assert not find(run_dir, step="7", best={**own, "best_step": 6}).is_best


def test_a_best_checkpoint_that_verl_rotated_away_is_found_at_its_protected_copy(run_dir):
    kept = run_dir / "kept"
    (run_dir / "ckpt" / "global_step_7" / "huggingface").rename(kept)
    best = {"best_step": 7, "model_path": str(kept)}
    target = find(run_dir, step="best", best=best, output_dir=run_dir / "eval_final")
    assert target == Target(kept.resolve(), 7, True, run_dir / "eval_final")


def project(folder: Path, weights: str = "trained") -> Path:
    """A project with a checkpoint of step 7, chosen as the night chooses it."""
    model = folder / "checkpoints/global_step_7/huggingface"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"weights": weights}))
    best = folder / "outputs/best_checkpoint.json"
    BestCheckpoint(best_step=7, model_path=path_beside(model, best), fingerprint=fingerprint(model)).write(best)
    return folder


def chosen_in(folder: Path, best: Path | None = None) -> Target:
    choice = TargetChoice(
        None,
        folder / "checkpoints",
        "7",
        best or folder / "outputs/best_checkpoint.json",
        folder / "outputs/eval_final",
    )
    return find_target(choice, folder / "outputs")


@pytest.mark.parametrize("original", ["stays", "goes"])
def test_a_project_that_was_copied_or_moved_still_knows_its_best(tmp_path, original):
    project(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    if original == "goes":
        shutil.rmtree(tmp_path / "a")
    assert chosen_in(tmp_path / "b").is_best
    file = tmp_path / "b/outputs/best_checkpoint.json"
    best = BestCheckpoint.read(file)
    assert best.model_path == "../checkpoints/global_step_7/huggingface"
    assert best.model_dir(file) == tmp_path / "b/checkpoints/global_step_7/huggingface"


@pytest.mark.parametrize("weights", ["trained", "others"])
def test_an_absolute_path_of_before_does_not_hide_the_very_model(tmp_path, weights):
    project(tmp_path / "a")
    best = tmp_path / "a/outputs/best_checkpoint.json"
    BestCheckpoint.read(best).model_copy(update={"model_path": "/gone/global_step_7/huggingface"}).write(best)
    moved = project(tmp_path / "b", weights)
    shutil.copy(best, moved / "outputs/best_checkpoint.json")
    assert chosen_in(moved).is_best is (weights == "trained")


@pytest.mark.parametrize("change", ["trained again", "another step named"])
def test_a_step_whose_model_is_not_the_chosen_one_is_not_the_best(tmp_path, change):
    folder = project(tmp_path / "a")
    file = folder / "outputs/best_checkpoint.json"
    if change == "trained again":
        (folder / "checkpoints/global_step_7/huggingface/config.json").write_text('{"weights": "others"}')
        step = 7
    else:
        model_dir(folder / "checkpoints/global_step_5/huggingface")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"best_step": 5}))
        step = 5
    with pytest.raises(BadInput, match=f"is not the model that .*best_checkpoint.json chose as step {step}"):
        find_target(TargetChoice(None, folder / "checkpoints", "best", file, folder / "o"), folder / "outputs")
    target = find_target(TargetChoice(None, folder / "checkpoints", str(step), file, None), folder / "outputs")
    assert not target.is_best  # so the test-only sets stay closed


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (None, "no checkpoint is chosen yet"),
        ({"best_step": 7, "model_path": "/elsewhere"}, "chose step 7 of another run, or as it was before (/elsewhere)"),
        ({"best_step": 6, "model_path": "x"}, "chose step 6, not 7; evaluate --step best, or say --final"),
    ],
    ids=["none", "another run", "another step"],
)
def test_a_refusal_of_the_test_sets_says_what_would_help(tmp_path, best, words):
    file = tmp_path / "best_checkpoint.json"
    if best is not None:
        file.write_text(json.dumps(best))
    with pytest.raises(BadInput) as refused:
        guard_test_sets(Target(Path("m"), 7, False, Path("o")), ["humaneval"], False, file)
    assert words in str(refused.value) and ("--final" in str(refused.value)) is (words.endswith("--final"))


@pytest.mark.parametrize(
    ("step", "is_best", "allowed", "dataset", "refused"),
    [
        (7, False, False, "humaneval", True),
        (7, False, True, "humaneval", False),
        (7, True, False, "humaneval", False),
        (None, False, False, "humaneval", False),  # Phase 0
        (7, False, False, "mbpp_reg", False),
    ],
    ids=["early", "final", "best", "phase0", "open_set"],
)
def test_only_the_chosen_checkpoint_and_phase_0_see_the_test_sets(step, is_best, allowed, dataset, refused):
    target = Target(Path("m"), step, is_best, Path("o"))
    if refused:
        with pytest.raises(BadInput, match="humaneval is test-only, and "):
            guard_test_sets(target, ["mbpp_reg", dataset], allowed, Path("best_checkpoint.json"))
    else:
        guard_test_sets(target, ["mbpp_reg", dataset], allowed, Path("best_checkpoint.json"))


@pytest.mark.parametrize("name", ["plain", "lr=1e-5", "v2(final)", "a,b", "模型", "two words", "it's", "[x]"])
def test_the_model_that_training_started_from_is_found_whatever_its_name(env, tmp_path, name):
    """By the record that run_sft.sh writes: a path in quotes for Hydra once skipped the check in silence."""
    model = tmp_path / "models" / name
    shutil.copytree(env["MODEL_PATH"], model)
    (model / "tokenizer_config.json").unlink(missing_ok=True)
    job = job_of(env | {"MODEL_PATH": str(model)})
    job.ckpt_dir.mkdir(parents=True, exist_ok=True)
    record_start(job, run_shape(job), ["torchrun"], step=0, total=16)
    assert training_model(job.ckpt_dir) is None  # without a tokenizer there is nothing to compare with
    (model / "tokenizer_config.json").touch()
    assert training_model(job.ckpt_dir) == model


def test_without_a_train_run_there_is_no_base_model(tmp_path):
    assert training_model(None) is None and training_model(tmp_path) is None
