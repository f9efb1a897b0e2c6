"""The early warning: a checkpoint worse than Phase 0 is said once, and what cannot be compared hides nothing else."""

import pytest

from phase1.checkpoints.early_warning import against_phase0
from phase1.files import read_json, write_json
from tests.checkpoints.made import cut, make_checkpoint
from tests.report.fake_evaluations import IMPROVED, PHASE0, WORSE, Fake, write_evaluation, write_original_phase0

SIZES = {"codecontests_valid": 117, "mbpp_reg": 200}


def compare(place, phase0):
    """A pass that evaluates nothing and keeps nothing."""
    return place.evaluate("--since", 10**6, "--keep_best", 0, "--phase0_metrics", phase0 / "metrics.json")


@pytest.mark.slow
@pytest.mark.parametrize("original", [True, False], ids=["aggregates", "records"])
def test_a_checkpoint_worse_than_phase_0_exits_1_once_with_the_numbers(place, tmp_path, original):
    """Against records (paired), and against the original project's aggregates."""
    make_checkpoint(place.checkpoints, 1500)
    if original:
        write_original_phase0(tmp_path / "phase0")
    else:
        write_evaluation(tmp_path / "phase0", Fake(PHASE0, SIZES))
    for step, rates in ((500, IMPROVED), (1000, WORSE)):
        write_evaluation(place.outputs / f"eval_step_{step}", Fake(rates, SIZES, seed=step, step=step))
    run = compare(place, tmp_path / "phase0")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "step 1000 is worse than Phase 0: codecontests_valid: exec_success_rate" in run.stderr
    assert "mbpp_reg: accepted_at_1" in run.stderr and "step 500" not in run.stderr
    assert ("unpaired" in run.stderr) is original
    again = compare(place, tmp_path / "phase0")  # said once: cron looks every ten minutes
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.slow
def test_an_evaluation_that_cannot_be_compared_with_phase_0_does_not_silence_the_warning_about_another(place, tmp_path):
    make_checkpoint(place.checkpoints, 3000)
    write_evaluation(tmp_path / "phase0", Fake(PHASE0, SIZES))
    for step in (500, 1000, 1500):
        write_evaluation(place.outputs / f"eval_step_{step}", Fake(WORSE, SIZES, seed=step, step=step))
    cut(place.outputs / "eval_step_1000" / "metrics.json", 40)
    (place.outputs / "regressions.json").write_text("[1]")
    run = compare(place, tmp_path / "phase0")
    assert run.returncode == 1
    assert "step 500 is worse" in run.stderr and "step 1500 is worse" in run.stderr and "step 1000: " in run.stderr
    assert sorted(read_json(place.outputs / "regressions.json")) == ["1500", "500"]


def test_what_was_measured_otherwise_is_not_held_against_phase_0(place, tmp_path):
    make_checkpoint(place.checkpoints, 1500)
    write_evaluation(tmp_path / "phase0", Fake(PHASE0, SIZES))
    other = Fake(WORSE, SIZES, step=500, run={"prompts_sha256": "other"})
    write_evaluation(place.outputs / "eval_step_500", other)
    run = compare(place, tmp_path / "phase0")
    assert run.returncode == 0 and "not compared with Phase 0" in run.stderr and "prompts_sha256" in run.stderr


@pytest.mark.parametrize("total", [None, 0, "missing"])
@pytest.mark.parametrize("lacking", ["phase0", "eval_step_500"])
def test_a_rate_without_records_and_without_a_number_of_problems_is_said_not_to_be_compared(tmp_path, lacking, total):
    """On either side; the other data set is compared all the same."""
    if lacking == "phase0":
        write_original_phase0(tmp_path / "phase0")
    else:
        write_evaluation(tmp_path / "phase0", Fake(PHASE0, SIZES))
    write_evaluation(tmp_path / "eval_step_500", Fake(WORSE, SIZES, step=500))
    (tmp_path / lacking / "results" / "mbpp_reg.jsonl").unlink(missing_ok=True)
    for name in ("metrics.json", "summary.json"):
        content = read_json(tmp_path / lacking / name)
        entry = (content["datasets"] if name == "summary.json" else content)["mbpp_reg"]
        entry.pop("total_problems", None)
        if total != "missing":
            entry["total_problems"] = total
        write_json(tmp_path / lacking / name, content)
    found = against_phase0(tmp_path / "phase0" / "metrics.json", tmp_path / "eval_step_500")
    assert found.not_compared == ["mbpp_reg: accepted_at_1 has neither records nor a number of problems on both sides"]
    assert found.worse[0].startswith("codecontests_valid: exec_success_rate ")
    with_records = lacking != "phase0"  # the original's pass_ratio counts as a rate, and is too near to this one's
    assert [line.split()[1] for line in found.worse[1:]] == ["pass_ratio_mean"] * with_records
