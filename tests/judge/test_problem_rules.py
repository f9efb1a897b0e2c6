"""A problem's own rule for outputs, from the statement to the verdict that names it."""

from __future__ import annotations

import json

import pytest

from phase1.data.public_sets import codecontests_record
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all
from tests.judge.running_judge import stdin


def verdicts(programs, compare="problem"):
    """Of (program, test_cases) each, in their order."""
    items = ((str(i), program, cases) for i, (program, cases) in enumerate(programs))
    found = dict(judge_all(items, JudgeConfig(workers=2, compare=compare)))
    return [found[str(i)] for i in range(len(programs))]


@pytest.mark.slow
def test_the_published_cases_are_accepted_by_the_rule_of_their_statement_which_is_named(shared_cases):
    raw, solutions = (
        [json.loads(line) for line in (shared_cases / "judge" / f"plain_python_{name}.jsonl").read_text().splitlines()]
        for name in ("raw", "solutions")
    )
    cases = {row["problem_id"]: row for row in raw}
    asked = [(s["code"], cases[s["problem_id"]]) for s in solutions[6:8]]  # lines 7 and 8
    as_told = [(code, codecontests_record(row)["test_cases"]) for code, row in asked]
    assert [(v.error_type, v.compared_by) for v in verdicts(as_told)] == [
        ("success", "case any"),
        ("success", "tolerance 1e-06"),
    ]
    assert [(v.error_type, v.compared_by) for v in verdicts(as_told, "tokens")] == [("wrong_answer", "")] * 2
    as_before = [(code, row["test_cases"]) for code, row in asked]
    assert [(v.error_type, v.compared_by) for v in verdicts(as_before)] == [("wrong_answer", "")] * 2


@pytest.mark.slow
def test_the_same_program_under_two_rules_has_two_verdicts_and_many_answers_are_named():
    program = "print('b a')"
    plain, many, order = (
        stdin(("", "a b"), **more) for more in ({}, {"answers": "many"}, {"compare": {"order": "any"}})
    )
    assert [(v.error_type, v.compared_by) for v in verdicts([(program, c) for c in (plain, many, order)])] == [
        ("wrong_answer", ""),
        ("wrong_answer", "answers many"),
        ("success", "order any"),
    ]
