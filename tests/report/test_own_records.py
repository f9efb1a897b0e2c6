"""The files of one evaluation that do not belong together are named: nobody compares figures of one run with another's
answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.files import read_json, write_json
from phase1.judge.behaviour import behaviour
from phase1.judge.config import JudgeConfig
from phase1.report.comparability import comparability
from phase1.report.inputs import read_side
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation

SET = "mbpp_reg"


@pytest.fixture
def evaluation(tmp_path) -> Path:
    """An evaluation as this toolkit leaves one, with its completions and the rules of now."""
    rules = behaviour(JudgeConfig(extraction="contract")).model_dump()
    records = write_evaluation(
        tmp_path / "e",
        Fake(PHASE0, {SET: 4}, run={"behaviour": rules, "judge": {"extraction": "contract"}}),
    )
    (tmp_path / "e/completions").mkdir()
    lines = [json.dumps(asdict(r)) + "\n" for r in records[SET]]
    (tmp_path / "e/completions" / f"{SET}.jsonl").write_text("".join(lines))
    return tmp_path / "e"


def said_of(folder: Path) -> list[str]:
    """What a report says against an evaluation that it compares with itself."""
    sides = [read_side(label, [folder / "metrics.json"]) for label in ("Phase 0", "Phase 1")]
    return [f.text for f in comparability(*sides) if f.kind != "note"]


def edit_rows(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name / f"{SET}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        change(rows[1])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return edit


def edit_json(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        value = read_json(folder / name)
        change(value)
        write_json(folder / name, value)

    return edit


def test_a_whole_evaluation_has_nothing_said_against_it(evaluation):
    assert said_of(evaluation) == []
    assert EvaluationRun.read(evaluation / "run.json").complete


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edit_json("metrics.json", lambda m: m[SET].update(avg_gen_tokens=3)), "metrics.json says avg_gen_tokens 3, "),
        (
            edit_json("summary.json", lambda s: s["datasets"][SET].update(syntax_error_rate=0.9)),
            "summary.json says syntax_error_rate 0.9, ",
        ),
        (
            edit_json("summary.json", lambda s: s["datasets"][SET].update(accepted_at_1=0.99)),
            "summary.json says accepted_at_1 0.99, ",
        ),
        (edit_rows("results", lambda r: r.update(dataset="humaneval")), f"holds {SET}/1 of another data set"),
        (edit_rows("results", lambda r: r.update(prompt="Another.")), f"the prompts of {SET}/1 are not those of their"),
        (edit_rows("results", lambda r: r.update(code="print(0)")), f"the programs of {SET}/1 are not those in their"),
        (edit_rows("results", lambda r: r.update(completion="no")), f"the answers of {SET}/1 are not those in compl"),
        (edit_rows("completions", lambda r: r.update(completion="no")), f"the answers of {SET}/1 are not those in co"),
        (edit_json("run.json", lambda r: r.update(datasets={"humaneval": {}})), f"run.json names no {SET}: it is anot"),
        (
            edit_json("run.json", lambda r: r.update(finished="1970-01-01T00:01:00+00:00")),
            f"run.json is of another time than the verdicts of {SET}/0 and 3 more problems",
        ),
        (lambda folder: (folder / "results" / f"{SET}.jsonl").unlink(), f"has no results/{SET}.jsonl"),
    ],
    ids=[
        *("a figure", "a figure of the summary alone", "a figure that both have", "data set", "prompt", "program"),
        *("answer", "stored answer", "run.json of other sets", "run.json of another time", "no results"),
    ],
)
def test_what_does_not_belong_together_is_named(evaluation, edit, words):
    edit(evaluation)
    assert any(words in text for text in said_of(evaluation)), said_of(evaluation)
