"""What run_demo.sh left behind, when it has been run here (CI runs it before the tests): the small model really
learned."""

import re

import pytest

from phase1.files import read_json
from tests.conftest import ROOT

DEMO = ROOT / "outputs" / "demo"
SETS = ["codecontests_valid", "codecontests_valid_big", "codecontests_test", "humaneval", "mbpp_reg"]

pytestmark = pytest.mark.skipif(
    not (DEMO / "handoff" / "handoff.json").exists(), reason="bash run_demo.sh has not been run to its end here"
)


def rates(folder: str, metric: str) -> dict[str, float]:
    summary = read_json(DEMO / folder / "summary.json")
    return {name: m[metric] for name, m in summary["datasets"].items()}


def test_the_base_model_writes_hardly_a_program_that_runs():
    assert sorted(rates("phase0", "exec_success_rate")) == sorted(SETS)
    assert max(rates("phase0", "exec_success_rate").values()) <= 0.05


def test_the_trained_model_solves_problems_kept_out_of_training():
    assert rates("eval_final", "exec_success_rate")["codecontests_valid"] >= 0.95
    assert rates("eval_final", "accepted_at_1")["codecontests_valid"] >= 0.60
    assert sorted(rates("eval_final", "accepted_at_1")) == sorted(SETS)


def test_exec_success_rises_over_at_least_three_checkpoints():
    checkpoints = read_json(DEMO / "best_checkpoint.json")["all_checkpoints"]
    curve = [checkpoints[s]["exec_success_rate"] for s in sorted(checkpoints, key=int)]
    assert len(curve) >= 3 and curve[0] < curve[1] <= curve[2], curve


def test_the_grad_norm_stands_in_the_log_of_every_step():
    log = "\n".join(p.read_text() for p in (DEMO / "logs").glob("sft_*.log"))
    steps = {
        int(m[1]): float(m[2]) for m in re.finditer(r"step:(\d+) - train/loss:.*?train/grad_norm:([\d.e+-]+)", log)
    }
    last = max(int(s) for s in read_json(DEMO / "best_checkpoint.json")["all_checkpoints"])
    assert sorted(steps) == list(range(1, last + 1)) and all(0 < n < 1000 for n in steps.values())


def test_no_problem_was_generated_or_judged_twice():
    for folder in ("phase0", "eval_final"):
        for kind in ("completions", "results"):
            for dataset in SETS:
                ids = re.findall(r'"problem_id": "([^"]+)"', (DEMO / folder / kind / f"{dataset}.jsonl").read_text())
                assert ids and len(ids) == len(set(ids)), (folder, kind, dataset)


def test_the_handoff_passed():
    checks = read_json(DEMO / "handoff" / "handoff.json")["checks"]
    assert checks and not [c for c in checks if c["status"] == "fail"]
    [report] = [c for c in checks if c["name"] == "report"]
    assert report["data"]["verdict"]["word"] == "improved"
