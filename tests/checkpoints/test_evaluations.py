"""phase1.checkpoints.evaluations: what counts as a complete evaluation, and what a damaged one does to the others."""

import pytest

from phase1.checkpoints.evaluations import covers
from phase1.evaluate.finished import finished_evaluations
from phase1.files import read_json, write_json
from tests.checkpoints.made import MANIFESTS, make_checkpoint, write_eval


def test_a_damaged_evaluation_is_named_by_a_pass_and_hides_none_of_the_others(place):
    make_checkpoint(place.checkpoints, 1500)
    for step in (500, 1500):
        write_eval(place.outputs, step, 0.5, 0.1)
    torn = place.outputs / "eval_step_500" / "summary.json"
    torn.write_text('{"datasets": ')
    run = place.evaluate("--keep_best", 0)
    assert run.returncode == 0 and run.stderr.count("\n") == 1
    assert run.stderr.startswith(f"warning: left out, not a whole evaluation: {torn}")
    assert read_json(place.outputs / "best_checkpoint.json")["best_step"] == 1500
    assert place.status().stderr == run.stderr


def test_an_evaluation_whose_run_json_says_little_covers_nothing(tmp_path):
    write_eval(tmp_path, 500, 0.5, 0.1)
    run = {"status": "complete", "datasets": {"codecontests_valid": {}, "mbpp_reg": {}}}
    write_json(tmp_path / "eval_step_500" / "run.json", run)
    assert not covers(finished_evaluations(tmp_path).by_step[500], ["codecontests_valid"], MANIFESTS)


PARTIAL = [{"problems": 2}, {"sets": ("codecontests_valid",)}, {"status": "incomplete"}]


@pytest.mark.parametrize("partial", PARTIAL, ids=lambda partial: next(iter(partial)))
def test_a_partial_evaluation_does_not_count_as_evaluated(place, partial):
    make_checkpoint(place.checkpoints, 500)
    write_eval(place.outputs, 500, 0.5, 0.1, **partial)
    assert "step 500: evaluating codecontests_valid mbpp_reg" in place.evaluate("--dry_run").stdout
