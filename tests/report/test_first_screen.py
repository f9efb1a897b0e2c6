"""The first screen answers: did it help, can it be trusted, what next. What the words blame follows the evidence."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from phase1.report.anomalies import check_anomalies
from phase1.report.evidence import Evidence
from phase1.report.inputs import read_side
from phase1.report.tables import fill_rows
from phase1.report.train_data import TrainData
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation
from tests.report.running import compare


def first_screen(out: Path) -> str:
    """The page's text before its first table."""
    page = (out / "report.html").read_text()
    return " ".join(unescape(re.sub("<[^>]+>", " ", page[page.index("<body") : page.index("<table")])).split())


def change_run(folder: Path, **fields: object) -> None:
    run = json.loads((folder / "run.json").read_text())
    for name, value in fields.items():
        run[name] = run[name] | value if isinstance(value, dict) else value
    (folder / "run.json").write_text(json.dumps(run))


@pytest.mark.parametrize(
    "name, did, then",
    [
        ("better", "IMPROVED", "python verify_handoff.py --model_path model --report"),
        ("worse", "WORSE", "LR=5e-6 EXPERIMENT_NAME=gentler ./run_sft.sh"),
        ("equal", "NO CLEAR DIFFERENCE", "python phase1_eval.py --model_path model"),
    ],
)
def test_the_first_screen_says_whether_it_helped_what_was_compared_and_what_next(
    evaluations, tmp_path, name, did, then
):
    compare(tmp_path, evaluations["base"], evaluations[name])
    text = first_screen(tmp_path / "out")
    assert did in text and then in text and "Can I trust it?" in text
    for fact in ("Model : model", "Base : model", "Evaluated : 1970-01-01", "valid 40", "1 answer a problem, greedy"):
        assert fact.replace(" :", "") in text.replace(" :", ""), (fact, text)


def test_headline_rows_that_were_not_measured_stand_there_as_grey_cards(evaluations, tmp_path):
    compare(tmp_path, evaluations["base"], evaluations["better"])
    page = (tmp_path / "out" / "report.html").read_text()
    grey = re.findall(r'card unmeasured"><div class="name">(.*?)<', page)
    assert grey == ["exec_success_rate (valid_big)", "exec_success_rate (test)", "accepted_at_1 (test)"]
    assert len(re.findall(r'<div class="card[" ]', page)) == 8


@pytest.mark.parametrize(
    "fields, command",
    [
        ({"sampling": {"repetition_penalty": 1.1}}, "python phase1_eval.py --model_path model"),
        ({"behaviour": {"extraction": "e" * 64}}, "python phase1_eval.py --rejudge --output_dir"),
        ({"status": "running"}, "own command again"),
    ],
    ids=["sampling", "rules", "unfinished"],
)
def test_what_cannot_be_compared_is_grey_and_says_how_it_is_mended(sides, tmp_path, fields, command):
    base, better = sides
    change_run(better, **fields)
    done = compare(tmp_path, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 1
    text, page = first_screen(tmp_path / "out"), (tmp_path / "out" / "report.html").read_text()
    assert "NOT COMPARABLE" in text and "No: the two sides were measured differently" in text and command in text
    assert '<body class="grey">' in page


@pytest.mark.parametrize("host, tested", [("gpu7", True), ("gpu8", False)])
def test_judge_time_is_tested_only_where_the_same_machine_judged(sides, tmp_path, host, tested):
    for side, name in zip(sides, ("gpu7", host), strict=True):
        change_run(side, stamp={"host": name})
    compare(tmp_path, *(side / "metrics.json" for side in sides))
    rows = json.loads((tmp_path / "out" / "comparison_data.json").read_text())["rows"]
    row = next(r for r in rows if r["metric"] == "avg_judge_time")
    assert (row["comparison"] is not None) == tested and ("the host" in row["why"]) != tested


def test_the_rows_of_the_terminal_fit_80_columns(evaluations, tmp_path):
    done = compare(tmp_path, evaluations["base"], evaluations["worse"])
    table = done.stdout.split("change\n")[1].split("\n\n")[0].splitlines()
    assert len(table) > 20 and max(map(len, table)) <= 80


def test_no_name_of_a_row_is_cut_short(sides, tmp_path):
    """The pooled rows have the longest names."""
    done = compare(tmp_path, *(side / "metrics.json" for side in sides))
    assert "more characters" not in done.stdout


@pytest.mark.parametrize("before, blamed", [(1.0, "no more than 0.0 pp were to be had"), (0.9, "poor SFT data")])
def test_a_small_gain_is_not_blamed_on_the_data_where_there_was_no_room(evaluations, before, blamed):
    phase0, phase1 = (read_side(n, [evaluations["base"]]) for n in ("Phase 0", "Phase 1"))
    for side in (phase0, phase1):
        side.datasets["codecontests_valid"].values["exec_success_rate"] = before
    evidence = Evidence(phase0, phase1, fill_rows(phase0, phase1, resamples=200))
    found = next(a for a in check_anomalies(evidence) if a["name"].startswith("exec_success_rate rose by less"))
    assert found["state"] == "seen" and blamed in found["causes"], found


@pytest.mark.parametrize(
    "cut, not_compiling, blamed",
    [
        (2, 0, "cut off at the token limit: 2 of 2"),
        (1, 5, "cut off at the token limit: 1 of 2"),
        (0, 0, "not the training data"),
        (0, 5, "syntax errors in the training data"),
    ],
    ids=["all cut off", "half cut off", "neither", "training data"],
)
def test_a_rise_of_syntax_errors_blames_what_the_evidence_supports(evaluations, cut, not_compiling, blamed):
    phase0, phase1 = (read_side(n, [evaluations["base"]]) for n in ("Phase 0", "Phase 1"))
    result = phase1.datasets["codecontests_valid"]
    for i, (name, record) in enumerate(list(result.records.items())):
        kind = "syntax_error" if i < 2 else "wrong_answer"
        reason = "length" if i < cut else "stop"
        result.records[name] = replace(record, error_type=kind, finish_reason=reason)
    phase0.datasets["codecontests_valid"].values["syntax_error_rate"] = 0.0
    result.values["syntax_error_rate"] = 0.05
    counts = {"rows": 720, "sampled": 720, "compiled": 720, "other_system_prompt": 0, "without_code_tag": 0}
    data = TrainData(Path("t"), not_compiling=not_compiling, first_error="", compiler_died="", **counts)
    evidence = Evidence(phase0, phase1, fill_rows(phase0, phase1, resamples=200), train_data=data)
    found = next(a for a in check_anomalies(evidence) if a["name"] == "syntax_error_rate rose")
    assert found["state"] == "seen" and blamed in found["causes"], found


def test_where_not_even_the_largest_expected_change_would_be_found_the_verdict_says_so(tmp_path):
    """Eight problems cannot show the 40 points that the seed expects at most."""
    for name, seed in (("base", 0), ("sft", 3)):
        write_evaluation(tmp_path / name, Fake(PHASE0, sizes={"codecontests_valid": 8}, seed=seed))
    done = compare(tmp_path, tmp_path / "base" / "metrics.json", tmp_path / "sft" / "metrics.json")
    assert done.returncode == 0 and done.stdout.startswith("VERDICT: TOO SMALL TO TELL - "), done.stdout[:300]
    text = first_screen(tmp_path / "out")
    assert "TOO SMALL TO TELL" in text and "--n_samples 4" in text
    data = json.loads((tmp_path / "out" / "comparison_data.json").read_text())
    row = data["rows"][0]
    assert data["verdict"]["word"] == "too_small" and row["answer"] == "too small to tell"
    assert row["comparison"]["mde"] > 0.40


def test_the_base_model_is_evaluated_again_with_the_flags_of_the_other_side(sides, tmp_path):
    """Pasted, the command has to make the two comparable: what differs is in the flags, and a model is named once."""
    base, better = sides
    command = ["phase1_eval.py", "--checkpoint_dir", "c", "--step", "5", "--output_dir=o", "--max_new_tokens", "96"]
    change_run(better, sampling={"max_new_tokens": 96}, stamp={"command": [*command, "--datasets", "a b", "c"]})
    compare(tmp_path, base, better)
    again = "--model_path model --output_dir outputs/phase0_again --max_new_tokens 96 --datasets 'a b' c"
    assert f"python phase1_eval.py {again}" in first_screen(tmp_path / "out")


def test_the_same_is_asked_again_with_more_answers_and_the_flags_of_this_evaluation(evaluations, tmp_path):
    """Without the manifests' folder the command ended with exit code 2."""
    equal = Path(shutil.copytree(evaluations["equal"].parent, tmp_path / "equal"))
    command = ["phase1_eval.py", "--model_path", "m", "--manifest_dir", "my sets", "--datasets", "a", "b", "--final"]
    change_run(equal, stamp={"command": command})
    compare(tmp_path, evaluations["base"], equal / "metrics.json")
    text = first_screen(tmp_path / "out")
    more = "--datasets codecontests_valid codecontests_valid_big --n_samples 4 --temperature 0.8"
    assert f"--output_dir outputs/final_k --manifest_dir 'my sets' {more}" in text, text
