"""Both validation sets as one, and several answers a problem: every number equals one derived here from the records."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from statistics import mean

import numpy as np
import pytest
from scipy import stats as st

from phase1.report import stats
from phase1.report.inputs import read_side
from phase1.report.more_rows import more_rows
from phase1.report.per_problem import equivalence_p, paired_values
from phase1.report.stats import paired_rate
from phase1.report.tables import SEED_ROWS, Row
from phase1.report.verdict import verdict
from tests.bench.bench_samples import Setting, simulate
from tests.report.by_hand import exact_permutation_p, mcnemar, permutation_p, tango_interval
from tests.report.fake_evaluations import IMPROVED, PHASE0, WORSE, Fake, write_sampled
from tests.report.running import compare

K = 4
SIZES = {"codecontests_valid": 30, "codecontests_valid_big": 50, "humaneval": 40}
POOL = ("codecontests_valid", "codecontests_valid_big")
SETS = {
    "valid": POOL[:1],
    "valid_big": POOL[1:],
    "valid + valid_big": POOL,
    "HumanEval": ("humaneval",),
}
SEED, RESAMPLES = 42, 10_000
Z, Z80 = st.norm.ppf(0.975), st.norm.ppf(0.8)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """metrics.json of a base, a better and a worse model with four answers a problem."""
    root = tmp_path_factory.mktemp("sampled")
    for name, rates, seed in (("base", PHASE0, 1), ("better", IMPROVED, 2), ("worse", WORSE, 2)):
        write_sampled(root / name, Fake(rates, sizes=SIZES, seed=seed, noise=0.2), K)
    return {p.name: p / "metrics.json" for p in root.iterdir()}


@pytest.fixture(scope="module")
def rows(sampled):
    sides = [read_side(n, [sampled[s]]) for n, s in (("Phase 0", "base"), ("Phase 1", "better"))]
    return {r.spec.label: r for r in more_rows(*sides)}


@pytest.fixture(scope="module")
def lines(sampled):
    """Per phase and data set: the result lines by problem, in the order of the problems' names."""
    found = {}
    for phase, name in enumerate(("base", "better")):
        for dataset in SIZES:
            by_problem: dict[str, list[dict]] = {}
            for text in (sampled[name].parent / "results" / f"{dataset}.jsonl").read_text().splitlines():
                row = json.loads(text)
                by_problem.setdefault(row["problem_id"], []).append(row)
            assert all(len(answers) == K for answers in by_problem.values())
            found[phase, dataset] = [by_problem[i] for i in sorted(by_problem)]
    return found


def of_problem(kind: str, answers: list[dict]) -> float:
    right = [
        a["error_type"] in ("success", "wrong_answer") if kind == "exec_success" else a["accepted"] for a in answers
    ]
    if kind == "pass":  # the chance that K answers drawn hold a right one, counted draw by draw
        return mean(any(drawn) for drawn in combinations(right, K))
    return mean(right)


def changes(lines, kind: str, sets: tuple[str, ...]) -> list[np.ndarray]:
    """Of each data set, the change of each problem."""
    return [
        np.array([of_problem(kind, b) - of_problem(kind, a) for a, b in zip(lines[0, d], lines[1, d], strict=True)])
        for d in sets
    ]


def sign_flips_p(d: np.ndarray) -> float:
    """Every flip counted where there are fewer than are drawn; answers are quarters, so the sums are whole numbers."""
    moved = d[d != 0]
    return permutation_p(moved) if 2 ** len(moved) >= RESAMPLES else exact_permutation_p([round(K * x) for x in moved])


def interval(per_set: list[np.ndarray]) -> tuple[float, float]:
    """Problems drawn within their set, resample by resample; widened as the t distribution is wider than the normal."""
    rng, n = np.random.RandomState(SEED), sum(map(len, per_set))
    totals = np.zeros(RESAMPLES)
    for d in per_set:
        for at in range(0, RESAMPLES, 1000):
            for i in range(at, at + 1000):
                totals[i] += sum(d[rng.randint(0, len(d), len(d))])
    wide = st.norm.cdf(st.t.ppf(0.025, n - 1) * (n / (n - 1)) ** 0.5)
    return tuple(np.percentile(totals / n, [100 * wide, 100 - 100 * wide]))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", ["avg", "pass", "exec_success"])
def test_every_number_of_a_row_of_several_answers_equals_one_derived_from_the_records(rows, lines, kind, name):
    row, sets = rows[f"{kind}@{K} ({name})"], SETS[name]
    per_set = changes(lines, kind, sets)
    d, c = np.concatenate(per_set), row.comparison
    before = mean(of_problem(kind, a) for s in sets for a in lines[0, s])
    assert (row.phase0, row.change, c.n) == (pytest.approx(before), pytest.approx(d.mean()), len(d))
    assert c.p == pytest.approx(sign_flips_p(d))
    assert (c.low, c.high) == pytest.approx(interval(per_set))
    within = sum(len(part) * part.var() for part in per_set) / len(d)
    assert c.mde == pytest.approx(max((Z + Z80) * (within / len(d)) ** 0.5, (Z + Z80) ** 2 / K / len(d)))
    assert (c.detail["up"], c.detail["down"]) == (sum(d > 0), sum(d < 0))
    assert (c.margin is not None) == (name == "HumanEval" and kind == "avg")


def test_holms_correction_of_the_rows_of_several_answers_is_theirs_alone(rows):
    family = sorted((r for r in rows.values() if r.spec.table == "samples"), key=lambda r: r.comparison.p)
    running = 0.0
    for rank, r in enumerate(family):
        running = max(running, min(1.0, (len(family) - rank) * r.comparison.p))
        assert (r.comparison.p_holm, r.comparison.family) == (pytest.approx(running), len(family))


def test_the_pooled_rows_are_one_answer_to_each_problem_of_both_validation_sets(rows, lines):
    for metric, value in (
        ("exec_success_rate", lambda r: r["error_type"] in ("success", "wrong_answer")),
        ("accepted_at_1", lambda r: r["accepted"]),
    ):
        row = rows[f"{metric} (valid + valid_big)"]
        pairs = [(value(a[0]), value(b[0])) for d in POOL for a, b in zip(lines[0, d], lines[1, d], strict=True)]
        up, down = pairs.count((False, True)), pairs.count((True, False))
        c = row.comparison
        assert (c.n, c.detail["gained"], c.detail["lost"]) == (80, up, down)
        assert c.p == pytest.approx(mcnemar(up, down)[1])
        assert (c.low, c.high) == pytest.approx(tango_interval(up, down, 80), abs=1e-7)
    row = rows["pass_ratio_mean (valid + valid_big)"]
    per_set = [
        np.array([b[0]["pass_ratio"] - a[0]["pass_ratio"] for a, b in zip(lines[0, d], lines[1, d], strict=True)])
        for d in POOL
    ]
    d = np.concatenate(per_set)
    assert row.comparison.p == pytest.approx(permutation_p(d[d != 0]), abs=1e-9)
    assert (row.comparison.low, row.comparison.high) == pytest.approx(interval(per_set))


def test_equivalence_asks_both_sides_by_flips_counted_one_by_one():
    d, margin = np.array([0.25, -0.25, 0.0, 0.0, 0.25, 0.0, -0.25, 0.0, 0.25, -0.25]), 0.3
    worst = 0.0
    for shifted in (d + margin, margin - d):
        flips = [np.dot(np.where([(m >> i) & 1 for i in range(10)], 1, -1), shifted) for m in range(2**10)]
        worst = max(worst, sum(f >= shifted.sum() - 1e-9 for f in flips) / 2**10)
        score = shifted.mean() / np.sqrt(max(d.var(), margin - margin**2) / 10)
        worst = max(worst, 1 - st.norm.cdf(score))
    assert equivalence_p(d, margin, 10_000, SEED) == pytest.approx(worst)


@pytest.mark.parametrize("n, equivalent", [(60, False), (117, False), (164, True)])
def test_that_no_problem_moved_shows_equivalence_only_where_there_are_enough(n, equivalent):
    c = paired_values([0.5] * n, [0.5] * n, step=0.25, margin=0.02, resamples=200)
    assert (c.tost_p < 0.05) == equivalent


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("rho", [0.1, 0.8])
def test_null_pairs_are_seldom_called_different_and_the_interval_holds_the_truth(k, rho):
    """A seeded part of tests/bench/bench_samples.py: 100 pairs tell 5% from 13%, not from 6%."""
    found = simulate(Setting(k, rho, moved=1 / 3), pairs=100, resamples=200, seed=7)
    assert max(found.avg, found.any) <= 0.12 and max(found.avg_outside, found.any_outside) <= 0.13


@pytest.mark.parametrize("model, word", [("better", "improved"), ("worse", "worse")])
def test_the_rows_of_several_answers_stand_below_the_seeds_and_in_the_data(sampled, tmp_path, model, word):
    done = compare(tmp_path, sampled["base"], sampled[model], "--resamples", 3000)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "comparison_table.md").read_text()
    assert text.index("## Cost") < text.index("## More problems") < text.index("## More answers a problem")
    data = json.loads((tmp_path / "out" / "comparison_data.json").read_text())
    assert len(data["rows"]) == 19 and [r["table"] for r in data["more_rows"]] == ["pooled"] * 3 + ["samples"] * 12
    page = (tmp_path / "out" / "report.html").read_text()
    for r in data["more_rows"]:
        assert f"| {r['label']} |" in text and r["label"] in page
    exec_row = next(r for r in data["more_rows"] if r["label"] == f"exec_success@{K} (valid + valid_big)")
    assert exec_row["answer"] == word


def test_more_rows_decide_where_one_answer_a_problem_does_not(rows):
    """The seed's row says nothing; a row of more answers does."""
    seeds = Row(replace(SEED_ROWS[0]), 0.5, 0.52, comparison=paired_rate([True, False] * 20, [True, False] * 20))
    seeds.answer = "no clear difference"
    better = replace(rows[f"exec_success@{K} (valid + valid_big)"], answer="improved")
    worse = replace(rows[f"avg@{K} (valid)"], answer="worse")
    words = [verdict([seeds], more_rows=more).word for more in ([], [better], [worse], [better, worse])]
    assert words == ["not_shown", "improved", "worse", "mixed"]
    assert "one answer to each problem" in verdict([seeds], more_rows=[better]).line
    praised = replace(seeds, answer="improved")
    assert [verdict([praised], more_rows=[more]).word for more in (better, worse)] == ["improved", "mixed"]


@pytest.mark.parametrize("n", [2, 7, 9, 10, 40])
@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_sign_flips_give_the_p_of_scipys_paired_permutation_test(n, alternative):
    """On both sides of the number of problems from which signs are drawn."""
    changes = np.random.default_rng(n).integers(-4, 6, n) / 4
    theirs = st.permutation_test(
        (changes,),
        lambda v, axis=-1: np.sum(v, axis=axis),
        permutation_type="samples",
        vectorized=True,
        batch=1000,
        n_resamples=999,
        random_state=SEED,
        alternative=alternative,
    ).pvalue
    assert stats.permutation_p(changes, 1000, SEED, alternative) == pytest.approx(theirs)
