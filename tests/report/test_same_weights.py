"""Two evaluations of the same weights: what moved is noise, and where it is as large as the gain the report says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from phase1.evaluate.finished import finished_evaluations
from phase1.files import read_json, write_json
from phase1.report.inputs import read_side
from phase1.report.same_weights import same_weights
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation, write_records
from tests.report.running import compare

VALID, SIZES = "codecontests_valid", {"codecontests_valid": 117, "codecontests_valid_big": 40}
MODEL = {"model": {"path": "m", "step": 500, "fingerprint": "same"}}


def write_both(root: Path, flips: int = 6, earlier: dict | None = None) -> None:
    """A base, and weights that solve ten problems more in the final run, with `flips` others in the earlier run.

    Half of the flips go up and half down; `earlier` is overlaid on its run.json.
    """
    base = write_evaluation(root / "base", Fake(PHASE0, SIZES))
    crashed = [r.problem_id for r in base[VALID] if r.error_type == "runtime_error"]
    wrong = [r.problem_id for r in base[VALID] if r.error_type == "wrong_answer"]
    runs, half = crashed[:10], flips // 2
    then = {**dict.fromkeys(runs[half:], "wrong_answer"), **dict.fromkeys(wrong[:half], "wrong_answer")}
    then |= dict.fromkeys(crashed[10 : 10 + half], "wrong_answer")
    now = dict.fromkeys(runs, "wrong_answer")
    for folder, ends, run in (("eval_step_500", then, {**MODEL, **(earlier or {})}), ("final", now, MODEL)):
        records = {name: [_ends(r, ends.get(r.problem_id)) for r in rows] for name, rows in base.items()}
        write_records(root / folder, Fake(PHASE0, SIZES, step=500, run=run), records)


def _ends(record, kind):
    if kind in (None, record.error_type):
        return record
    return dataclasses.replace(
        record,
        error_type=kind,
        completion="another answer",
        test_verdicts=[kind] * record.tests_total,
        tests_passed=0,
        pass_ratio=0.0,
    )


def found_in(root: Path):
    sides = [read_side(label, [root / name / "metrics.json"]) for label, name in (("Phase 0", "base"), ("1", "final"))]
    return same_weights(*sides, finished_evaluations(root).by_step.values())


def test_both_figures_flips_and_noise_are_those_of_the_records(tmp_path):
    write_both(tmp_path, flips=6)
    rows = {(r.dataset, r.metric): r for r in found_in(tmp_path).rows}
    assert len(rows) == 4
    row = rows[VALID, "exec_success_rate"]
    assert (row.gained, row.lost, row.problems, row.step) == (3, 3, 117, 500)
    assert row.final == row.earlier == pytest.approx(0.658 + 10 / 117, abs=0.06)
    assert row.noise == pytest.approx(1.96 * 6**0.5 / 117) and row.gain == pytest.approx(10 / 117)
    assert not row.hides_the_gain and row.other_answers == 6
    quiet = rows["codecontests_valid_big", "exec_success_rate"]
    assert (quiet.noise, quiet.hides_the_gain, quiet.other_answers) == (0.0, False, 0)  # no gain, and no noise either


def raise_base(root: Path, problems: int) -> None:
    """Let the base run so many problems of codecontests_valid more than its records say: the gain is smaller."""
    summary = read_json(root / "base" / "summary.json")
    summary["datasets"][VALID]["exec_success_rate"] += problems / 117
    write_json(root / "base" / "summary.json", summary)


@pytest.mark.parametrize(
    ("flips", "gain", "hidden"), [(6, 10, False), (20, 10, False), (20, 8, True), (6, 4, True), (0, 1, False)]
)
def test_noise_as_large_as_the_gain_is_said_with_batch_invariant_as_the_remedy(tmp_path, flips, gain, hidden):
    write_both(tmp_path, flips)
    raise_base(tmp_path, 10 - gain)
    [row] = [r for r in found_in(tmp_path).rows if (r.dataset, r.metric) == (VALID, "exec_success_rate")]
    assert row.hides_the_gain is hidden and ("--batch_invariant" in row.sentence()) is hidden


def test_the_report_has_the_table_and_the_warning(tmp_path):
    write_both(tmp_path, flips=6)
    raise_base(tmp_path, 8)
    done = compare(tmp_path, tmp_path / "base" / "metrics.json", tmp_path / "final" / "metrics.json")
    out = tmp_path / "out"
    data = read_json(out / "comparison_data.json")
    said = "6 of 117 problems flipped, 6 have another answer: two runs lie up to 4.1 pp apart"
    assert any(said in warning and "--batch_invariant" in warning for warning in data["warnings"]), done.stderr
    assert len(data["same_weights"]) == 4 and said in (out / "summary.txt").read_text()
    for name in ("comparison_table.md", "report.html"):
        assert "The same weights, evaluated twice" in (out / name).read_text()


@pytest.mark.parametrize(
    ("run", "left_out"),
    [
        ({"model": {"step": 500, "fingerprint": "other"}}, None),
        ({"model": {"step": 500}}, None),
        ({"prompts_sha256": "d" * 64}, "eval_step_500 evaluated the same weights, but otherwise: "),
        ({"status": "running"}, None),
    ],
    ids=["other weights", "unknown weights", "other prompts", "unfinished"],
)
def test_what_is_not_the_same_weights_measured_alike_is_not_compared(tmp_path, run, left_out):
    write_both(tmp_path, earlier=run)
    found = found_in(tmp_path)
    assert found.rows == [] and all(line.startswith(left_out) for line in found.left_out)
    assert bool(found.left_out) is (left_out is not None)


def test_an_earlier_evaluation_that_was_changed_is_named_and_stops_no_report(tmp_path):
    write_both(tmp_path)
    path = tmp_path / "eval_step_500" / "results" / f"{VALID}.jsonl"
    path.write_text(path.read_text().replace('"accepted": false', '"accepted": true', 1))
    assert found_in(tmp_path).rows == []
    assert "accepted is True" in finished_evaluations(tmp_path).damaged[0]


def test_an_earlier_evaluation_whose_figures_are_torn_is_named_and_stops_no_report(tmp_path):
    write_both(tmp_path)
    (tmp_path / "eval_step_500" / "metrics.json").write_text("{")
    found = found_in(tmp_path)
    assert found.rows == [] and "cannot be read: " in found.left_out[0] and "metrics.json:1" in found.left_out[0]


def test_an_evaluation_is_not_compared_with_itself(tmp_path):
    write_both(tmp_path)
    sides = [read_side(label, [tmp_path / "eval_step_500" / "metrics.json"]) for label in ("Phase 0", "Phase 1")]
    assert same_weights(*sides, finished_evaluations(tmp_path).by_step.values()).rows == []
