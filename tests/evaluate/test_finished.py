"""phase1/evaluate/finished.py: which evaluation folders count as finished."""

from __future__ import annotations

import json

import pytest

from phase1.evaluate.finished import finished_evaluations
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation

VALID = "codecontests_valid"


@pytest.fixture
def outputs(tmp_path):
    for step in (30, 4):
        fake = Fake(PHASE0, sizes={VALID: 10}, step=step)
        write_evaluation(tmp_path / f"eval_step_{step}", fake)
    return tmp_path


def test_complete_evaluations_come_in_the_order_of_their_steps(outputs):
    (outputs / "eval_step_final").mkdir()
    found, damaged = finished_evaluations(outputs)
    assert list(found) == [4, 30] and not damaged
    summary = json.loads((outputs / "eval_step_4" / "summary.json").read_text())
    assert found[4].metric(VALID, "exec_success_rate") == summary["datasets"][VALID]["exec_success_rate"]
    assert found[4].run.model.step == 4


@pytest.mark.parametrize("status", ["running", "incomplete", "interrupted", None])
def test_an_evaluation_that_is_not_complete_is_passed_over(outputs, status):
    path = outputs / "eval_step_4" / "run.json"
    if status is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
    found, damaged = finished_evaluations(outputs)
    assert list(found) == [30] and not damaged


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", '{"status": "complete", "datasets": 3}'),
        ("summary.json", None),
        ("summary.json", "{}"),
        ("summary.json", '{"datasets": [1]}'),
    ],
    ids=["torn run", "run is a list", "datasets is a number", "no summary", "empty summary", "datasets is a list"],
)
def test_a_damaged_folder_is_named_and_hides_no_other(outputs, name, content):
    path = outputs / "eval_step_4" / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    found, damaged = finished_evaluations(outputs)
    assert list(found) == [30]
    assert len(damaged) == 1 and str(path) in damaged[0]


def test_an_evaluation_whose_figures_do_not_follow_from_its_records_is_named(outputs):
    path = outputs / "eval_step_4" / "summary.json"
    summary = json.loads(path.read_text())
    summary["datasets"][VALID]["exec_success_rate"] = 1.0
    path.write_text(json.dumps(summary))
    found, damaged = finished_evaluations(outputs)
    assert list(found) == [30]
    assert f"{path}: {VALID}: says exec_success_rate 1, the records beside it 0" in damaged[0]
    assert "--recompute" in damaged[0]


def test_a_metric_that_is_no_finite_number_is_none(outputs):
    path = outputs / "eval_step_4" / "summary.json"
    summary = json.loads(path.read_text())
    summary["datasets"][VALID] |= {"accepted_at_1": True, "timeout_rate": "3%", "syntax_error_rate": float("nan")}
    path.write_text(json.dumps(summary))
    found = finished_evaluations(outputs).by_step[4]
    for metric in ("accepted_at_1", "timeout_rate", "syntax_error_rate", "not there"):
        assert found.metric(VALID, metric) is None
    assert found.metric("another set", "accepted_at_1") is None
