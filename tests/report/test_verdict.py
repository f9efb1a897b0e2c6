"""The report's one line: what it says, when, and that every output opens with it."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from phase1.report.inputs import read_side
from phase1.report.tables import fill_rows, row_answer, row_change, row_interval
from phase1.report.verdict import verdict
from tests.report.fake_evaluations import IMPROVED, PHASE0, Fake, write_evaluation
from tests.report.running import SMALL, compare, table_rows


@pytest.mark.parametrize("name, word", [("better", "IMPROVED"), ("worse", "WORSE"), ("equal", "NO CLEAR DIFFERENCE")])
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
    assert first.startswith("VERDICT: WORSE IN PART") and first.index("HumanEval") < first.index(
        "exec_success_rate (valid)"
    )


def rows_of(tmp_path: Path, before: dict, after: dict, sizes: dict[str, int], noise: float = 0.0) -> list:
    for name, rates in (("b", before), ("a", after)):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        write_evaluation(tmp_path / name, Fake(rates, sizes=sizes, noise=noise))
    return fill_rows(*(read_side(n, [tmp_path / n / "metrics.json"]) for n in "ba"), resamples=200)


@pytest.mark.slow
@pytest.mark.parametrize(
    "runs, word",
    [(0.50, "worse"), (0.61, "maybe_worse"), (0.64, "not_better"), (0.66, "not_shown"), (0.85, "improved")],
)
def test_the_verdict_grows_with_the_loss(tmp_path, runs, word):
    """exec_success_rate of 117 problems from 66% to `runs`, everything else equal."""
    before = {"codecontests_valid": (0.1, 0.56, 0.1, 0.24, 0.0)}
    after = {"codecontests_valid": (0.1, runs - 0.1, 0.1, 0.9 - runs, 0.0)}
    rows = [
        r
        for r in rows_of(tmp_path, before, after, {"codecontests_valid": 117})
        if r.spec.metric in ("exec_success_rate", "accepted_at_1")
    ]
    assert verdict(rows).word == word, verdict(rows).line


NEVER, ALWAYS = dict.fromkeys(PHASE0, (0.0, 0.0, 0.0, 0.6, 0.4)), dict.fromkeys(PHASE0, (0.98, 0.02, 0.0, 0.0, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, after, opening, more",
    [
        (
            NEVER,
            ALWAYS,
            "IMPROVED - exec_success_rate (valid) 0.0% → 100.0% (+100.0 pp, 95% interval +",
            ["and 6 more; no headline row got worse"],
        ),
        (
            ALWAYS,
            NEVER,
            (
                "WORSE - the SFT model is worse than its base: exec_success_rate (valid) 100.0% → 0.0% (-100.0 pp, "
                "95% interval -"
            ),
            ["and 6 more"],
        ),
        (
            NEVER | {"humaneval": (1.0, 0, 0, 0, 0), "mbpp_reg": (1.0, 0, 0, 0, 0)},
            ALWAYS | {"humaneval": NEVER["humaneval"], "mbpp_reg": NEVER["mbpp_reg"]},
            "WORSE IN PART - worse than its base: HumanEval pass@1 100.0% → 0.0% (-100.0 pp, 95% interval -",
            ["; improved: exec_success_rate (valid) 0.0%", "and 5 more"],
        ),
    ],
    ids=["improved", "worse", "in part"],
)
def test_where_all_rows_move_the_first_line_shows_three_at_most_the_primary_first_and_counts_the_rest(
    tmp_path, before, after, opening, more
):
    for name, rates in (("base", before), ("sft", after)):
        write_evaluation(tmp_path / name, Fake(rates, sizes=dict.fromkeys(PHASE0, 40), seed=3))
    done = compare(tmp_path, tmp_path / "base" / "metrics.json", tmp_path / "sft" / "metrics.json")
    line = done.stdout.splitlines()[0]
    assert line.startswith("VERDICT: " + opening) and all(m in line for m in more), line
    assert len(line) < 250 and 2 <= line.count("→") <= 3 and line.count("interval") == 1, line
    box = re.search(r'id="verdict">(.*?)</div>', (tmp_path / "out" / "report.html").read_text(), re.DOTALL)[1]
    assert " ".join(unescape(re.sub("<[^>]+>", " ", box)).split()) == line.removeprefix("VERDICT: ").replace(
        " - ", " ", 1
    )
    answers = [
        cells[-1]
        for label, cells in table_rows((tmp_path / "out" / "comparison_table.md").read_text()).items()
        if "exec_success" in label
    ]
    assert len(answers) == 3 and all(
        re.match("improved|worse", a) for a in answers
    )  # the tables hold what the line only counts


def test_a_percentile_shows_its_change_and_interval_and_is_not_decided(tmp_path):
    """From nothing passed to nearly all: as large as a change can be, and a swap of the phases' labels cannot see
    it."""
    for name, rates in (("base", (0.0, 0.0, 0.0, 0.0, 1.0)), ("sft", ALWAYS["codecontests_valid"])):
        write_evaluation(tmp_path / name, Fake({"codecontests_valid": rates}, sizes={"codecontests_valid": 60}))
    rows = fill_rows(*(read_side(n, [tmp_path / n / "metrics.json"]) for n in ("base", "sft")), resamples=200)
    percentiles = [r for r in rows if r.spec.metric in ("pass_ratio_p50", "pass_ratio_p90")]
    for r in percentiles:
        assert (row_change(r), row_interval(r), row_answer(r)) == (
            "+1.000",
            "+1.000 to +1.000",
            "- (a percentile: interval only)",
        )
    family = [r.comparison for r in rows if r.comparison and r.spec.table != "cost" and r not in percentiles]
    smallest = min(family, key=lambda c: c.p)
    assert smallest.p_holm == pytest.approx(len(family) * smallest.p) and all(
        r.comparison.p_holm is None for r in percentiles
    )


@pytest.mark.slow
def test_nothing_solved_before_and_a_tiny_set_as_in_the_demo(tmp_path):
    learnt = dict.fromkeys(PHASE0, (0.8, 0.18, 0.0, 0.02, 0.0))
    for name, rates in (("base", NEVER), ("sft", learnt)):
        write_evaluation(tmp_path / name, Fake(rates, sizes=dict.fromkeys(PHASE0, 20), seed=3))
    done = compare(tmp_path, tmp_path / "base" / "metrics.json", tmp_path / "sft" / "metrics.json", "--qa_html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VERDICT: IMPROVED")
    rows = table_rows((tmp_path / "out" / "comparison_table.md").read_text())
    assert rows["cost_per_solved_tokens"][0] == "-" and rows["cost_per_solved_tokens"][2] == "-"
