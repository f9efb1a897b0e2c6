"""phase1.checkpoints.status and its page: what is shown is what is there now."""

import json

import pytest

from phase1.checkpoints import status
from tests.checkpoints.made import make_checkpoint, write_eval
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (lambda m: None, "Kept (hard links) in"),
        (lambda m: (m / "config.json").write_text("[1]"), "CHANGED since it was kept."),
    ],
    ids=["kept", "changed"],
)
def test_the_banner_of_the_page_says_how_the_best_model_is_kept_now_and_not_at_the_last_pass(place, before, said):
    model = make_checkpoint(place.checkpoints, 500)
    write_eval(place.outputs, 500, 0.5, 0.1)
    assert place.evaluate("--since", 10**6).returncode == 0
    before(model)
    assert place.status().returncode == 0 and said in (place.outputs / "status.html").read_text()


def test_a_model_that_is_released_while_status_looks_is_shown_as_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "kept_model", lambda *_: tmp_path)
    assert status.how_kept(tmp_path, 500) == ""


@pytest.mark.parametrize(("name", "text"), [("best_checkpoint.json", '{"best_step": 5}'), ("final/summary.json", "[]")])
def test_status_names_a_file_that_it_cannot_show(place, name, text):
    write_evaluation(place.outputs / "final", Fake(PHASE0, {"mbpp_reg": 9}))
    metrics = place.outputs / "final" / "metrics.json"
    run = place.status("--phase0_metrics", metrics, "--phase1_metrics", metrics)
    assert run.returncode == 0 and "mbpp_reg" in run.stdout, run.stderr
    (place.outputs / name).write_text(text)
    run = place.status("--phase0_metrics", metrics, "--phase1_metrics", metrics)
    assert run.returncode == 2 and name in run.stderr and run.stderr.count("\n") == 1, run.stderr


def test_status_shows_steps_that_are_gone_from_disk(place):
    make_checkpoint(place.checkpoints, 1000)
    write_eval(place.outputs, 500, 0.9, 0.1)
    run = place.status()
    assert run.returncode == 0, run.stderr
    page = (place.outputs / "status.html").read_text()
    assert page.count("<svg") == 1 and ">500<" in page  # one curve, of exec_success_rate; there is no training log here
    assert "gone" in run.stdout and "90.0%" in run.stdout and "whole" in run.stdout


def test_of_a_step_that_was_trained_again_the_loss_of_the_last_log_is_shown(place, tmp_path):
    make_checkpoint(place.checkpoints, 1000)
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    logs[0].write_text("step:500 - val/loss:0.75\nstep:1000 - val/loss:0.625\n")
    logs[1].write_text("step:1000 - val/loss:0.375\n")
    run = place.status("--train_log", *logs)
    assert run.returncode == 0 and "0.375" in run.stdout and "0.625" not in run.stdout
    assert (place.outputs / "status.html").read_text().count("<svg") == 1  # of val/loss


@pytest.mark.parametrize(("base_rate", "below"), [(0.95, True), (0.30, False)])
def test_phase0_stands_in_the_curves_and_a_best_below_it_is_a_warning(place, base_rate, below):
    make_checkpoint(place.checkpoints, 1000)
    write_eval(place.outputs, 500, 0.5, 0.1)
    base = {"codecontests_valid": (0.1, base_rate - 0.1, 0.0, 1 - base_rate, 0.0)}
    write_evaluation(place.outputs / "phase0", Fake(base, {"codecontests_valid": 117}))
    entry = {"phase0_sha256": "a", "finished": None, "worse": [], "not_compared": [], "time": "2026-01-01T00:00:00"}
    entry["phase0_metrics"] = str(place.outputs / "phase0" / "metrics.json")
    (place.outputs / "regressions.json").write_text(json.dumps({"500": entry}))
    best = {"best_step": 500, "best_exec_success_rate": 0.5}
    (place.outputs / "best_checkpoint.json").write_text(json.dumps(best))
    assert place.status().returncode == 0
    page = (place.outputs / "status.html").read_text()
    assert "dashed: Phase 0" in page and "stroke-dasharray" in page
    assert ("Even the best is below Phase 0" in page) == below == ('<div class="verdict bad"' in page)
