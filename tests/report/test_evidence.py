"""Expected ranges, anomalies, flips, exception messages, training logs and rows: what the report shows beside the
tables."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from phase1.contract.prompts import answer, chat
from phase1.contract.records import Record
from phase1.files import BadInput
from phase1.report.anomalies import check_anomalies
from phase1.report.evidence import Evidence
from phase1.report.expected_and_seen import check_expected
from phase1.report.figures import PHASES, figures
from phase1.report.flips import flips, top_exceptions
from phase1.report.inputs import read_side
from phase1.report.tables import fill_rows
from phase1.report.train_data import check_train_data
from phase1.train.step_log import Point
from tests.report.running import SMALL, compare


def test_expected_ranges_and_anomalies_of_a_worse_model(evaluations):
    phase0, phase1 = read_side("Phase 0", [evaluations["base"]]), read_side("Phase 1", [evaluations["worse"]])
    evidence = Evidence(
        phase0,
        phase1,
        fill_rows(phase0, phase1, resamples=200),
        [flips(phase0.datasets[d], phase1.datasets[d]) for d in SMALL],
    )
    places = {(r["dataset"], r["metric"]): r["verdict"] for r in check_expected(evidence)}
    assert places["codecontests_valid", "exec_success_rate"] == "wrong direction"
    assert places["humaneval", "accepted_at_1"] == "fell out of the range"
    seen = {a["name"]: " ".join(a["evidence"]) for a in check_anomalies(evidence) if a["state"] == "seen"}
    assert "SyntaxError" in seen["exec_success_rate rose by less than 10 pp"]
    assert "solved before are not now" in seen["HumanEval fell by more than 5 pp"]
    assert "syntax_error_rate rose" in seen


@pytest.mark.slow
def test_what_only_one_phase_measured_is_no_data_and_both_phases_stand_in_the_legend(evaluations):
    phase0, phase1 = read_side("Phase 0", [evaluations["base"]]), read_side("Phase 1", [evaluations["better"]])
    del phase0.datasets["codecontests_valid"], phase1.datasets["humaneval"]
    phase0.datasets["humaneval"].values["accepted_at_1"] = 0.0
    evidence = Evidence(phase0, phase1, [])
    assert {r["dataset"]: r["verdict"] for r in check_expected(evidence)} == {
        "codecontests_valid": "no data",
        "humaneval": "no data",
        "mbpp_reg": "as expected",
    }
    assert all(name in figures(evidence)[0][1] for name, _ in PHASES)


def test_the_anomaly_of_no_change_shows_the_loss_curve(evaluations):
    side = read_side("Phase 0", [evaluations["base"]])
    log = {"train/loss": [(i, 1.0) for i in range(40)]}
    found = {
        a["name"]: a for a in check_anomalies(Evidence(side, side, fill_rows(side, side, resamples=200), train_log=log))
    }
    assert "(flat)" in " ".join(found["no metric changed by 1 pp"]["evidence"])


def test_a_loss_that_is_no_number_any_more_is_said_to_have_diverged(evaluations):
    side = read_side("Phase 0", [evaluations["base"]])
    log = {"train/loss": [Point(i, 1.0 if i < 20 else float("nan")) for i in range(40)]}
    rows = fill_rows(side, side, resamples=200)
    found = {a["name"]: a for a in check_anomalies(Evidence(side, side, rows, train_log=log))}
    assert "diverged" in " ".join(found["no metric changed by 1 pp"]["evidence"])


def test_flips_and_transitions_count_every_common_problem_once(evaluations):
    a, b = (read_side("x", [evaluations[n]]).datasets["codecontests_valid"] for n in ("base", "worse"))
    f = flips(a, b)
    solved = [sum(r.accepted for r in x.records.values()) for x in (a, b)]
    assert len(f.fixed) - len(f.broken) == solved[1] - solved[0]
    assert sum(f.transitions.values()) == f.pairs == 40
    for t in f.types:
        assert sum(n for (x, _), n in f.transitions.items() if x == t) == sum(
            r.error_type == t for r in a.records.values()
        )


def test_messages_that_differ_in_numbers_and_names_count_as_one():
    def failed(detail: str, error_type: str = "runtime_error") -> Record:
        return Record("d", detail, "", "", "", "stop", 0, 0, 0.0, 0.0, 0, error_type=error_type, detail=detail)

    records = [failed(f"Traceback\nKeyError: '{k}' in row {k}") for k in range(3)] + [
        failed(""),
        failed("invalid syntax (line 3)", "syntax_error"),
    ]
    assert top_exceptions(records) == [
        ("KeyError: '…' in row N", 3),
        ("(runtime_error without a message)", 1),
        ("SyntaxError: invalid syntax (line N)", 1),
    ]


def test_training_rows_are_compiled_and_compared_with_the_evaluations_form(tmp_path):
    rows = [
        chat("u", answer("print(1)")),
        chat("u", answer("print 1")),
        chat("u", "print(2)"),
        [{"role": "system", "content": "other"}, *chat("u", answer("x = 1"))[1:]],
    ]
    pd.DataFrame({"messages": rows}).to_parquet(tmp_path / "t.parquet")
    found = check_train_data(tmp_path / "t.parquet")
    assert (found.rows, found.not_compiling, found.without_code_tag, found.other_system_prompt) == (
        4,
        1,
        1,
        1,
    )
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match="bad.parquet"):
        check_train_data(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    "row", [None, "text", [{"role": "assistant", "content": None}], [{"r": "assistant", "c": "x"}]]
)
def test_a_training_row_that_is_no_conversation_is_named(tmp_path, row):
    pd.DataFrame({"messages": [row]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="t.parquet: row 1: messages"):
        check_train_data(tmp_path / "t.parquet")


@pytest.mark.slow
def test_a_training_row_that_kills_the_compiler_is_a_warning_of_the_report_which_lives_on(
    evaluations, tmp_path, monkeypatch
):
    """A real interpreter with a small stack, so that the nesting that overflows it is the same on every version."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -s 256\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    programs = ["print 1", "not " * 5900 + "x", "x = 1"]
    pd.DataFrame({"messages": [chat("u", answer(p)) for p in programs]}).to_parquet(tmp_path / "t.parquet")
    found = check_train_data(tmp_path / "t.parquet")
    assert (found.sampled, found.compiled, found.not_compiling) == (3, 1, 1)
    done = compare(tmp_path, evaluations["base"], evaluations["worse"], "--train_data", tmp_path / "t.parquet")
    assert done.returncode == 0, done.stderr
    assert (
        "training row 2 ended Python's compiler (SIGSEGV): look at it and drop it; the 1 sampled rows after it "
        "were not compiled"
    ) in done.stdout
    assert "1 of 1 sampled training answers (of 3) do not compile; first: SyntaxError" in done.stdout
