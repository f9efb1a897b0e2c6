"""phase1/report/stats.py against scipy, statsmodels, exhaustive enumeration and published examples."""

from __future__ import annotations

import itertools
import warnings
from math import sqrt

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as st
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.proportion import proportion_confint

from phase1.report import stats


def random_tables(n: int, seed: int = 0) -> list[tuple[int, int, int]]:
    """(gained, lost, problems), small and large, with empty and full corners."""
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(n):
        size = int(rng.choice([1, 2, 5, 20, 60, 117, 164, 200, 500]))
        shares = rng.dirichlet([0.3, 0.3, 1.0])
        gained, lost, _same = rng.multinomial(size, shares)
        tables.append((int(gained), int(lost), size))
    return tables


TABLES = random_tables(1000)


@pytest.mark.slow
def test_wilson_equals_scipys_on_1000_random_tables():
    for gained, _, n in TABLES:
        ci = st.binomtest(gained, n).proportion_ci(method="wilson")
        assert stats.wilson(gained, n) == pytest.approx((ci.low, ci.high), abs=1e-9)


@pytest.mark.slow
def test_mcnemar_equals_statsmodels_and_the_summed_binomial_on_1000_random_tables():
    for gained, lost, n in TABLES:
        exact, mid = stats.mcnemar(gained, lost)
        if gained + lost == 0:
            assert (exact, mid) == (1, 1)
            continue
        table = [[n, gained], [lost, 0]]
        assert exact == pytest.approx(sm_mcnemar(table, exact=True).pvalue, abs=1e-12)
        m, k = gained + lost, min(gained, lost)
        tail = sum(st.binom.pmf(i, m, 0.5) for i in range(k)) + st.binom.pmf(k, m, 0.5) / 2
        assert mid == pytest.approx(min(1, 2 * tail), abs=1e-12)


def test_tangos_statistic_at_no_change_is_mcnemars_on_1000_random_tables():
    for gained, lost, n in TABLES:
        if gained + lost:
            chi2 = sm_mcnemar([[n, gained], [lost, 0]], exact=False, correction=False).statistic
            assert stats.tango_z(gained, lost, n, 0.0) ** 2 == pytest.approx(chi2, abs=1e-9)


@pytest.mark.parametrize("delta", [-0.6, -0.1, -0.02, 0.02, 0.1, 0.6])
def test_tangos_statistic_equals_a_numerical_maximum_likelihood(delta):
    """z = (change - delta) / sqrt(variance at the constrained maximum of the multinomial likelihood)."""
    for gained, lost, n in TABLES[:60]:
        same = n - gained - lost

        def loss(q: float, gained=gained, lost=lost, same=same) -> float:
            cells = [(gained, q + delta), (lost, q), (same, 1 - 2 * q - delta)]
            return -sum(k * np.log(max(p, 1e-300)) for k, p in cells if k)

        low, high = max(0.0, -delta), (1 - delta) / 2
        q = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        q = min((low, q, high), key=loss)
        variance = (2 * q + delta - delta**2) / n
        expected = (gained / n - lost / n - delta) / sqrt(variance)
        assert stats.tango_z(gained, lost, n, delta) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_tangos_interval_holds_exactly_what_its_test_does_not_reject():
    z = st.norm.ppf(0.975)
    for gained, lost, n in TABLES:
        low, high = stats.tango_interval(gained, lost, n)
        assert -1 <= low <= (gained - lost) / n <= high <= 1
        for bound, sign in ((low, 1), (high, -1)):
            if abs(bound) < 1:
                assert stats.tango_z(gained, lost, n, bound) == pytest.approx(sign * z, abs=1e-3)


def test_published_example_of_paired_rates():
    """Airway hyper-responsiveness, 21 pairs, 1 against 7 (Fagerland et al. 2013 and 2014): p exact .0703, mid-p .0391;
    Tango's interval -0.517 to -0.026."""
    exact, mid = stats.mcnemar(1, 7)
    assert (round(exact, 4), round(mid, 4)) == (0.0703, 0.0391)
    assert [round(x, 3) for x in stats.tango_interval(1, 7, 21)] == [-0.517, -0.026]


@pytest.mark.slow
def test_the_unpaired_test_is_the_pooled_chi_square_and_newcombes_interval_comes_from_two_wilsons():
    rng = np.random.default_rng(1)
    for _ in range(1000):
        n0, n1 = (int(x) for x in rng.integers(5, 300, 2))
        k0, k1 = int(rng.integers(0, n0 + 1)), int(rng.integers(0, n1 + 1))
        c = stats.unpaired_rate(k0, n0, k1, n1)
        total = n0 + n1
        if 0 < k0 + k1 < total:
            chi2 = st.chi2_contingency([[k0, n0 - k0], [k1, n1 - k1]], correction=False).statistic
            assert c.p == pytest.approx(st.chi2.sf(chi2 * (total - 1) / total, 1), abs=1e-6)  # Miettinen and Nurminen
        else:
            assert c.p == 1
        (l0, u0), (l1, u1) = proportion_confint(k0, n0, method="wilson"), proportion_confint(k1, n1, method="wilson")
        p0, p1 = k0 / n0, k1 / n1
        assert c.low == pytest.approx(p1 - p0 - sqrt((p1 - l1) ** 2 + (u0 - p0) ** 2), abs=1e-6)
        assert c.high == pytest.approx(p1 - p0 + sqrt((u1 - p1) ** 2 + (p0 - l0) ** 2), abs=1e-6)


@pytest.mark.parametrize("delta", [-0.3, -0.02, 0.02, 0.3])
def test_the_score_of_an_unpaired_difference_is_taken_at_the_likelihoods_maximum(delta):
    rng = np.random.default_rng(8)
    grid = np.linspace(max(0.0, -delta), min(1.0, 1 - delta), 20_001)
    for i in range(60):
        n0, n1 = (int(x) for x in rng.integers(5, 300, 2))
        k0, k1 = ((0, 0), (n0, n1), (0, n1), (n0, 0))[i] if i < 4 else (int(rng.integers(0, n + 1)) for n in (n0, n1))
        with np.errstate(divide="ignore"):
            terms = [
                k * np.log(np.clip(share, 0, 1))
                for k, share in ((k0, grid), (n0 - k0, 1 - grid), (k1, grid + delta), (n1 - k1, 1 - grid - delta))
                if k
            ]
        p0 = grid[np.argmax(sum(terms))]
        p1 = p0 + delta
        variance = (p0 * (1 - p0) / n0 + p1 * (1 - p1) / n1) * (n0 + n1) / (n0 + n1 - 1)
        assert stats.score_z(k0, n0, k1, n1, delta) == pytest.approx(
            (k1 / n1 - k0 / n0 - delta) / sqrt(variance), rel=2e-3, abs=2e-3
        ), (k0, n0, k1, n1)


def test_holm_equals_its_definition_on_1000_random_families(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects garbage at every call: 50 ms each
    rng = np.random.default_rng(2)
    for _ in range(1000):
        ps = rng.random(int(rng.integers(1, 15))) ** 3
        family = [stats.Comparison("", True, 1, 0.0, p=float(p)) for p in ps]
        stats.holm([None, *family, stats.Comparison("", True, 1, 0.0)])
        order, running = np.argsort(ps), 0.0
        for rank, i in enumerate(order):
            running = max(running, min(1.0, (len(ps) - rank) * ps[i]))
            assert family[i].p_holm == pytest.approx(running)


def test_permutation_p_equals_all_sign_flips_counted():
    rng = np.random.default_rng(3)
    for _ in range(100):
        n = int(rng.integers(2, 10))
        before, after = rng.integers(0, 5, n) / 4, rng.integers(0, 5, n) / 4
        d = after - before
        sums = np.array([np.dot(signs, d) for signs in itertools.product([-1, 1], repeat=n)])
        at_least = (sums >= d.sum() - 1e-9).mean(), (sums <= d.sum() + 1e-9).mean()
        assert stats.paired_mean(before, after).p == pytest.approx(min(1, 2 * min(at_least)), abs=1e-9)


@pytest.mark.parametrize("q", [50, 90])
def test_the_interval_of_a_percentile_holds_the_middle_95_percent_of_all_resamples_counted(q):
    """5 pairs have 5^5 resamples with replacement; the drawn ones must show the same quantiles. Nothing is decided."""
    x, y = np.array([0.0, 0.2, 0.3, 0.7, 1.0]), np.array([0.1, 0.9, 0.35, 1.0, 0.8])
    picks = np.array(list(itertools.product(range(5), repeat=5)))
    changes = np.percentile(y[picks], q, axis=1) - np.percentile(x[picks], q, axis=1)
    c = stats.paired_percentile(x, y, q)
    assert c.change == pytest.approx(np.percentile(y, q) - np.percentile(x, q))
    assert (c.low, c.high) == pytest.approx(np.quantile(changes, [0.025, 0.975]), abs=0.021)
    assert c.p is None


def test_a_percentile_takes_no_place_in_holms_family():
    tested, interval = compared(9, 1, 117), stats.paired_percentile([0.0] * 40, [1.0] * 40, 50)
    assert (interval.low, interval.high) == (1.0, 1.0)
    stats.holm([tested, interval])
    assert tested.p_holm == tested.p and interval.p_holm is None


def test_cost_per_solved_moves_cost_and_verdict_of_a_problem_together():
    rng = np.random.default_rng(5)
    cost0, cost1 = rng.random(11), rng.random(11) * 2
    solved0, solved1 = np.ones(11, bool), np.array([True] * 10 + [False])
    c = stats.paired_cost(cost0, solved0, cost1, solved1)
    assert c.change == pytest.approx(cost1.sum() / 10 - cost0.sum() / 11)
    values = []
    for s in itertools.product([False, True], repeat=11):
        a, b = np.where(s, cost1, cost0), np.where(s, cost0, cost1)
        sa, sb = np.where(s, solved1, solved0), np.where(s, solved0, solved1)
        values.append(b.sum() / sb.sum() - a.sum() / sa.sum())
    at_least = np.mean(np.array(values) >= c.change - 1e-12), np.mean(np.array(values) <= c.change + 1e-12)
    assert c.p == pytest.approx(min(1, 2 * min(at_least)), abs=1e-9)
    assert stats.paired_cost(cost0, [True] * 9 + [False] * 2, cost1, solved1) is None


def test_costs_of_which_only_two_pairs_differ_never_give_a_small_p():
    """Two pairs have four swaps, so p is .5 at least; sums in another order differ in the last digit and are ties all
    the same."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cost = rng.lognormal(5, 0.8, 117)
        after, solved = np.concatenate([rng.lognormal(5, 0.8, 2), cost[2:]]), rng.random(117) < 0.4
        assert stats.paired_cost(cost, solved, after, solved, resamples=500).p > 0.4


def test_bootstrap_interval_agrees_with_the_t_interval_where_both_hold():
    d = np.random.default_rng(6).normal(0.3, 1, 400)
    c = stats.paired_mean(np.zeros(400), d)
    low, high = st.t.interval(0.95, 399, d.mean(), st.sem(d))
    assert (c.low, c.high) == pytest.approx((low, high), abs=0.01)


def test_the_same_seed_gives_the_same_figures_and_another_one_others():
    x, y = np.random.default_rng(7).random((2, 50))
    a, b, c = (stats.paired_mean(x, y, seed=s) for s in (1, 1, 2))
    assert a == b and (a.low, a.p) != (c.low, c.p)


@pytest.mark.parametrize(
    "before, after",
    [
        ([1.0], [0.0]),
        ([0.5, 0.5], [0.5, 0.5]),
        ([0.0] * 20, [1.0] * 20),
        ([0.0] * 20, [0.0] * 19 + [1.0]),
        ([0.0, 1.0], [1.0, 0.0]),
    ],
)
def test_degenerate_numbers_give_finite_answers_without_a_warning(before, after):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = stats.paired_mean(before, after)
        assert 0 < mean.p <= 1
        for c in (mean, stats.paired_percentile(before, after, 50), stats.paired_percentile(before, after, 90)):
            assert c.low is None or c.low <= c.high
        assert 0 < stats.paired_rate([b > 0.5 for b in before], [a > 0.5 for a in after], 0.02).p <= 1


@pytest.mark.slow
def test_size_of_the_mcnemar_decisions_is_at_most_5_percent_for_117_problems_at_every_discordance():
    """Exact, by summing over all outcomes: the chance to call two equal models different."""
    n = 117
    outcomes = [[(b, *stats.mcnemar(b, m - b)) for b in range(m + 1)] for m in range(n + 1)]
    reject = np.array(
        [[sum(st.binom.pmf(b, m, 0.5) for b, *ps in outcomes[m] if ps[k] < 0.05) for m in range(n + 1)] for k in (0, 1)]
    )
    for discordance in np.linspace(0.005, 0.6, 60):
        exact, mid = reject @ st.binom.pmf(np.arange(n + 1), n, discordance)
        assert exact <= 0.05 and mid <= 0.0515


# -------------------------------------------------------------------------------------------------------- decisions
def compared(gained: int, lost: int, n: int, margin: float | None = None) -> stats.Comparison:
    before = [False] * gained + [True] * lost + [True] * (n - gained - lost)
    after = [True] * gained + [False] * lost + [True] * (n - gained - lost)
    return stats.paired_rate(before, after, margin)


@pytest.mark.parametrize(
    "gained, lost, n, margin, better, expected",
    [
        (30, 2, 117, None, +1, "improved"),
        (2, 30, 117, None, +1, "worse"),
        (2, 30, 117, None, -1, "improved"),
        (30, 2, 117, None, 0, "rose"),
        (2, 30, 117, None, 0, "fell"),
        (3, 1, 117, None, +1, "no clear difference"),
        (0, 0, 164, 0.02, +1, "equivalent"),
        (0, 0, 60, 0.02, +1, "no clear difference"),  # 60 problems cannot show that two models are within 2 pp
        (3, 3, 164, 0.02, +1, "no clear difference"),
        (5, 40, 164, 0.02, +1, "worse"),
    ],
)
def test_answers(gained, lost, n, margin, better, expected):
    assert stats.answer(compared(gained, lost, n, margin), better) == expected


def test_an_answer_under_holm_rests_on_the_corrected_p():
    c = compared(9, 1, 117)
    assert stats.answer(c, +1) == "improved"
    stats.holm([c] + [compared(1, 1, 117) for _ in range(11)])
    assert stats.answer(c, +1) == "no clear difference"


def test_no_comparison_shows_nothing():
    assert (
        stats.answer(None, +1) == "no clear difference"
        and stats.unpaired_rate(0, 0, 1, 2) is None
        and stats.wilson(0, 0) is None
    )
