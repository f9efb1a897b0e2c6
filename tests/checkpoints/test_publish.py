"""phase1.checkpoints.publish: best_checkpoint.json tells the truth about what is kept."""

from phase1.files import read_json
from tests.checkpoints.made import make_checkpoint, write_eval


def test_a_best_model_that_is_lost_is_an_error_once_and_then_a_warning(place):
    """Each pass would mail it again, and nothing brings it back."""
    make_checkpoint(place.checkpoints, 1500)
    for step, rate in ((500, 0.6), (1000, 0.5)):
        write_eval(place.outputs, step, rate, 0.1)
    published = place.outputs / "best_checkpoint.json"
    run = place.evaluate("--since", 10**6)
    assert run.returncode == 1 and "step 500, the best, is not kept: " in run.stderr and "is gone" in run.stderr
    best = read_json(published)
    assert (best["best_step"], best["kept"]) == (500, False)
    again = place.evaluate("--since", 10**6)
    assert (again.returncode, again.stderr) == (0, "") and "warning: step 500 is not kept" in again.stdout
    published.write_text("torn")  # it is written anew, whatever it says
    assert place.evaluate("--since", 10**6).returncode == 1
    assert read_json(published)["best_step"] == 500
