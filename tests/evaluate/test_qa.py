"""phase1/evaluate/qa.py: the QA sample of an evaluation, from records."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from phase1.contract.problems import EVAL_SETS, EvalSet
from phase1.contract.records import Record
from phase1.evaluate.qa import STRATA, qa_sample, write_qa_logs
from tests.evaluate.records import record


def pool(**counts: int) -> list[Record]:
    kinds = [k for k, n in counts.items() for _ in range(n)]
    return [record(i, k) for i, k in enumerate(kinds)]


@pytest.mark.parametrize("name", EVAL_SETS)
def test_full_strata_give_exactly_the_sizes_of_the_seed(name):
    eval_set = EVAL_SETS[name]
    taken, info = qa_sample(pool(success=60, wrong_answer=60, syntax_error=60, runtime_error=60, timeout=60), eval_set)
    assert len(taken) == eval_set.qa_size == info["taken"]
    counts = Counter(r.error_type for r in taken)
    assert all(counts[s] >= eval_set.qa_per_stratum for s in STRATA)
    assert info["taken_at_random"] == eval_set.qa_size - 5 * eval_set.qa_per_stratum


@pytest.mark.parametrize(
    "counts",
    [
        {"success": 0, "wrong_answer": 40, "syntax_error": 1, "runtime_error": 3, "timeout": 0},
        {"success": 100},
        {"empty_output": 90, "success": 2},
        {"wrong_answer": 29},
        {"sandbox_error": 3},
        {},
    ],
)
def test_a_short_stratum_gives_its_places_to_the_others(counts):
    rows = pool(**counts)
    taken, info = qa_sample(rows, EVAL_SETS["codecontests_valid"])
    assert len(taken) == min(30, len(rows)) == info["taken"]
    assert len({r.problem_id for r in taken}) == len(taken)
    for s, row in info["strata"].items():
        have = sum((r.error_type if r.error_type in STRATA else "other") == s for r in rows)
        assert row["available"] == have and min(have, row["wanted"]) <= row["taken"] <= have


def test_the_sample_is_random_over_seeds_and_the_same_for_one_seed_in_any_order_of_finishing():
    rows = pool(success=50, wrong_answer=50, timeout=50)
    ids = [r.problem_id for r in qa_sample(rows, EVAL_SETS["humaneval"], seed=1)[0]]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert [r.problem_id for r in qa_sample(shuffled, EVAL_SETS["humaneval"], seed=1)[0]] == ids
    assert [r.problem_id for r in qa_sample(rows, EVAL_SETS["humaneval"], seed=2)[0]] != ids


def test_a_small_set_smaller_than_one_stratum_is_taken_whole():
    taken, _ = qa_sample(pool(success=2), EvalSet("x", 2, False, 1, qa_size=30, qa_per_stratum=5))
    assert len(taken) == 2


def test_qa_lines_have_the_contracts_fields_and_survive_hostile_text(tmp_path):
    case = {"index": 0, "input": "1\n", "actual": "\ud800\u2028"}
    rows = [
        record(
            0,
            "wrong_answer",
            completion="\ud800 \x1b[31m <script>\u2028",
            first_failed_case=case,
            finish_reason="length",
        )
    ]
    write_qa_logs(tmp_path, {"codecontests_valid": rows}, extra={"step": 5, "checkpoint": "c", "model": "m"})
    lines = (tmp_path / "qa_logs" / "codecontests_valid_qa.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 2 and lines[1] == b""
    line = json.loads(lines[0])
    assert list(line) == [
        "dataset",
        "problem_id",
        "prompt",
        "response",
        "accepted",
        "pass_ratio",
        "error_type",
        "judge_time",
        "gen_time",
        "gen_tokens",
        "extra",
    ]
    assert line["extra"] == {
        "step": 5,
        "checkpoint": "c",
        "model": "m",
        "finish_reason": "length",
        "first_failed_case": case,
    }
    assert line["response"] == rows[0].completion
    assert (
        json.loads((tmp_path / "qa_logs" / "qa_summary.json").read_text())["datasets"]["codecontests_valid"]["taken"]
        == 1
    )
