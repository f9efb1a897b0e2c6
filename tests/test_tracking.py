"""phase1/tracking.py: the contract's keys and the QA table reach W&B; where W&B is out of reach, one warning."""

import json

import pytest

from phase1.files import write_json
from phase1.tracking import log_evaluation, qa_rows

SUMMARY = {"datasets": {"mbpp_reg": {"accepted_at_1": 0.5, "exec_success_rate": 1.0, "error_counts": {"success": 1}}}}


@pytest.fixture
def evaluated(tmp_path):
    line = {"problem_id": "MBPP/11", "prompt": "p", "response": "r", "accepted": True, "pass_ratio": 1.0, "error_type": "success", "gen_tokens": 3,
            "extra": {"finish_reason": "stop", "first_failed_case": {"input": "1"}}}  # fmt: skip
    (tmp_path / "qa_logs").mkdir()
    (tmp_path / "qa_logs" / "mbpp_reg_qa.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path


def test_a_qa_line_becomes_a_row(evaluated):
    assert qa_rows(evaluated / "qa_logs" / "mbpp_reg_qa.jsonl") == [["MBPP/11", "success", True, 1.0, "stop", 3, "p", "r", '{"input": "1"}']]


@pytest.mark.slow
def test_an_offline_run_is_left_to_sync_with_its_table(evaluated, capfd):
    write_json(evaluated / "summary.json", SUMMARY)
    log_evaluation("p", "r", "offline", 500, SUMMARY, evaluated)
    assert "warning" not in capfd.readouterr().err
    assert list(evaluated.glob("wandb/offline-run-*/*.wandb"))
    assert list(evaluated.glob("wandb/offline-run-*/files/media/table/eval/mbpp_reg/qa_*.table.json"))


@pytest.mark.slow
def test_an_unreachable_wandb_is_one_warning(evaluated, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    log_evaluation("p", "r", "online", 500, SUMMARY, evaluated)
    assert "warning: W&B was not reached" in capfd.readouterr().err
