"""How often the test-only sets were looked at: written by phase1_eval.py, read by generate_report.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from phase1.evaluate.looks_at_test_sets import looks, note_looks
from tests.report.running import compare


@pytest.fixture
def looked(sides) -> tuple[Path, Path]:
    """The base model and step 500 were looked at once each; step 500 was resumed, and judged again by a relative
    path."""
    base, better = sides
    note_looks(base, ["humaneval", "mbpp_reg"], None, Path("/models/base"), None)
    for folder in (better, better, Path(f"{better}/../{better.name}")):
        note_looks(folder, ["humaneval"], 500, Path("/ckpt/global_step_500"), None)
    return sides


def test_a_set_that_is_not_in_the_registry_is_no_test_only_one(tmp_path):
    note_looks(tmp_path / "eval", ["a set of another version"], None, Path("/models/base"), None)
    assert list(tmp_path.iterdir()) == []


def test_the_report_says_how_often_the_test_sets_were_looked_at(looked, tmp_path):
    base, better = looked
    done = compare(tmp_path, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 0, done.stderr
    said = "humaneval: looked at in 2 evaluations: /models/base, step 500"
    for page in ("report.html", "comparison_table.md"):
        text = (tmp_path / "out" / page).read_text()
        assert said in text.replace("\\", "") and "mbpp_reg: looked at" not in text
    assert "no test any more" not in done.stdout


def test_a_second_checkpoint_that_was_looked_at_is_a_warning(looked, tmp_path):
    base, better = looked
    note_looks(tmp_path / "eval_step_1000", ["humaneval"], 1000, Path("/ckpt/global_step_1000"), 5)
    done = compare(tmp_path, base / "metrics.json", better / "metrics.json")
    assert (
        "warning: humaneval is test-only, but 2 checkpoints were evaluated on it (/models/base, step 1000, step 500)"
        in done.stdout
    )


def test_the_same_step_at_its_kept_copy_is_one_checkpoint(looked, tmp_path):
    note_looks(tmp_path / "eval_again", ["humaneval"], 500, Path("/kept/global_step_500"), None)
    notes, warnings = looks(looked, ["humaneval"])
    assert notes == ["humaneval: looked at in 3 evaluations: /models/base, step 500 2 times"] and not warnings


def test_where_no_log_lies_the_report_says_that_it_does_not_know(sides):
    assert looks(sides, ["humaneval", "codecontests_valid"]) == (
        ["humaneval: how often it was looked at is not known, no test_set_uses.jsonl beside the evaluations says so"],
        [],
    )
