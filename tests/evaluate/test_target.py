"""phase1/evaluate/target.py: which model is evaluated, whose chat template it is compared with, who sees test sets."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from phase1.contract.problems import EVAL_SETS
from phase1.evaluate.target import Target, guard_test_sets, training_model
from phase1.files import BadInput
from phase1.train.record import record_start, run_shape
from tests.train.sft_runs import job_of


@pytest.mark.parametrize("name", ["plain", "lr=1e-5", "v2(final)", "a,b", "模型", "two words", "it's", "[x]"])
def test_the_model_that_training_started_from_is_found_whatever_its_name(env, tmp_path, name):
    """By the record that run_sft.sh writes: a path in quotes for Hydra once skipped the check in silence."""
    model = tmp_path / "models" / name
    shutil.copytree(env["MODEL_PATH"], model)
    (model / "tokenizer_config.json").touch()
    job = job_of(env | {"MODEL_PATH": str(model)})
    job.ckpt_dir.mkdir(parents=True, exist_ok=True)
    record_start(job, run_shape(job), ["torchrun"], step=0, total=16)
    assert training_model(job.ckpt_dir) == model


def test_without_a_record_or_a_model_there_is_nothing_to_compare_with(tmp_path):
    assert training_model(tmp_path) is None and training_model(None) is None


def asked(datasets: list[str], final: bool) -> argparse.Namespace:
    return argparse.Namespace(datasets=datasets, final=final, best_checkpoint=Path("best_checkpoint.json"))


@pytest.mark.parametrize("name", [s.name for s in EVAL_SETS.values() if s.test_only])
def test_a_step_that_is_not_the_best_sees_the_test_sets_with_final_alone(name):
    some = Target(Path("m"), step=500, is_best=False, output_dir=Path("o"))
    with pytest.raises(BadInput, match="--final"):
        guard_test_sets(asked([name], final=False), some)
    guard_test_sets(asked([name], final=True), some)


@pytest.mark.parametrize(("step", "is_best"), [(500, True), (None, False)], ids=["best", "base"])
def test_the_best_step_and_the_base_model_see_the_test_sets(step, is_best):
    guard_test_sets(asked(list(EVAL_SETS), final=False), Target(Path("m"), step, is_best, Path("o")))
