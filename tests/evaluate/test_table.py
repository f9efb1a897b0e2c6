"""The table that an evaluation prints."""

from pathlib import Path

import pytest

from phase1.evaluate.table import COLUMNS, show

ENTRY = {
    "total_problems": 500,
    **dict.fromkeys(["accepted_at_1", "exec_success_rate", "syntax_error_rate", "runtime_error_rate"], 1.0),
    **dict.fromkeys(["timeout_rate", "wrong_answer_rate", "truncation_rate", "silent_rate", "unread_rate"], 1.0),
    "pass_ratio_mean": 1.0,
    "avg_gen_tokens": 2048.0,
    "avg_judge_time": 100.0,
    "wrong_answer_truncated_count": 0,
    "error_counts": {},
}


@pytest.mark.parametrize("width", ["40", "80", "140", "300"])
def test_no_figure_and_no_heading_is_cut_to_dots_however_narrow_the_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    show({"codecontests_valid_big": ENTRY, "mbpp_reg": ENTRY}, Path("model"))
    out = capsys.readouterr().out
    assert "…" not in out and all(heading in out for heading in COLUMNS), out
    assert [line.split()[1] for line in out.splitlines() if line.split()[:1] == ["mbpp_reg"]] == ["500"]
