"""phase1.checkpoints.attempts: what counts as a failure of a checkpoint, and for how long."""

import pytest

from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.find import find_checkpoints
from tests.checkpoints.made import make_checkpoint


def test_an_attempt_that_a_kill_cut_short_is_no_failure_but_waits_behind_the_others(tmp_path):
    make_checkpoint(tmp_path, 5)
    [c] = find_checkpoints(tmp_path)
    attempts = Attempts(tmp_path / "out")
    attempts.begin(c)
    attempts.end(attempts.begin(c), c, 2, "error: no")
    again = Attempts(tmp_path / "out")
    assert ([r.attempt for r in again.rows], len(again.failures(c)), again.cut_short(5)) == ([1, 2], 1, 1)
    (c.model_path / "config.json").write_text('{"mended": 1}')
    assert again.failures(c) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"attempts": 1}', '{"attempts": [1]}'])
def test_a_damaged_list_of_attempts_is_one_line(place, text):
    make_checkpoint(place.checkpoints, 500)
    (place.outputs / "attempts.json").write_text(text)
    run = place.evaluate()
    assert run.returncode == 2 and "attempts.json" in run.stderr and run.stderr.count("\n") == 1
