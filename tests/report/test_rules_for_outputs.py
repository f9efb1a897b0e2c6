"""The report's section on rules for outputs: how many problems have one of their own, and what others would say."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from phase1.contract.problems import Problem
from phase1.contract.records import Completion, RecordLog, read_records
from phase1.evaluate.comparisons import comparison_summary
from phase1.evaluate.loop import judge_completion
from phase1.evaluate.metrics import write_metrics
from phase1.files import read_json, sha256_text
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
from tests.judge.running_judge import stdin
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation
from tests.report.running import generate

SET = "codecontests_valid"
# name: (test_cases, program, accepted, and under exact, tokens, codecontests)
PROBLEMS = {
    "exact": (stdin(("", "1\n")), "print(1)", True, (True, True, True)),
    "space": (stdin(("", "1 \n")), "print(1)", True, (False, True, True)),
    "case": (stdin(("", "YES\n"), compare={"case": "any"}), "print('Yes')", True, (False, False, True)),
    "order": (stdin(("", "1 2\n"), compare={"order": "any"}), "print(2, 1)", True, (False, False, False)),
    "integer": (stdin(("", "3\n")), "print(3.0)", False, (False, False, True)),
    "second test": (stdin(("", "1\n"), ("", "2\n"), ("", "1\n")), "print(1)", False, (False, False, False)),
    "crash": (stdin(("", "1\n"), ("", "1\n")), "print(1); 1 / 0", False, (False, False, False)),
    "syntax": (stdin(("", "1\n")), "print(", False, None),
    "no code": (stdin(("", "1\n")), "", False, None),
    "many": (stdin(("", "1\n"), answers="many"), "print(2)", False, (False, False, False)),
}
UNDER = {"exact": 1, "tokens": 2, "codecontests": 4}  # problems accepted


@pytest.fixture(scope="module")
def records():
    async def judge_all():
        async with open_judge(JudgeConfig(workers=2)) as judge:
            return [
                await judge_completion(
                    judge,
                    Problem(SET, name, name, cases),
                    Completion(
                        SET, name, name, sha256_text(name), f"<code>{program}</code>", "stop", 1, 1, 0.1, 0.0, 0
                    ),
                )
                for name, (cases, program, *_) in PROBLEMS.items()
            ]

    return asyncio.run(judge_all())


def evaluation(folder, rows):
    """The metrics.json of an evaluation with these records."""
    write_evaluation(folder, Fake({SET: PHASE0[SET]}, sizes={SET: len(rows)}, run={"sessions": []}))
    (folder / "results" / f"{SET}.jsonl").unlink()
    log = RecordLog(folder / "results" / f"{SET}.jsonl")
    for row in rows:
        log.append(row)
    log.close()
    write_metrics(folder, {SET: rows})
    return folder / "metrics.json"


def old(record):
    """The record as it was before it said so."""
    return dataclasses.replace(record, compared_by="", accepted_under=None)


@pytest.mark.slow
def test_each_record_says_what_other_rules_would_have_said(records):
    for record, (_, _, accepted, under) in zip(records, PROBLEMS.values(), strict=True):
        assert record.accepted is accepted, record.problem_id
        assert (record.accepted_under and tuple(record.accepted_under.values())) == under, record.problem_id


@pytest.mark.slow
def test_the_summary_counts_rules_and_other_verdicts(records):
    found = comparison_summary(records)
    assert found["rules"] == {"case any": 1, "order any": 1, "answers many": 1}
    assert {m: found[m]["accepted_at_1"] for m in UNDER} == {m: n / len(records) for m, n in UNDER.items()}
    assert {m: found[m]["differ"] for m in UNDER} == {"exact": 3, "tokens": 2, "codecontests": 2}


@pytest.mark.slow
def test_records_of_before_say_nothing_and_a_part_of_them_is_no_whole(records):
    before = [old(r) for r in records]
    assert comparison_summary(before) is None
    assert comparison_summary([*records[1:], before[0]]) is None
    asserts = [dataclasses.replace(r, test_verdicts=["success"], accepted_under=None) for r in records]
    assert comparison_summary(asserts) is None


@pytest.mark.slow
def test_the_report_shows_both_phases_and_says_what_was_not_recorded(records, tmp_path):
    now, again = (evaluation(tmp_path / name, records) for name in ("now", "again"))
    before, earlier = (evaluation(tmp_path / name, [old(r) for r in records]) for name in ("before", "earlier"))
    assert next(read_records(tmp_path / "now/results" / f"{SET}.jsonl")).accepted_under["exact"] is True
    assert read_json(tmp_path / "now/summary.json")["datasets"][SET]["comparison"] == comparison_summary(records)
    for name, phase0, phase1, cells in (
        ("both", again, now, "20.0% | 20.0% | 2 | 2"),
        ("one", before, now, "- | 20.0% | not recorded | 2"),
        ("none", earlier, before, None),
    ):
        out = tmp_path / name
        done = generate("--phase0_metrics", phase0, "--phase1_metrics", phase1, "--output_dir", out)
        assert done.returncode == 0, done.stderr
        table, page = ((out / f).read_text() for f in ("comparison_table.md", "report.html"))
        assert ("Rules for outputs" in table) == ("Rules for outputs" in page) == (cells is not None)
        if cells:
            assert f"| {SET} | tokens | {cells} |" in table
            assert f"| {SET} | 1 | 3: 1 by case any, 1 by order any, 1 by answers many |" in table
            assert f"outputs: {SET}: problems with a rule of their own: Phase 0 " in (out / "summary.txt").read_text()
            assert "1 by order any" in page
        rows = json.loads((out / "comparison_data.json").read_text())["outputs"]["rows"]
        assert [r["rule"] for r in rows] == (["as judged", *UNDER] if cells else [])
