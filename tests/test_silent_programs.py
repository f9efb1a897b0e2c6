"""Programs that print nothing are counted, and a rise that they make up is called an improvement nowhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from phase1.checkpoints.choose import choose_best, rank
from phase1.checkpoints.early_warning import against_phase0
from phase1.contract.records import read_records
from phase1.evaluate.finished import finished_evaluations
from phase1.evaluate.metrics import dataset_summary, write_metrics
from phase1.files import read_json, write_json
from phase1.report.inputs import DatasetResult, Side, read_side
from phase1.report.silent import silent_rises
from phase1.report.tables import fill_rows
from phase1.report.verdict import Verdict, verdict
from tests.checkpoints.made import Place, make_checkpoint
from tests.evaluate.records import record
from tests.report.fake_evaluations import write_silent_case
from tests.report.running import compare

WORDS = "exec_success_rate (valid) 50.0% → 90.0% is a rise of programs that print nothing, without them 45.0% → 0.0%"


def answered(kind: str, silent: int | None) -> dict:
    return {"error_type": kind, "tests_silent": silent, "tests_run": 3}


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([("wrong_answer", 3), ("wrong_answer", 2), ("success", 0)], 1),
        ([("success", 3)], 0),  # nothing was expected of it
        ([("timeout", 3), ("runtime_error", 3), ("syntax_error", None)], 0),  # they count as executed nowhere
        ([("wrong_answer", None), ("success", 0)], None),  # an older file: not known
        ([("wrong_answer", None), ("success", None)], None),  # asserts: no meaning
    ],
    ids=["silent on all tests", "right", "not executed", "older", "asserts"],
)
def test_silent_is_what_ran_to_its_end_and_printed_nothing_on_every_test(answers, count):
    summary = dataset_summary([record(i, **answered(*answer)) for i, answer in enumerate(answers)])
    assert summary["silent_count"] == count
    assert summary["silent_rate"] == (None if count is None else pytest.approx(count / len(answers)))


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([("wrong_answer", 3), ("wrong_answer", 2), ("success", 0)], 1),
        ([("success", 3), ("wrong_answer", 3)], 2),  # a constant may be right
        ([("timeout", 3), ("runtime_error", 3), ("syntax_error", None)], 0),
        ([("wrong_answer", None), ("success", 0)], None),
        ([("success", None)], None),
    ],
    ids=["on all tests", "right", "not executed", "older", "asserts"],
)
def test_unread_is_what_ran_to_its_end_and_read_nothing_on_any_test(answers, count):
    records = [record(i, error_type=kind, tests_unread=n, tests_run=3) for i, (kind, n) in enumerate(answers)]
    summary = dataset_summary(records)
    assert summary["unread_count"] == count
    assert summary["unread_rate"] == (None if count is None else pytest.approx(count / len(answers)))


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([("wrong_answer", 3, 0), ("wrong_answer", 0, 3), ("wrong_answer", 3, 3), ("wrong_answer", 2, 2)], 3),
        ([("success", 0, 3)], 0),  # a constant may be right
        ([("wrong_answer", 0, None), ("wrong_answer", 3, None)], 1),  # of reading nothing is known
        ([("wrong_answer", None, 3)], None),
    ],
    ids=["either", "right", "reading not known", "older"],
)
def test_idle_is_what_was_wrong_and_printed_nothing_or_read_nothing_on_every_test(answers, count):
    records = [
        record(i, error_type=kind, tests_silent=silent, tests_unread=unread, tests_run=3)
        for i, (kind, silent, unread) in enumerate(answers)
    ]
    summary = dataset_summary(records)
    assert summary["idle_count"] == count
    assert summary["idle_rate"] == (None if count is None else pytest.approx(count / len(answers)))


@pytest.mark.parametrize(
    ("before", "now", "silent_before", "silent_now", "seen"),
    [
        (0.5, 0.9, 0.05, 0.9, True),
        (0.5, 0.9, 0.0, 0.19, False),  # most of the rise is of programs that print
        (0.5, 0.9, 0.0, 0.21, True),
        (0.5, 0.9, 0.3, 0.3, False),  # as many as before
        (0.9, 0.5, 0.0, 0.5, False),  # no rise
        (0.5, 0.9, None, 0.4, True),  # not known of Phase 0: as many as the whole rise
        (0.5, 0.9, None, 0.39, False),
        (0.85, 0.9, None, 0.17, False),  # few of all that count as executed
        (0.85, 0.9, None, 0.19, True),
        (0.5, 0.9, 0.05, None, False),
    ],
)
def test_a_rise_is_of_silent_programs_where_they_are_more_than_half_of_it(before, now, silent_before, silent_now, seen):
    sides = []
    for label, rate, silent in (("Phase 0", before, silent_before), ("Phase 1", now, silent_now)):
        values = {"exec_success_rate": rate, "silent_rate": silent}
        sides.append(Side(label, {"codecontests_valid": DatasetResult("codecontests_valid", Path("m"), values)}))
    assert bool(silent_rises(*sides)) is seen


def test_a_rise_of_programs_that_print_a_constant_is_no_improvement(silent, tmp_path):
    """The silent case, but each of the programs prints a number without reading its input."""
    folder = tmp_path / "eval_step_44"
    shutil.copytree(silent["sft"], folder)
    path = folder / "results/codecontests_valid.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {"tests_silent": 0, "tests_unread": row["tests_run"] if row["error_type"] == "wrong_answer" else 0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_metrics(folder, {"codecontests_valid": list(read_records(path))})
    words = "is a rise of programs that print nothing or read nothing of their input, without them 45.0% → 0.0%"
    found = against_phase0(silent["base"] / "metrics.json", folder)
    assert any(words in line for line in found.worse)
    first = compare(tmp_path, silent["base"] / "metrics.json", folder / "metrics.json").stdout.splitlines()[0]
    assert words in first and "IMPROVED" not in first
    data = read_json(tmp_path / "out/comparison_data.json")
    assert data["verdict"]["word"] != "improved"
    assert [a["state"] for a in data["anomalies"] if "print or read nothing" in a["name"]] == ["seen"]
    best = choose_best(rank(finished_evaluations(tmp_path).by_step.values()))
    said = "18 of the 18 programs that count as executed at step 44 print nothing or read nothing of their input"
    assert best and best.best_step == 44 and said in (best.warning or "")


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def silent(tmp_path_factory) -> dict[str, Path]:
    return write_silent_case(tmp_path_factory.mktemp("silent"))


def test_the_report_says_it_in_its_first_lines_and_calls_nothing_improved(silent, tmp_path):
    done = compare(tmp_path, silent["base"] / "metrics.json", silent["sft"] / "metrics.json")
    out = tmp_path / "out"
    for name in ("summary.txt", "comparison_table.md"):
        first = (out / name).read_text().splitlines()[0]
        assert WORDS in first and "IMPROVED" not in first and "improved" not in first, first
    page = (out / "report.html").read_text()
    assert WORDS in page[: page.index('class="cards"')]
    data = json.loads((out / "comparison_data.json").read_text())
    assert data["verdict"]["word"] != "improved" and data["verdict"]["level"] == "bad"
    [row] = [r for r in data["rows"] if (r["metric"], r["dataset"]) == ("exec_success_rate", "codecontests_valid")]
    assert row["silent"] and row["answer"] != "improved"
    [expected] = [r for r in data["expected"] if r["metric"] == "exec_success_rate"]
    assert expected["verdict"] == "a rise of programs that print nothing"
    [anomaly] = [
        a for a in data["anomalies"] if a["name"] == "exec_success_rate rose by programs that print or read nothing"
    ]
    assert anomaly["state"] == "seen" and "without them 45.0% → 0.0%" in anomaly["evidence"][0]
    assert "without them 45.0% → 0.0%" in data["warnings"][0] and done.returncode == 0


def test_a_rise_of_silent_programs_alone_has_a_verdict_of_its_own(silent):
    sides = [read_side(label, [silent[name] / "metrics.json"]) for label, name in (("Phase 0", "base"), ("1", "sft"))]
    rows = [r for r in fill_rows(*sides, resamples=200) if r.spec.metric != "pass_ratio_mean"]
    found = verdict(rows, silent_rises=silent_rises(*sides))
    assert found == Verdict("silent", "bad", f"PRINTS NOTHING - {WORDS}")


def test_of_a_phase_0_that_does_not_say_which_programs_print_nothing_the_rise_may_be_one(silent, tmp_path):
    shutil.copytree(silent["base"], tmp_path / "base")
    for name in ("summary.json", "metrics.json"):
        content = read_json(tmp_path / "base" / name)
        del content.get("datasets", content)["codecontests_valid"]["silent_rate"]
        write_json(tmp_path / "base" / name, content)
    first = compare(tmp_path, tmp_path / "base" / "metrics.json", silent["sft"] / "metrics.json").stdout.splitlines()[0]
    assert "may be a rise of programs that print nothing, without them not known → 0.0%" in first


def test_the_early_warning_says_it_and_tests_pass_ratio(silent):
    found = against_phase0(silent["base"] / "metrics.json", silent["sft"])
    assert any(
        "exec_success_rate 50.0% → 90.0% is a rise of programs that print nothing" in line for line in found.worse
    )
    assert any(line.startswith("codecontests_valid: pass_ratio_mean ") for line in found.worse)


def test_best_checkpoint_json_and_the_status_page_say_it_in_their_first_lines(place):
    folders = write_silent_case(place.outputs)
    make_checkpoint(place.checkpoints, 44)
    done = place.evaluate("--since", 10**6, "--keep_best", 0, "--phase0_metrics", folders["base"] / "metrics.json")
    assert done.returncode == 1 and "step 44 is worse than Phase 0" in done.stderr, done.stdout
    said = "18 of the 18 programs that count as executed at step 44 print nothing"
    text = (place.outputs / "best_checkpoint.json").read_text()
    assert said in text.splitlines()[1]
    best = json.loads(text)
    assert (best["best_step"], best["best_exec_success_rate"]) == (44, 0.9)  # the contract's choice stands
    assert best["without_silent"] == {"best_step": 44, "exec_success_rate": 0.0}
    assert place.status().returncode == 0
    page = (place.outputs / "status.html").read_text()
    assert said in page[: page.index("best: step 44")] and ">silent<" in page and "warning: 18 of" in done.stdout
