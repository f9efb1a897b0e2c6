"""generate_report.py: the tables against a count by hand, the verdict, comparability, hostile and broken input, the pages."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

import generate_report
from phase1 import report_inputs
from phase1.files import BadInput, run_script
from phase1.report_flips import flips, top_exceptions
from phase1.report_inputs import check_train_data, read_side, read_train_log
from phase1.report_tables import SEED_ROWS, fill_rows, row_answer, row_change, row_interval
from phase1.report_text import shown
from phase1.report_verdict import Evidence, check_anomalies, check_expected, verdict
from phase1.results import Record
from tests import chromium
from tests.fake_evaluations import IMPROVED, PHASE0, WORSE, Fake, write_evaluation, write_original_phase0

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).resolve().parent / "golden"
SMALL = {"codecontests_valid": 40, "mbpp_reg": 30, "humaneval": 30}


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def generate(*arguments: object, plots: bool = False, cwd: Path | None = None) -> Done:
    """Run the script in this process (its imports take longer than it does); plots only where a test looks at them."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["generate_report.py", *map(str, arguments)])
        if cwd:
            patch.chdir(cwd)
        if not plots:
            patch.setattr(generate_report, "figures", lambda *_: [])
        with pytest.raises(SystemExit) as stop:
            run_script(generate_report.main)
    return Done(stop.value.code, *(stream.buffer.getvalue().decode() for stream in (out, err) if stream.flush() is None))


def compare(tmp_path: Path, phase0: Path, phase1: Path, *more: object, plots: bool = False) -> Done:
    return generate("--phase0_metrics", phase0, "--phase1_metrics", phase1, "--output_dir", tmp_path / "out", "--resamples", 200, *more, plots=plots)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory) -> dict[str, Path]:
    """metrics.json of a small base, a better, a worse and an equal SFT model, and of the original project's Phase 0."""
    root = tmp_path_factory.mktemp("evaluations")
    for name, rates, seed in (("base", PHASE0, 0), ("better", IMPROVED, 1), ("worse", WORSE, 1), ("equal", PHASE0, 0)):
        write_evaluation(root / name, Fake(rates, sizes=SMALL, seed=seed))
    write_original_phase0(root / "original")
    return {p.name: p / "metrics.json" for p in root.iterdir()}


@pytest.fixture
def sides(evaluations, tmp_path):
    """Copies of base and better that a test may damage."""
    for name in ("base", "better"):
        shutil.copytree(evaluations[name].parent, tmp_path / name)
    return tmp_path / "base", tmp_path / "better"


# ------------------------------------------------------------------------------------------------------ golden files
@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("golden")
    done = generate("--phase0_metrics", "phase0/metrics.json", "--phase1_metrics", "phase1/metrics.json", "--output_dir", out, "--checkpoints", "phase1", plots=True, cwd=GOLDEN)
    assert done.returncode == 0, done.stderr
    return out


def test_the_golden_inputs_give_the_golden_table(golden):
    assert (golden / "comparison_table.md").read_text() == (GOLDEN / "comparison_table.md").read_text()


def by_hand(phase: str, dataset: str) -> dict[str, float | None] | None:
    """Every number that the tables show, counted from the stored lines with nothing of phase1."""
    path = GOLDEN / phase / "results" / f"{dataset}.jsonl"
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    n, solved = len(rows), sum(r["accepted"] for r in rows)
    ratios = sorted(r["pass_ratio"] for r in rows)

    def quantile(q: float) -> float:
        at = q * (n - 1)
        low = int(at)
        return ratios[low] + (at - low) * (ratios[min(low + 1, n - 1)] - ratios[low])

    tokens, judge = sum(r["gen_tokens"] for r in rows), sum(r["judge_time"] for r in rows)
    ended = {t: sum(r["error_type"] == t for r in rows) / n for t in ("success", "wrong_answer", "timeout", "runtime_error", "syntax_error")}
    return {
        "exec_success_rate": ended["success"] + ended["wrong_answer"],
        "accepted_at_1": solved / n,
        "pass_ratio_mean": sum(ratios) / n,
        "pass_ratio_p50": quantile(0.5),
        "pass_ratio_p90": quantile(0.9),
        **{f"{t}_rate": share for t, share in ended.items()},
        "avg_gen_tokens": tokens / n,
        "avg_judge_time": judge / n,
        "throughput": n / (max(r["finished"] for r in rows) - min(r["started"] for r in rows)),
        "cost_per_solved_tokens": tokens / solved,
        "cost_per_solved_judge_time": judge / solved,
    }


def table_rows(text: str) -> dict[str, list[str]]:
    """First cell -> further cells of every row of the three tables."""
    lines = text.split("## Expected")[0].splitlines()
    cells = [[c.strip(" *") for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells if row[0] not in ("Metric", "---")}


@pytest.mark.parametrize("spec", SEED_ROWS, ids=lambda s: s.label)
def test_every_number_of_the_three_tables_equals_one_counted_by_hand(golden, spec):
    before, after, change = table_rows((golden / "comparison_table.md").read_text())[spec.label][:3]
    form = {"rate": lambda v: f"{v * 100:.1f}%", "ratio": lambda v: f"{v:.3f}", "tokens": lambda v: f"{v:.1f}",
            "s": lambda v: f"{v:.2f} s", "prob/s": lambda v: f"{v:.2f} prob/s"}[spec.unit]  # fmt: skip
    x, y = by_hand("phase0", spec.dataset), by_hand("phase1", spec.dataset)[spec.metric]
    assert after == form(y)
    if x is None:
        assert (before, change) == ("-", "-")
        return
    x = x[spec.metric]
    assert before == form(x)
    if spec.table == "errors" and spec.metric != "wrong_answer_rate":
        assert change == f"{(y - x) / x * 100:+.1f}% relative"
    else:
        expected = form(y - x).replace("%", " pp")
        assert change == (expected if expected.startswith("-") else "+" + expected)


@pytest.mark.parametrize("spec", [s for s in SEED_ROWS if s.unit == "rate" and s.dataset != "codecontests_valid_big"], ids=lambda s: s.label)
def test_the_pairs_that_changed_are_those_counted_by_hand(golden, spec):
    def holds(row: dict) -> bool:
        if spec.metric == "accepted_at_1":
            return row["accepted"]
        return row["error_type"] in ("success", "wrong_answer") if spec.metric == "exec_success_rate" else f"{row['error_type']}_rate" == spec.metric

    before, after = ({r["problem_id"]: holds(r) for r in map(json.loads, (GOLDEN / p / "results" / f"{spec.dataset}.jsonl").read_text().splitlines())}
                     for p in ("phase0", "phase1"))  # fmt: skip
    up, down = (sum(x[i] and not y[i] for i in before) for x, y in ((after, before), (before, after)))
    assert f"; {up} up, {down} down)" in table_rows((golden / "comparison_table.md").read_text())[spec.label][-1]


def test_the_tables_have_every_row_of_the_seed_in_its_order(golden):
    rows = list(table_rows((golden / "comparison_table.md").read_text()))
    assert rows == [
        "exec_success_rate (valid)", "exec_success_rate (valid_big)", "exec_success_rate (test)", "accepted_at_1 (valid)", "accepted_at_1 (test)",
        "pass_ratio_mean (valid)", "pass_ratio_p50 (valid)", "pass_ratio_p90 (valid)", "HumanEval pass@1", "MBPP_reg pass@1",
        "syntax_error", "runtime_error", "timeout", "wrong_answer",
        "avg_gen_tokens", "avg_judge_time", "throughput", "cost_per_solved_tokens", "cost_per_solved_judge_time",
    ]  # fmt: skip


def test_the_data_file_says_how_it_was_made_and_holds_every_row(golden):
    data = json.loads((golden / "comparison_data.json").read_text())
    assert data["stamp"]["versions"]["scipy"] and len(data["rows"]) == 19
    first = data["rows"][0]["comparison"]
    assert first["p_holm"] >= first["p"] and {"mcnemar_exact_p", "mcnemar_mid_p", "gained", "lost"} <= first["detail"].keys()


# --------------------------------------------------------------------------------------------------------- verdict
@pytest.mark.parametrize("name, word", [("better", "IMPROVED"), ("worse", "WORSE"), ("equal", "NO DIFFERENCE SHOWN")])
def test_the_verdict_stands_in_the_first_line_of_every_output(evaluations, tmp_path, name, word):
    done = compare(tmp_path, evaluations["base"], evaluations[name])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(f"VERDICT: {word} - ")
    for file in ("summary.txt", "comparison_table.md"):
        assert f"VERDICT: {word} - " in (tmp_path / "out" / file).read_text().splitlines()[0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"<strong>{word}</strong>" in page[: page.index("<table")]


def test_a_model_that_gains_in_one_set_and_breaks_another_is_worse_in_part(evaluations, tmp_path):
    rates = IMPROVED | {"humaneval": (0.3, 0.3, 0.0, 0.3, 0.1)}
    write_evaluation(tmp_path / "mixed", Fake(rates, sizes=SMALL, seed=1))
    done = compare(tmp_path, evaluations["base"], tmp_path / "mixed" / "metrics.json")
    first = done.stdout.splitlines()[0]
    assert first.startswith("VERDICT: WORSE IN PART") and first.index("HumanEval") < first.index("exec_success_rate (valid)")


def rows_of(tmp_path: Path, before: dict, after: dict, sizes: dict[str, int], noise: float = 0.0) -> list:
    for name, rates in (("b", before), ("a", after)):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        write_evaluation(tmp_path / name, Fake(rates, sizes=sizes, noise=noise))
    return fill_rows(*(read_side(n, [tmp_path / n / "metrics.json"]) for n in "ba"), resamples=200)


@pytest.mark.parametrize(
    "runs, word",
    [(0.50, "worse"), (0.61, "maybe_worse"), (0.64, "not_better"), (0.66, "not_shown"), (0.85, "improved")],
)
def test_the_verdict_grows_with_the_loss(tmp_path, runs, word):
    """exec_success_rate of 117 problems from 66% to `runs`, everything else equal."""
    before = {"codecontests_valid": (0.1, 0.56, 0.1, 0.24, 0.0)}
    after = {"codecontests_valid": (0.1, runs - 0.1, 0.1, 0.9 - runs, 0.0)}
    rows = [r for r in rows_of(tmp_path, before, after, {"codecontests_valid": 117}) if r.spec.metric in ("exec_success_rate", "accepted_at_1")]
    assert verdict(rows).word == word, verdict(rows).line


NEVER, ALWAYS = dict.fromkeys(PHASE0, (0.0, 0.0, 0.0, 0.6, 0.4)), dict.fromkeys(PHASE0, (0.98, 0.02, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "before, after, opening, more",
    [
        (NEVER, ALWAYS, "IMPROVED - exec_success_rate (valid) 0.0% → 100.0% (+100.0 pp, 95% interval +", ["and 6 more; no headline row got worse"]),
        (ALWAYS, NEVER, "WORSE - the SFT model is worse than its base: exec_success_rate (valid) 100.0% → 0.0% (-100.0 pp, 95% interval -", ["and 6 more"]),
        (NEVER | {"humaneval": (1.0, 0, 0, 0, 0), "mbpp_reg": (1.0, 0, 0, 0, 0)}, ALWAYS | {"humaneval": NEVER["humaneval"], "mbpp_reg": NEVER["mbpp_reg"]},
         "WORSE IN PART - worse than its base: HumanEval pass@1 100.0% → 0.0% (-100.0 pp, 95% interval -", ["; improved: exec_success_rate (valid) 0.0%", "and 5 more"]),
    ],
    ids=["improved", "worse", "in part"],
)  # fmt: skip
def test_where_all_rows_move_the_first_line_shows_three_at_most_the_primary_first_and_counts_the_rest(tmp_path, before, after, opening, more):
    for name, rates in (("base", before), ("sft", after)):
        write_evaluation(tmp_path / name, Fake(rates, sizes=dict.fromkeys(PHASE0, 40), seed=3))
    done = compare(tmp_path, tmp_path / "base" / "metrics.json", tmp_path / "sft" / "metrics.json")
    line = done.stdout.splitlines()[0]
    assert line.startswith("VERDICT: " + opening) and all(m in line for m in more), line
    assert len(line) < 250 and 2 <= line.count("→") <= 3 and line.count("interval") == 1, line
    box = re.search(r'id="verdict">(.*?)</div>', (tmp_path / "out" / "report.html").read_text(), re.DOTALL)[1]
    assert " ".join(unescape(re.sub("<[^>]+>", " ", box)).split()) == line.removeprefix("VERDICT: ").replace(" - ", " ", 1)
    answers = [cells[-1] for label, cells in table_rows((tmp_path / "out" / "comparison_table.md").read_text()).items() if "exec_success" in label]
    assert len(answers) == 3 and all(re.match("improved|worse", a) for a in answers)  # the tables hold what the line only counts


def test_a_percentile_shows_its_change_and_interval_and_is_not_decided(tmp_path):
    """From nothing passed to nearly all: as large as a change can be, and a swap of the phases' labels cannot see it."""
    for name, rates in (("base", (0.0, 0.0, 0.0, 0.0, 1.0)), ("sft", ALWAYS["codecontests_valid"])):
        write_evaluation(tmp_path / name, Fake({"codecontests_valid": rates}, sizes={"codecontests_valid": 60}))
    rows = fill_rows(*(read_side(n, [tmp_path / n / "metrics.json"]) for n in ("base", "sft")), resamples=200)
    percentiles = [r for r in rows if r.spec.metric in ("pass_ratio_p50", "pass_ratio_p90")]
    for r in percentiles:
        assert (row_change(r), row_interval(r), row_answer(r)) == ("+1.000", "+1.000 to +1.000", "- (a percentile: interval only)")
    family = [r.comparison for r in rows if r.comparison and r.spec.table != "cost" and r not in percentiles]
    smallest = min(family, key=lambda c: c.p)
    assert smallest.p_holm == pytest.approx(len(family) * smallest.p) and all(r.comparison.p_holm is None for r in percentiles)


def test_nothing_solved_before_and_a_tiny_set_as_in_the_demo(tmp_path):
    learnt = dict.fromkeys(PHASE0, (0.8, 0.18, 0.0, 0.02, 0.0))
    for name, rates in (("base", NEVER), ("sft", learnt)):
        write_evaluation(tmp_path / name, Fake(rates, sizes=dict.fromkeys(PHASE0, 20), seed=3))
    done = compare(tmp_path, tmp_path / "base" / "metrics.json", tmp_path / "sft" / "metrics.json", "--qa_html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VERDICT: IMPROVED")
    rows = table_rows((tmp_path / "out" / "comparison_table.md").read_text())
    assert rows["cost_per_solved_tokens"][0] == "-" and rows["cost_per_solved_tokens"][2] == "-"


# ------------------------------------------------------------------------------------------------- aggregates only
def test_the_original_phase_0_is_read_without_records_and_compared(evaluations, tmp_path):
    write_evaluation(tmp_path / "sft", Fake(IMPROVED, seed=1))
    done = compare(tmp_path, evaluations["original"], tmp_path / "sft" / "metrics.json")
    assert done.returncode == 0, done.stderr
    rows = table_rows((tmp_path / "out" / "comparison_table.md").read_text())
    contract = {"exec_success_rate (valid)": "65.8%", "exec_success_rate (valid_big)": "67.0%", "exec_success_rate (test)": "60.0%",
                "accepted_at_1 (valid)": "1.7%", "accepted_at_1 (test)": "3.0%", "pass_ratio_mean (valid)": "0.143", "HumanEval pass@1": "87.2%",
                "MBPP_reg pass@1": "58.5%", "syntax_error": "0.9%", "runtime_error": "23.9%", "timeout": "9.4%", "wrong_answer": "64.1%",
                "avg_gen_tokens": "264.0", "avg_judge_time": "7.69 s", "throughput": "0.13 prob/s"}  # fmt: skip
    assert {k: rows[k][0] for k in contract} == contract
    assert "unpaired" in rows["exec_success_rate (valid)"][-1] and "improved" in rows["exec_success_rate (valid)"][-1]
    assert "per-problem records are missing" in rows["pass_ratio_mean (valid)"][-1]
    assert rows["cost_per_solved_judge_time"][0] == "-"
    assert "cannot be checked" in done.stdout


def test_values_that_are_missing_null_or_nan_show_as_a_dash_and_unknown_ones_are_ignored(sides):
    base, better = sides
    shutil.rmtree(base / "results")
    metrics = json.loads((base / "metrics.json").read_text())
    metrics["codecontests_valid"] |= {"pass_ratio_p90": None, "avg_judge_time": float("nan"), "brand_new": [1]}
    metrics["extra_set"] = {"total_problems": 3, "accepted_at_1": 1.0}
    metrics |= {"empty_set": None, "generated_at": "2026-01-01", "config": {"temperature": 0.0}}
    (base / "metrics.json").write_text(json.dumps(metrics))
    (base / "summary.json").unlink()
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 0, done.stderr
    text = (base.parent / "out" / "comparison_table.md").read_text()
    rows = table_rows(text)
    for label in ("pass_ratio_p90 (valid)", "avg_judge_time", "exec_success_rate (valid)", "syntax_error"):
        assert rows[label][0] == "-" and rows[label][2] == "-", label
    assert "extra_set" in text and "empty_set is empty" in text and "config in" in text and "generated_at in" in text and "no summary.json" in text


def test_of_several_files_the_newest_a_data_set_wins_and_the_report_says_so(sides):
    base, better = sides
    old, new = base.parent / "phase0_old", base.parent / "phase0_new"
    for directory, share, day in ((old, 0.25, "01"), (new, 0.75, "02")):
        directory.mkdir()
        (directory / "metrics.json").write_text(json.dumps({"humaneval": {"total_problems": 30, "accepted_at_1": share}}))
        (directory / "summary.json").write_text("{}")
        (directory / "run.json").write_text(json.dumps({"status": "complete", "finished": f"2027-01-{day}T00:00:00+00:00"}))
    os.utime(old / "metrics.json", (2e9, 2e9))  # copied later: run.json knows better
    done = compare(base.parent, base.parent / "phase0_*" / "metrics.json", better / "metrics.json", "--allow_mismatch")
    assert done.returncode == 0, done.stderr
    text = (base.parent / "out" / "comparison_table.md").read_text()
    assert table_rows(text)["HumanEval pass@1"][0] == "75.0%"
    assert re.search(r"humaneval stands in several files; taken from \S*phase0_new/metrics.json, the newest", text)


# --------------------------------------------------------------------------------------------------- comparability
def damage_run(directory: Path, change: dict) -> None:
    run = json.loads((directory / "run.json").read_text())
    for path, value in change.items():
        *parents, last = path.split(".")
        target = run
        for p in parents:
            target = target[p]
        target[last] = value
    (directory / "run.json").write_text(json.dumps(run))


@pytest.mark.parametrize(
    "change, named",
    [
        ({"prompts_sha256": "d" * 64}, "prompts_sha256"),
        ({"sampling.repetition_penalty": 1.1}, "sampling.repetition_penalty differs: 1.0 in Phase 0, 1.1 in Phase 1"),
        ({"sampling.backend": "transformers"}, "sampling.backend"),
        ({"judge.compare": "verl"}, "judge.compare"),
        ({"judge.run_timeout": 10.0}, "judge.run_timeout"),
        ({"datasets.humaneval.problems_sha256": "d" * 64}, "humaneval: problems_sha256"),
        ({"stamp.versions": {"vllm": "0.24.0"}}, "vLLM version differs"),
        ({"status": "running"}, "is running, not complete"),
    ],
)
def test_a_difference_in_how_it_was_measured_is_a_red_box_and_exit_1_unless_allowed(sides, change, named):
    base, better = sides
    damage_run(better, change)
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 1
    assert done.stdout.startswith("VERDICT: NOT COMPARABLE - ") and named in done.stdout
    page = (base.parent / "out" / "report.html").read_text()
    assert "did not measure the same thing" in page and 'class="verdict bad"' in page
    allowed = compare(base.parent, base / "metrics.json", better / "metrics.json", "--allow_mismatch")
    assert allowed.returncode == 0 and "mismatches, allowed]" in allowed.stdout.splitlines()[0]


def test_other_problems_and_stale_metrics_are_mismatches(sides):
    base, better = sides
    path = better / "results" / "humaneval.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[0])
    row |= {"problem_id": "humaneval/other", "prompt_sha256": "e" * 64}
    again = json.loads(lines[1]) | {"prompt_sha256": "f" * 64}
    path.write_text("".join([json.dumps(row) + "\n", json.dumps(again) + "\n", *lines[2:-1]]))
    found = [f.text for f in report_inputs.comparability(*(read_side(n, [d / "metrics.json"]) for n, d in (("Phase 0", base), ("Phase 1", better))))
             if f.kind == "mismatch"]  # fmt: skip
    text = " ".join(found)
    assert "2 only in Phase 0, 1 only in Phase 1" in text and "asked in other words" in text and "the records beside it 29" in text


def test_equal_runs_have_nothing_to_say(evaluations):
    sides = [read_side(n, [evaluations["base"]]) for n in ("Phase 0", "Phase 1")]
    assert [f.text for f in report_inputs.comparability(*sides) if f.kind != "note"] == []


# ------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    "name, content, named",
    [
        ("metrics.json", '{"humaneval": {"accepted_at_1": 0.5', "metrics.json:1"),
        ("metrics.json", "[1, 2]", "expected an object"),
        ("metrics.json", '{"humaneval": 3}', "humaneval"),
        ("metrics.json", '{"humaneval": {"accepted_at_1": 87.2}}', "0.872, not 87.2"),
        ("metrics.json", '{"humaneval": {"accepted_at_1": "87%"}}', "expected a number"),
        ("metrics.json", "{}", "no data set"),
        ("metrics.json", None, "metrics.json"),
        ("summary.json", '{"datasets": ', "summary.json:1"),
        ("summary.json", '{"datasets": [1]}', "summary.json"),
        ("run.json", "{", "run.json:1"),
        ("results/humaneval.jsonl", '{"problem_id": "x"}\n', "humaneval.jsonl:1"),
        ("results/humaneval.jsonl", "not json\n", "humaneval.jsonl:1"),
        ("results/humaneval.jsonl", "\xff\xfe\n", "humaneval.jsonl:1"),
    ],
)
def test_torn_or_missing_input_is_one_line_that_names_the_file_and_exit_2(sides, name, content, named):
    base, better = sides
    if name == "metrics.json" and content == "{}":
        (better / "summary.json").unlink()
    if content is None:
        (better / name).unlink()
    else:
        (better / name).write_bytes(content.encode("latin-1"))
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1 and named in done.stderr
    assert not (base.parent / "out").exists()


def test_a_torn_last_record_is_left_out_and_shows_as_a_mismatch(sides):
    base, better = sides
    path = better / "results" / "humaneval.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 1 and "1 only in Phase 0" in (base.parent / "out" / "summary.txt").read_text()


# ------------------------------------------------------------------------------------------------------------ gate
RULE = '[[rule]]\ndataset = "codecontests_valid"\nmetric = "exec_success_rate"\n'


@pytest.mark.parametrize(
    "rule, passes",
    [
        (RULE + "min = 0.5", True),
        (RULE + "min = 0.999", False),
        (RULE + "max = 0.5", False),
        (RULE + "min_change = 0.1", True),
        (RULE + "min_change = 0.9", False),
        (RULE + "max_change = 0.0", False),
        (RULE + 'answer = ["improved"]', True),
        (RULE + 'answer = ["equivalent"]', False),
        ('[[rule]]\nverdict = ["improved", "mixed"]', True),
        ('[[rule]]\nverdict = ["worse"]', False),
        ('[[rule]]\ndataset = "unheard_of"\nmetric = "accepted_at_1"\nmin = 0.0', False),
    ],
)
def test_the_gate(evaluations, tmp_path, rule, passes):
    (tmp_path / "rules.toml").write_text(rule)
    done = compare(tmp_path, evaluations["base"], evaluations["better"], "--gate", tmp_path / "rules.toml")
    assert done.returncode == (0 if passes else 1), done.stderr
    assert ("GATE CLOSED" in done.stdout) != passes


@pytest.mark.parametrize(
    "content, named",
    [("[[rule", "not valid TOML"), ("x = 1", "no [[rule]]"), (RULE + "minimum = 1", "'minimum'"), (RULE, "no limit"),
     ("[[rule]]\nmin = 1.0", "dataset and metric"), (RULE + 'min = "high"', "min = 'high'"), (None, "no such file")],
)  # fmt: skip
def test_a_bad_gate_file_is_one_line_and_exit_2(evaluations, tmp_path, content, named):
    if content is not None:
        (tmp_path / "rules.toml").write_text(content)
    done = compare(tmp_path, evaluations["base"], evaluations["better"], "--gate", tmp_path / "rules.toml")
    assert done.returncode == 2 and named in done.stderr and len(done.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------------- rules, flips, training
def test_expected_ranges_and_anomalies_of_a_worse_model(evaluations):
    phase0, phase1 = read_side("Phase 0", [evaluations["base"]]), read_side("Phase 1", [evaluations["worse"]])
    evidence = Evidence(phase0, phase1, fill_rows(phase0, phase1, resamples=200), [flips(phase0.datasets[d], phase1.datasets[d]) for d in SMALL])
    places = {(r["dataset"], r["metric"]): r["verdict"] for r in check_expected(evidence)}
    assert places["codecontests_valid", "exec_success_rate"] == "wrong direction"
    assert places["humaneval", "accepted_at_1"] == "fell out of the range"
    seen = {a["name"]: " ".join(a["evidence"]) for a in check_anomalies(evidence) if a["state"] == "seen"}
    assert "SyntaxError" in seen["exec_success_rate rose by less than 10 pp"]
    assert "solved before are not now" in seen["HumanEval fell by more than 5 pp"]
    assert "syntax_error_rate rose" in seen


def test_the_anomaly_of_no_change_shows_the_loss_curve(evaluations):
    side = read_side("Phase 0", [evaluations["base"]])
    log = {"train/loss": [(i, 1.0) for i in range(40)]}
    found = {a["name"]: a for a in check_anomalies(Evidence(side, side, fill_rows(side, side, resamples=200), train_log=log))}
    assert "(flat)" in " ".join(found["no metric changed by 1 pp"]["evidence"])


def test_flips_and_transitions_count_every_common_problem_once(evaluations):
    a, b = (read_side("x", [evaluations[n]]).datasets["codecontests_valid"] for n in ("base", "worse"))
    f = flips(a, b)
    solved = [sum(r.accepted for r in x.records.values()) for x in (a, b)]
    assert len(f.fixed) - len(f.broken) == solved[1] - solved[0]
    assert sum(f.transitions.values()) == f.pairs == 40
    for t in f.types:
        assert sum(n for (x, _), n in f.transitions.items() if x == t) == sum(r.error_type == t for r in a.records.values())


def test_messages_that_differ_in_numbers_and_names_count_as_one():
    def failed(detail: str, error_type: str = "runtime_error") -> Record:
        return Record("d", detail, "", "", "", "stop", 0, 0, 0.0, 0.0, 0, error_type=error_type, detail=detail)

    records = [failed(f"Traceback\nKeyError: '{k}' in row {k}") for k in range(3)] + [failed(""), failed("invalid syntax (line 3)", "syntax_error")]
    assert top_exceptions(records) == [("KeyError: '…' in row N", 3), ("(runtime_error without a message)", 1), ("SyntaxError: invalid syntax (line N)", 1)]


def test_training_logs_of_verl_and_json_lines_are_read_and_a_resumed_step_counts_once(tmp_path):
    (tmp_path / "a.log").write_text("noise\r\x1b[32mstep:1 - train/loss:2.5 - train/lr(1e-3):0.02 - train/grad_norm:1.5e+00\nEpoch 1:  3%|##\n"
                                    "(rank0) step:2 - train/loss:np.float64(2.25) - train/grad_norm:nan\nstep:2 - val/loss:3.0\n")  # fmt: skip
    (tmp_path / "b.jsonl").write_text('{"step": 2, "train/loss": 2.0}\n{"step": 3, "train/loss": 1.5, "torn\n')
    series = read_train_log([tmp_path / "a.log", tmp_path / "b.jsonl"])
    assert series["train/loss"] == [(1, 2.5), (2, 2.0)] and series["val/loss"] == [(2, 3.0)]
    assert series["train/grad_norm"][0] == (1, 1.5) and series["train/lr(1e-3)"] == [(1, 0.02)]
    (tmp_path / "empty.log").write_text("nothing\n")
    with pytest.raises(BadInput, match="empty.log"):
        read_train_log([tmp_path / "empty.log"])


def test_training_rows_are_compiled_and_compared_with_the_evaluations_form(tmp_path):
    import pandas as pd

    from phase1.prompts import answer, chat

    rows = [chat("u", answer("print(1)")), chat("u", answer("print 1")), chat("u", "print(2)"), [{"role": "system", "content": "other"}, *chat("u", answer("x = 1"))[1:]]]
    pd.DataFrame({"messages": rows}).to_parquet(tmp_path / "t.parquet")
    found = check_train_data(tmp_path / "t.parquet")
    assert (found["rows"], found["not_compiling"], found["without_code_tag"], found["other_system_prompt"]) == (4, 1, 1, 1)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match="bad.parquet"):
        check_train_data(tmp_path / "bad.parquet")


def test_a_training_row_that_kills_the_compiler_is_a_warning_of_the_report_which_lives_on(evaluations, tmp_path, monkeypatch):
    """A real interpreter with a small stack, so that the nesting that overflows it is the same on every version."""
    import pandas as pd

    from phase1.prompts import answer, chat

    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -s 256\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(report_inputs.sys, "executable", str(python))
    programs = ["print 1", "not " * 5900 + "x", "x = 1"]
    pd.DataFrame({"messages": [chat("u", answer(p)) for p in programs]}).to_parquet(tmp_path / "t.parquet")
    found = check_train_data(tmp_path / "t.parquet")
    assert (found["sampled"], found["compiled"], found["not_compiling"]) == (3, 1, 1)
    done = compare(tmp_path, evaluations["base"], evaluations["worse"], "--train_data", tmp_path / "t.parquet")
    assert done.returncode == 0, done.stderr
    assert "training row 2 ended Python's compiler (SIGSEGV): look at it and drop it; the 1 sampled rows after it were not compiled" in done.stdout
    assert "1 of 1 sampled training answers (of 3) do not compile; first: SyntaxError" in done.stdout


# ---------------------------------------------------------------------------------------------------- hostile text
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}\x1b[31m\x00\u202e\ud800 | `x` $\\frac$ " + "A" * 1_000_000


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag in ("script", "img", "a", "link", "iframe"):
            assert attrs == [("rel", "icon"), ("href", "data:,")], attrs
        assert not any(name.startswith("on") for name, _ in attrs), attrs


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A report over programs, prompts, details, ids and a data set name that try to break out."""
    root = tmp_path_factory.mktemp("hostile")
    sizes = {"codecontests_valid": 12, "<script>evil</script>|$x$": 8}
    rates = dict.fromkeys(sizes, (0.5, 0.2, 0.0, 0.3, 0.0))
    for name, seed in (("base", 0), ("sft", 1)):
        write_evaluation(root / name, Fake(rates, sizes={"codecontests_valid": 12}, seed=seed, text=HOSTILE, noise=0.5))
        metrics = json.loads((root / name / "metrics.json").read_text())
        metrics["<script>evil</script>|$x$"] = metrics["codecontests_valid"]
        (root / name / "metrics.json").write_text(json.dumps(metrics))
    done = compare(root, root / "base" / "metrics.json", root / "sft" / "metrics.json", "--qa_html", plots=True)
    assert done.returncode == 0, done.stderr
    return root / "out"


@pytest.mark.parametrize("name", ["report.html", "qa.html"])
def test_hostile_programs_prompts_and_names_appear_escaped(hostile, name):
    page = (hostile / name).read_text(encoding="utf-8")  # strict: no lone surrogate in it
    tags = Tags()
    tags.feed(page)
    assert not {"script", "img", "iframe", "object"} & set(tags.seen)
    assert "&lt;script&gt;alert(1)" in page and "\\x1b[31m" in page and "\\x00" in page and "\\u202e" in page and "\\ud800" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)
    assert "{{ 7*7 }}" in page and "more characters]" in page
    assert len(page) < 5_000_000


def test_hostile_text_cannot_break_the_markdown_or_the_terminal(hostile):
    for name in ("comparison_table.md", "summary.txt"):
        text = (hostile / name).read_text(encoding="utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", text)
    table = (hostile / "comparison_table.md").read_text().split("## All data sets")[1].split("## ")[0]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")} == {6}
    assert "<script>" not in table


@pytest.mark.parametrize("text, expected", [("a\tb\nc", "a\tb\nc"), ("\x1b[0m", "\\x1b[0m"), ("\ud800", "\\ud800"), ("\u200b\u202e", "\\u200b\\u202e"),
                                            ("é→題\u00a0", "é→題\u00a0"), ("\U000e0001", "\\U000e0001"), ("\r", "\\x0d")])  # fmt: skip
def test_shown_makes_the_invisible_visible(text, expected):
    assert shown(text) == expected


# ------------------------------------------------------------------------------------------------------- the pages
def test_the_same_inputs_give_the_same_page_but_for_the_time(evaluations, tmp_path):
    pages = []
    for _ in range(2):
        compare(tmp_path, evaluations["base"], evaluations["better"], plots=True)
        pages.append(re.sub(r"Made \S+ by", "", (tmp_path / "out" / "report.html").read_text()))
    assert pages[0] == pages[1]


def test_the_script_runs_by_itself_also_where_the_terminal_is_ascii(evaluations, tmp_path):
    command = [sys.executable, ROOT / "generate_report.py", "--phase0_metrics", evaluations["base"], "--phase1_metrics", evaluations["better"],
               "--output_dir", tmp_path, "--resamples", "200"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"}, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("VERDICT: "), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(chromium.BINARY is None, reason="needs a Chromium: apt-get install chromium")
@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844)])
def test_chromium_shows_the_verdict_in_the_first_screen_without_network_or_console_message(golden, hostile, width, height):
    for page in (golden / "report.html", hostile / "report.html", hostile / "qa.html"):
        script = """(() => { const v = document.querySelector("#verdict strong")?.getBoundingClientRect();
                     return [v ? v.bottom : 0, document.documentElement.scrollWidth]; })()"""
        seen = chromium.look(page, width, height, script=script)
        assert seen["console"] == []
        assert [u for u in seen["requests"] if not u.startswith(("file:", "data:"))] == []
        bottom, wide = seen["value"]
        assert bottom < height / 2 and wide <= width, page
