"""phase1.checkpoint_best.against_phase0: what cannot be compared with Phase 0 is said, and hides nothing else."""

import pytest

from phase1.checkpoint_best import against_phase0
from phase1.files import read_json, write_json

from .fake_evaluations import PHASE0, WORSE, Fake, write_evaluation, write_original_phase0

SIZES = {"codecontests_valid": 117, "mbpp_reg": 200}


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
    worse, unknown = against_phase0(tmp_path / "phase0" / "metrics.json", tmp_path / "eval_step_500")
    assert unknown == ["mbpp_reg: accepted_at_1 has neither records nor a number of problems on both sides"]
    assert len(worse) == 1 and worse[0].startswith("codecontests_valid: exec_success_rate ")
