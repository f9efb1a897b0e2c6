"""A metric has one home: a line of METRICS brings it to both files of an evaluation and to the report."""

from __future__ import annotations

import json

import pytest

from phase1.evaluate import metrics
from phase1.evaluate.metrics import RATE, Mean, Metric
from phase1.report import tables
from phase1.report.tables import SEED_ROWS, VALID, RowSpec
from tests.report import by_hand
from tests.report.fake_evaluations import IMPROVED, PHASE0, Fake, write_evaluation
from tests.report.running import compare

LONG = 300  # tokens
ADDED = Metric("long_answer_rate", Mean(lambda r: r.gen_tokens > LONG), RATE, -1, "long answers")


@pytest.fixture
def phases(tmp_path, monkeypatch):
    """Two evaluations, written and compared with one metric more."""
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, ADDED))
    for name, rates, seed in (("base", PHASE0, 0), ("sft", IMPROVED, 1)):
        write_evaluation(tmp_path / name, Fake(rates, sizes={VALID: 40, "humaneval": 30}, seed=seed))
    return tmp_path / "base", tmp_path / "sft"


def share(phase, dataset):
    """Counted from the stored lines."""
    rows = [json.loads(line) for line in (phase / "results" / f"{dataset}.jsonl").read_text().splitlines()]
    return sum(r["gen_tokens"] > LONG for r in rows) / len(rows)


@pytest.mark.slow
def test_it_stands_in_metrics_json_summary_json_and_the_report(phases, tmp_path):
    wanted = [share(phase, "humaneval") for phase in phases]
    for phase, value in zip(phases, wanted, strict=True):
        entry = json.loads((phase / "metrics.json").read_text())["humaneval"]
        summary = json.loads((phase / "summary.json").read_text())["datasets"]["humaneval"]
        assert entry["long_answer_rate"] == summary["long_answer_rate"] == pytest.approx(value)
    done = compare(tmp_path, *(phase / "metrics.json" for phase in phases))
    assert done.returncode == 0, done.stderr
    line = f"| humaneval | long answers | {wanted[0]:.1%} | {wanted[1]:.1%} |"
    assert line in (tmp_path / "out" / "comparison_table.md").read_text()


def test_a_row_of_it_has_unit_direction_interval_and_test(phases, tmp_path, monkeypatch):
    row = RowSpec("quality", VALID, "long_answer_rate", "long answers (valid)")
    monkeypatch.setattr(tables, "SEED_ROWS", (*SEED_ROWS, row))
    done = compare(tmp_path, *(phase / "metrics.json" for phase in phases))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "comparison_data.json").read_text())["rows"][-1]
    assert (found["metric"], found["unit"], found["better"]) == ("long_answer_rate", "rate", -1)
    counted = round(40 * share(phases[0], VALID))
    assert found["interval0"] == pytest.approx(by_hand.wilson(counted, 40))
    assert found["comparison"]["method"].startswith("McNemar")
