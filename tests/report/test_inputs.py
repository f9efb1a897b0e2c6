"""What generate_report.py reads: aggregates only, gaps, several files, torn ones; what it says of each."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from tests.report import by_hand
from tests.report.fake_evaluations import IMPROVED, Fake, write_evaluation
from tests.report.running import compare, table_rows


def test_the_original_phase_0_is_read_without_records_and_compared(evaluations, tmp_path):
    write_evaluation(tmp_path / "sft", Fake(IMPROVED, seed=1))
    done = compare(tmp_path, evaluations["original"], tmp_path / "sft" / "metrics.json")
    assert done.returncode == 0, done.stderr
    rows = table_rows((tmp_path / "out" / "comparison_table.md").read_text())
    contract = {
        "exec_success_rate (valid)": "65.8%",
        "exec_success_rate (valid_big)": "67.0%",
        "exec_success_rate (test)": "60.0%",
        "accepted_at_1 (valid)": "1.7%",
        "accepted_at_1 (test)": "3.0%",
        "pass_ratio_mean (valid)": "0.143",
        "HumanEval pass@1": "87.2%",
        "MBPP_reg pass@1": "58.5%",
        "syntax_error": "0.9%",
        "runtime_error": "23.9%",
        "timeout": "9.4%",
        "wrong_answer": "64.1%",
        "avg_gen_tokens": "264.0",
        "avg_judge_time": "7.69 s",
        "throughput": "0.13 prob/s",
    }
    assert {k: rows[k][0] for k in contract} == contract
    assert "unpaired" in rows["exec_success_rate (valid)"][-1] and "improved" in rows["exec_success_rate (valid)"][-1]
    assert "per-problem records are missing" in rows["pass_ratio_mean (valid)"][-1]
    assert rows["cost_per_solved_judge_time"][0] == "-"
    data = json.loads((tmp_path / "out" / "comparison_data.json").read_text())
    accepted = next(r for r in data["rows"] if r["label"] == "accepted_at_1 (valid)")
    assert accepted["interval0"] == pytest.approx(
        by_hand.wilson(2, 117)
    )  # 1.7% of 117 is two problems: rounded, not cut off
    assert "cannot be checked" in done.stdout


def test_values_that_are_missing_null_or_nan_show_as_a_dash_and_unknown_ones_are_ignored(sides):
    base, better = sides
    shutil.rmtree(base / "results")
    metrics = json.loads((base / "metrics.json").read_text())
    metrics["codecontests_valid"] |= {"pass_ratio_p90": None, "avg_judge_time": float("nan"), "brand_new": [1]}
    metrics["extra_set"] = {"total_problems": 3, "accepted_at_1": 1.0}
    metrics |= {"empty_set": None, "generated_at": "2026-01-01", "config": {"temperature": 0.0}}
    (base / "metrics.json").write_text(json.dumps(metrics))
    (base / "summary.json").unlink()
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 0, done.stderr
    text = (base.parent / "out" / "comparison_table.md").read_text()
    rows = table_rows(text)
    for label in ("pass_ratio_p90 (valid)", "avg_judge_time", "exec_success_rate (valid)", "syntax_error"):
        assert rows[label][0] == "-" and rows[label][2] == "-", label
    assert (
        "extra_set" in text
        and "empty_set is empty" in text
        and "config in" in text
        and "generated_at in" in text
        and "no summary.json" in text
    )


def test_of_several_files_the_newest_a_data_set_wins_and_the_report_says_so(sides):
    base, better = sides
    old, new = base.parent / "phase0_old", base.parent / "phase0_new"
    for directory, share, day in ((old, 0.25, "01"), (new, 0.75, "02")):
        directory.mkdir()
        (directory / "metrics.json").write_text(
            json.dumps({"humaneval": {"total_problems": 30, "accepted_at_1": share}})
        )
        (directory / "summary.json").write_text("{}")
        (directory / "run.json").write_text(
            json.dumps({"status": "complete", "finished": f"2027-01-{day}T00:00:00+00:00"})
        )
    os.utime(old / "metrics.json", (2e9, 2e9))  # copied later: run.json knows better
    done = compare(base.parent, base.parent / "phase0_*" / "metrics.json", better / "metrics.json", "--allow_mismatch")
    assert done.returncode == 0, done.stderr
    text = (base.parent / "out" / "comparison_table.md").read_text()
    assert table_rows(text)["HumanEval pass@1"][0] == "75.0%"
    assert re.search(r"humaneval stands in several files; taken from \S*phase0_new/metrics.json, the newest", text)


@pytest.mark.parametrize(
    "name, content, named",
    [
        ("metrics.json", '{"humaneval": {"accepted_at_1": 0.5', "metrics.json:1"),
        ("metrics.json", "[1, 2]", "expected an object"),
        ("metrics.json", '{"humaneval": 3}', "humaneval"),
        ("metrics.json", '{"humaneval": {"accepted_at_1": 87.2}}', "0.872, not 87.2"),
        ("metrics.json", '{"humaneval": {"accepted_at_1": "87%"}}', "expected a number"),
        ("metrics.json", '{"humaneval": {"avg_gen_tokens": 1' + "0" * 400 + "}}", "avg_gen_tokens has 401 digits"),
        ("metrics.json", "[" * 100_000, "metrics.json:1"),
        ("metrics.json", "{}", "no data set"),
        ("metrics.json", None, "metrics.json"),
        ("summary.json", '{"datasets": ', "summary.json:1"),
        ("summary.json", '{"datasets": [1]}', "summary.json"),
        ("run.json", "{", "run.json:1"),
        ("run.json", '{"status": "complete", "sampling": 3}', "run.json: sampling: "),
        ("results/humaneval.jsonl", '{"problem_id": "x"}\n', "humaneval.jsonl:1"),
        ("results/humaneval.jsonl", "not json\n", "humaneval.jsonl:1"),
        ("results/humaneval.jsonl", "\xff\xfe\n", "humaneval.jsonl:1"),
    ],
)
def test_torn_or_missing_input_is_one_line_that_names_the_file_and_exit_2(sides, name, content, named):
    base, better = sides
    if name == "metrics.json" and content == "{}":
        (better / "summary.json").unlink()
    if content is None:
        (better / name).unlink()
    else:
        (better / name).write_bytes(content.encode("latin-1"))
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1 and named in done.stderr
    assert not (base.parent / "out").exists()


@pytest.mark.parametrize(
    "field, value",
    [
        ("judge_time", float("inf")),
        ("gen_tokens", "12"),
        ("prompt", None),
        ("completion", None),
        ("problem_id", 7),
        ("first_failed_case", [1, 2]),
    ],
)
def test_a_record_that_cannot_be_counted_is_one_line_that_names_it_and_its_field(sides, field, value):
    base, better = sides
    path = better / "results" / "humaneval.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(first) | {field: value}) + "\n" + rest)
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"humaneval.jsonl: record of {'7' if field == 'problem_id' else 'humaneval/0'}: {field} is " in done.stderr


def test_flags_that_were_flipped_by_hand_are_refused_with_file_line_and_problem(sides):
    base, better = sides
    path = better / "results" / "codecontests_valid.jsonl"
    rows = [json.loads(line) | {"accepted": True} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "codecontests_valid.jsonl:1: codecontests_valid/0: accepted is True" in done.stderr


def test_a_torn_last_record_is_left_out_and_shows_as_a_mismatch(sides):
    base, better = sides
    path = better / "results" / "humaneval.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 1 and "1 only in Phase 0" in (base.parent / "out" / "summary.txt").read_text()


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--resamples", 0], "--resamples 0"),
        (["--seed", -1], "--seed -1"),
        (["--seed", 2**32], "--seed 4294967296"),
        (["--checkpoints", "nowhere"], "--checkpoints nowhere"),
        (["--train_log", "nowhere.log"], "nowhere.log"),
        (["--train_data", "nowhere.parquet"], "nowhere.parquet"),
        (["--gate", "."], "directory"),
    ],
)
def test_a_flag_that_cannot_be_meant_is_one_line_and_exit_2_and_nothing_is_written(evaluations, tmp_path, flags, named):
    done = compare(tmp_path, evaluations["base"], evaluations["better"], *flags)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1 and named in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage, named", [("missing", "--recompute"), ("torn", "humaneval_qa.jsonl:2")])
def test_a_qa_log_that_cannot_be_read_is_said_before_anything_is_written(sides, damage, named):
    base, better = sides
    if damage == "missing":
        shutil.rmtree(better / "qa_logs")
    else:
        log = better / "qa_logs" / "humaneval_qa.jsonl"
        lines = log.read_text().splitlines()
        log.write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]))
    done = compare(base.parent, base / "metrics.json", better / "metrics.json", "--qa_html")
    assert done.returncode == 2 and named in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (base.parent / "out").exists()
