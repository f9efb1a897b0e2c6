"""The check of the checkpoint's evaluation."""

import shutil

import pytest

from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.handoff.check_metrics import check_metrics
from phase1.handoff.handoff import Handoff, Settings
from tests.handoff.conftest import evaluate
from tests.handoff.handoff_damage import damaged, edit_json


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda o, m: shutil.rmtree(o / "eval_step_5"), "no evaluation of this checkpoint"),
        (lambda o, m: edit_json(o / "eval_step_5/run.json", status="running"), "not complete"),
        (lambda o, m: edit_json(m / "generation_config.json", top_k=7), "fingerprint differs"),
        (lambda o, m: edit_json(o / "eval_step_5/run.json", prompts_sha256="other"), "other prompts"),
        (
            lambda o, m: edit_json(o / "best_checkpoint.json", best_exec_success_rate=0.99),
            "best_checkpoint.json says 0.99",
        ),
    ],
)
def test_metrics_of_another_or_unfinished_evaluation_fail(run, tmp_path, harm, words):
    model = damaged(run, tmp_path)
    evaluate(tmp_path / "o", model)
    harm(tmp_path / "o", model)
    best = BestCheckpoint.read(tmp_path / "o/best_checkpoint.json")
    result = check_metrics(Handoff(model, evaluation=tmp_path / "o/eval_step_5", best=best))
    assert result.status == "fail" and words in result.evidence, result


def test_an_evaluation_without_a_fingerprint_is_a_warning(run, tmp_path):
    model = damaged(run, tmp_path)
    evaluate(tmp_path / "o", model)
    edit_json(tmp_path / "o/eval_step_5/run.json", model={"path": str(model)})
    result = check_metrics(Handoff(model, evaluation=tmp_path / "o/eval_step_5"))
    assert result.status == "warn" and "names no fingerprint" in result.evidence


def test_the_gate_is_a_check(run, tmp_path):
    model = damaged(run, tmp_path)
    evaluate(tmp_path / "o", model)
    evaluation = tmp_path / "o/eval_step_5"
    at, above = (Handoff(model, None, evaluation, settings=Settings(min_exec_success_rate=r)) for r in (0.95, 0.96))
    assert check_metrics(at).status == "pass"
    assert "below the gate 0.96" in check_metrics(above).evidence
