"""phase1/evaluate/metrics.py: contract section 7's numbers, from records."""

from __future__ import annotations

import json
import random
from itertools import combinations

import pytest

from phase1.contract.records import Record
from phase1.evaluate import metrics
from tests.evaluate.records import record

CONTRACT_METRICS = [
    "total_problems",
    "accepted_at_1",
    "pass_ratio_mean",
    "pass_ratio_p50",
    "pass_ratio_p90",
    "total_gen_tokens",
    "avg_gen_tokens",
    "total_gen_time",
    "avg_gen_time",
    "total_judge_time",
    "avg_judge_time",
    "wall_clock_time",
    "throughput",
    "cost_per_solved_tokens",
    "cost_per_solved_judge_time",
    "truncation_count",
    "truncation_rate",
    "timeout_count",
    "timeout_rate",
]
CONTRACT_SUMMARY = [
    "accepted_at_1",
    "pass_ratio_mean",
    "pass_ratio_p50",
    "pass_ratio_p90",
    "exec_success_rate",
    "syntax_error_rate",
    "runtime_error_rate",
    "timeout_rate",
    "wrong_answer_rate",
    "api_error_rate",
    "unknown_error_rate",
    "avg_judge_time",
    "total_judge_time",
    "p50_judge_time",
    "p95_judge_time",
    "avg_gen_tokens",
    "total_gen_tokens",
    "throughput",
    "cost_per_solved_tokens",
    "cost_per_solved_judge_time",
]


RATES = (
    "syntax_error_rate",
    "runtime_error_rate",
    "timeout_rate",
    "wrong_answer_rate",
    "api_error_rate",
    "unknown_error_rate",
)


def test_every_field_of_the_contract_stands_in_both_files(tmp_path):
    returned = metrics.write_metrics(tmp_path, {"codecontests_valid": [record(0), record(1, "timeout")]})
    m = json.loads((tmp_path / "metrics.json").read_text())["codecontests_valid"]
    s = json.loads((tmp_path / "summary.json").read_text())
    assert set(CONTRACT_METRICS) <= set(m)
    assert set(CONTRACT_SUMMARY) <= set(s["datasets"]["codecontests_valid"])
    assert list(s["overall"]) == [
        "total_problems",
        "accepted_at_1",
        "pass_ratio_mean",
        "pass_ratio_p50",
        "pass_ratio_p90",
        "total_judge_time",
    ]
    assert s == returned


def test_numbers_equal_those_counted_by_hand():
    rows = [
        record(0, "success", gen_tokens=10, judge_time=1.0),
        record(1, "wrong_answer", pass_ratio=0.5, gen_tokens=20, judge_time=2.0),
        record(2, "timeout", pass_ratio=0.25, gen_tokens=30, judge_time=9.0, finish_reason="length"),
        record(3, "syntax_error", gen_tokens=40, judge_time=0.0, finished=1010.0),
    ]
    m, s = metrics.dataset_metrics(rows), metrics.dataset_summary(rows)
    assert (m["accepted_at_1"], m["pass_ratio_mean"], m["pass_ratio_p50"]) == (0.25, 0.4375, 0.375)
    assert m["pass_ratio_p90"] == pytest.approx(0.85)  # sorted 0 .25 .5 1, position 2.7
    assert (m["total_gen_tokens"], m["avg_gen_tokens"], m["cost_per_solved_tokens"]) == (100, 25, 100)
    assert (m["total_judge_time"], m["avg_judge_time"], m["cost_per_solved_judge_time"]) == (12, 3, 12)
    assert (m["wall_clock_time"], m["throughput"]) == (10, 0.4)
    assert (m["truncation_count"], m["truncation_rate"], m["timeout_count"], m["timeout_rate"]) == (1, 0.25, 1, 0.25)
    assert s["exec_success_rate"] == 0.5
    assert [s[rate] for rate in RATES] == [0.25, 0, 0.25, 0.25, 0, 0]
    assert s["p50_judge_time"] == 1.5


def test_wall_clock_leaves_out_the_night_between_two_sessions():
    rows = [
        record(0, started=0.0, finished=10.0),
        record(1, started=5.0, finished=30.0),
        record(2, started=50_000.0, finished=50_020.0, session=1),
    ]
    m = metrics.dataset_metrics(rows)
    assert m["wall_clock_time"] == 50 and m["throughput"] == pytest.approx(3 / 50)


def test_the_rates_add_up_to_one_whatever_the_error_types():
    kinds = [
        "success",
        "wrong_answer",
        "syntax_error",
        "runtime_error",
        "timeout",
        "empty_output",
        "api_error",
        "sandbox_error",
        "new_kind",
    ]
    s = metrics.dataset_summary([record(i, random.Random(i).choice(kinds)) for i in range(200)])
    assert s["accepted_at_1"] + sum(s[rate] for rate in RATES) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["empty_output", "api_error", "sandbox_error"])
def test_a_failure_that_is_not_the_models_is_counted_by_name_and_in_the_total(kind):
    s = metrics.dataset_summary([record(0), record(1, kind)])
    assert s["total_problems"] == 2 and s["error_counts"][kind] == 1
    assert s["exec_success_rate"] == 0.5
    assert s["not_judged_count"] == (kind != "empty_output")


def test_nothing_solved_and_nothing_at_all_give_null_never_nan(tmp_path):
    metrics.write_metrics(tmp_path, {"a": [record(0, "timeout", judge_time=float("nan"))], "empty": []})
    text = (tmp_path / "metrics.json").read_text() + (tmp_path / "summary.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    m = json.loads((tmp_path / "metrics.json").read_text())
    assert m["a"]["cost_per_solved_tokens"] is None and m["a"]["cost_per_solved_judge_time"] is None
    assert m["empty"]["total_problems"] == 0 and m["empty"]["accepted_at_1"] is None


def test_further_samples_do_not_move_eval_at_1():
    assert metrics.dataset_metrics([record(0, "timeout"), record(0, sample=1)])["accepted_at_1"] == 0


def test_overall_pools_the_problems_of_all_sets():
    rows = {"a": [record(0)], "b": [record(i, "timeout") for i in range(3)]}
    assert metrics.overall_summary(rows) == {
        "total_problems": 4,
        "accepted_at_1": 0.25,
        "pass_ratio_mean": 0.25,
        "pass_ratio_p50": 0.0,
        "pass_ratio_p90": pytest.approx(0.7),
        "total_judge_time": 2.0,
    }


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 1), (3, 1, 2), (5, 2, 5), (4, 0, 2), (4, 4, 2), (6, 3, 2)])
def test_pass_at_k_is_the_share_of_draws_of_k_samples_that_hold_an_accepted_one(n, c, k):
    records = [
        Record("humaneval", "p", "", "", "", "stop", 1, 1, 0.0, 0.0, 0, sample=i, accepted=i < c) for i in range(n)
    ]
    draws = list(combinations([r.accepted for r in records], k))
    assert metrics.pass_at_k(records).get(str(k)) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_stands_beside_accepted_at_1_and_only_where_there_are_samples():
    records = [
        Record("humaneval", p, "", "", "", "stop", 1, 1, 0.0, 0.0, 0, sample=i, accepted=i == 1)
        for p in "ab"
        for i in range(2)
    ]
    both = metrics.dataset_metrics(records)
    assert both["accepted_at_1"] == 0.0 and both["total_problems"] == 2 and both["pass_at_k"] == {"1": 0.5, "2": 1.0}
    assert metrics.dataset_summary(records)["pass_at_k"] == both["pass_at_k"]
    assert "pass_at_k" not in metrics.dataset_metrics([r for r in records if r.sample == 0])
