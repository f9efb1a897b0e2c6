"""Any number of runs against one base: the same numbers as two by two, one correction over all, bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.report.fake_evaluations import IMPROVED, PHASE0, WORSE, Fake, write_evaluation
from tests.report.running import SMALL, compare, generate

MIDDLE = {d: tuple((a + b) / 2 for a, b in zip(PHASE0[d], IMPROVED[d], strict=True)) for d in PHASE0}


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("five")
    for i, (name, rates) in enumerate(
        (("base", PHASE0), ("step_10", MIDDLE), ("step_20", IMPROVED), ("seed_2", IMPROVED), ("bad", WORSE))
    ):
        step = int(name.split("_")[1]) if name.startswith("step") else None
        write_evaluation(root / name, Fake(rates, sizes=SMALL, seed=i, step=step))
    return {p.name: p / "metrics.json" for p in root.iterdir()}


def together(five: dict[str, Path], out: Path, *more: object, names: tuple[str, ...] = ()):
    names = names or ("base", "step_10", "step_20", "seed_2", "bad")
    runs = [f"{n}={five[n]}" for n in names]
    return generate("--runs", *runs, "--output_dir", out, "--resamples", 300, *more)


@pytest.fixture(scope="module")
def page(five, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs")
    done = together(five, out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.parametrize("name", ["step_10", "bad"])
def test_a_runs_numbers_are_those_of_the_same_two_by_themselves(five, page, tmp_path, name):
    assert compare(tmp_path, five["base"], five[name], "--resamples", 300).returncode == 0
    alone = json.loads((tmp_path / "out" / "comparison_data.json").read_text())["rows"]
    alone = {r["label"]: r for r in alone if r["headline"] and r["phase1"] is not None}
    run = next(r for r in json.loads((page[0] / "runs.json").read_text())["runs"] if r["name"] == name)
    assert [r["label"] for r in run["rows"]] == list(alone)
    for r in run["rows"]:
        for key in ("phase0", "phase1", "change"):
            assert r[key] == alone[r["label"]][key]
        for key in ("low", "high", "p", "mde"):
            assert r["comparison"][key] == alone[r["label"]]["comparison"][key]


def test_holms_correction_runs_over_all_rows_of_all_runs(page):
    data = json.loads((page[0] / "runs.json").read_text())
    asked = sorted((r["comparison"] for run in data["runs"] for r in run["rows"]), key=lambda c: c["p"])
    running = 0.0
    for rank, c in enumerate(asked):
        running = max(running, min(1.0, (len(asked) - rank) * c["p"]))
        assert c["p_holm"] == pytest.approx(running)
    assert data["family"] == len(asked) == 4 * len(data["runs"][1]["rows"])


def test_the_best_of_each_row_is_the_largest_value_seen(five, page):
    data = json.loads((page[0] / "runs.json").read_text())
    for label, dataset, metric in (("HumanEval pass@1", "humaneval", "accepted_at_1"),):
        values = {n: json.loads(path.read_text())[dataset][metric] for n, path in five.items()}
        assert set(data["best"][label]) == {n for n, v in values.items() if v == max(values.values())}


def test_every_run_and_row_stands_on_the_page_in_the_table_and_in_80_columns(page):
    html, text = ((page[0] / f"runs.{kind}").read_text() for kind in ("html", "md"))
    for name in ("base", "step_10", "step_20", "seed_2", "bad"):
        assert f"<th>{name}" in html and name in text and name in page[1]
    assert html.count("<figure>") >= 3 and "<title>" in html
    rows = [line for line in page[1].splitlines()[1:] if not line.startswith("written")]
    assert max(map(len, rows)) <= 80
    assert re.search(r"bad +[\d.]+% +-[\d.]+ pp +worse", page[1])


def test_a_run_that_was_measured_otherwise_is_named_not_answered_and_exits_1(five, tmp_path):
    shutil.copytree(five["step_20"].parent, tmp_path / "other")
    run = json.loads((tmp_path / "other" / "run.json").read_text())
    run["sampling"]["repetition_penalty"] = 1.1
    (tmp_path / "other" / "run.json").write_text(json.dumps(run))
    runs = {**five, "other": tmp_path / "other" / "metrics.json"}
    for more, code in (((), 1), (("--allow_mismatch",), 0)):
        done = together(runs, tmp_path / "out", *more, names=("base", "step_10", "other"))
        assert done.returncode == code, done.stderr
    data = json.loads((tmp_path / "out" / "runs.json").read_text())
    other = data["runs"][2]
    assert any("repetition_penalty" in m for m in other["mismatches"])
    assert {r["answer"] for r in other["rows"]} == {"not comparable"}
    assert all(r["comparison"]["p_holm"] is None for r in other["rows"])
    assert not any("other" in names for names in data["best"].values())


def test_another_base_turns_the_changes_round(five, tmp_path):
    assert together(five, tmp_path, "--base", "bad", names=("base", "bad")).returncode == 0
    data = json.loads((tmp_path / "runs.json").read_text())
    assert data["base"] == "bad" and data["runs"][1]["rows"] == []
    assert all(r["phase0"] is not None for r in data["runs"][0]["rows"])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--runs", "a.json", "b=b.json"], "expected NAME=metrics.json"),
        (["--runs", "a=BASE"], "give two or more"),
        (["--runs", "a=BASE", "a=BASE"], "another run is named a"),
        (["--runs", "a=BASE", "b=nowhere.json"], "nowhere.json: no such file"),
        (["--runs", "a=BASE", "b=BASE", "--base", "c"], "no run has this name; there are a, b"),
        (["--runs", "a=BASE", "b=BASE", "--phase0_metrics", "BASE"], "instead of both"),
        (["--runs", "a=BASE", "b=BASE", "--gate", "rules.toml"], "--gate belongs to a comparison of two"),
        (["--phase0_metrics", "BASE"], "go together"),
        (["--phase0_metrics", "BASE", "--phase1_metrics", "BASE", "--base", "a"], "--base names one of --runs"),
        ([], "give --phase0_metrics and --phase1_metrics, or --runs"),
    ],
    ids=["no name", "one", "twice", "no file", "no base", "both", "gate", "one side", "base alone", "nothing"],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(five, tmp_path, arguments, says):
    done = generate(*(a.replace("BASE", str(five["base"])) for a in arguments), "--output_dir", tmp_path / "out")
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_demos_checkpoints_and_base_stand_on_one_page(tmp_path):
    demo = ROOT / "outputs" / "demo"
    steps = sorted(demo.glob("eval_step_*/metrics.json"))
    if len(steps) < 4:
        pytest.skip("no outputs/demo with four evaluated checkpoints; bash run_demo.sh makes it")
    runs = [f"{p.parent.name}={p}" for p in [demo / "phase0" / "metrics.json", *steps[:4]]]
    done = generate("--runs", *runs, "--output_dir", tmp_path, "--resamples", 300)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "runs.html").read_text()
    assert all(f"<th>{r.split('=')[0]}" in html for r in runs) and html.count("<figure>") >= 3
