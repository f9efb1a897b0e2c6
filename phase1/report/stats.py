"""Does a difference between two evaluations of the same problems mean anything? Intervals, paired tests, one answer.

Values and tests come from scipy and statsmodels. Written out here is what neither has, the score interval for a paired
difference of rates (Tango 1998), what statsmodels has wrong, the score of an unpaired one (`score_z`), and three short
formulas, which are tested against theirs: Wilson's interval, McNemar's p, Holm's correction. To import the two takes
more than a second, which most commands that use this module so save. How often each decision is wrong when nothing
differs, and how often it finds a true difference, is measured by tests/bench/bench_stats.py.

Convention: `before` is Phase 0, `after` Phase 1, a change is after minus before, rates are 0-1, alpha is two-sided.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import acos, copysign, cos, isfinite, pi, sqrt
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri  # the normal distribution; scipy.stats and statsmodels are imported where used

ALPHA = 0.05
RESAMPLES = 10_000
SEED = 42
POWER = 0.8  # of the smallest change that a row finds
REACH = float(ndtri(1 - ALPHA / 2) + ndtri(POWER))  # that change, in standard errors: 2.80
MIN_SOLVED = 10  # fewer solved problems than this make a cost per solved problem jump at random

IMPROVED, WORSE, EQUIVALENT, NOT_SHOWN = "improved", "worse", "equivalent", "no clear difference"
TOO_SMALL = "too small to tell"  # not even the largest change that is expected would have been found
Samples = tuple["np.ndarray[Any, Any]", ...]  # one array, or two whose places are pairs

ROSE, FELL = "rose", "fell"  # for rows of which no direction is the better one


@dataclass
class Comparison:
    """One difference. `low`, `high`: interval of the change at 1 - alpha; `p` is what the decision rests on, None:
    there is none."""

    method: str
    paired: bool
    n: int  # pairs; of two unpaired samples the smaller
    change: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None  # filled in by `holm` over the family
    tost_p: float | None = None  # of "differs by margin or more"; below alpha: equivalent
    margin: float | None = None
    family: int | None = None  # rows that Holm's correction ran over; filled in by `holm`
    mde: float | None = None  # the smallest true change that is found in 80 of 100 such runs at alpha, before Holm
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def decisive_p(self) -> float | None:
        return self.p if self.p_holm is None else self.p_holm


# --------------------------------------------------------------------------------------------------- single figures
def wilson(count: int, n: int, alpha: float = ALPHA) -> tuple[float, float] | None:
    """Wilson's score interval of a rate (1927, J. Am. Stat. Assoc. 22:209); None for n = 0."""
    if n == 0:
        return None
    rate, z = count / n, -float(ndtri(alpha / 2))
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)


# ------------------------------------------------------------------------------------------------ paired yes-no data
def mcnemar(gained: int, lost: int) -> tuple[float, float]:
    """Two-sided p of McNemar's test on the discordant pairs: exact and mid-p (Fagerland, Lydersen, Laake 2013)."""
    k, m = min(gained, lost), gained + lost
    ways = 1  # in which k of m pairs are the gained ones; whole numbers, so that nothing is rounded before the end
    as_far = 1
    for i in range(k):
        ways = ways * (m - i) // (i + 1)
        as_far += ways
    return min(1.0, 2 * as_far / 2**m), min(1.0, (2 * as_far - ways) / 2**m)


def tango_z(gained: int, lost: int, n: int, delta: float) -> float:
    """Score statistic of H0: change = delta, for |delta| < 1 (Tango 1998, Stat. Med. 17:891, eq. 8-10)."""
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    q = (sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # the lost share at the constrained maximum of the likelihood
    variance = n * (2 * q + delta * (1 - delta))
    distance = gained - lost - n * delta
    if variance <= 1e-12 * n:
        return 0.0 if abs(distance) < 1e-9 * n else float(np.copysign(np.inf, distance))
    return distance / sqrt(variance)


def tango_interval(gained: int, lost: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Score interval of the paired change of a rate; honest also where no pair is discordant. n >= 1."""
    from scipy import optimize

    z = ndtri(1 - alpha / 2)
    estimate, edge = (gained - lost) / n, 1 - 1e-9

    def bound(sign: int) -> float:
        inner = min(max(estimate, -edge), edge)
        if tango_z(gained, lost, n, sign * edge) * sign > -z:  # not even the edge is excluded
            return float(sign)
        if sign * (sign * edge - inner) <= 0:
            return float(sign)
        return float(optimize.brentq(lambda d: tango_z(gained, lost, n, d) + sign * z, inner, sign * edge, xtol=1e-10))

    return bound(-1), bound(+1)


def smallest_found(variance: float, n: int, step: float = 0.0) -> float | None:
    """The minimum detectable effect: the true change that a two-sided test at ALPHA finds with power POWER.

    Args:
        variance: of a pair's change; of yes-or-no values the discordant share less the change squared.
        n: pairs.
        step: the least that a pair can change by. A true change moves that share of the pairs at least, so where
            hardly a pair moved the variance that was seen says too little.

    Returns:
        None where neither says anything.
    """
    found = max(REACH * sqrt(max(0.0, variance) / n), REACH**2 * step / n)
    return found or None


def paired_rate(
    before: Sequence[bool], after: Sequence[bool], margin: float | None = None, alpha: float = ALPHA
) -> Comparison:
    """McNemar's mid-p test and Tango's interval; with `margin` also the equivalence test (TOST by Tango's score)."""
    b, a = np.asarray(before, bool), np.asarray(after, bool)
    n, gained, lost = len(b), int((a & ~b).sum()), int((b & ~a).sum())
    exact, mid = mcnemar(gained, lost)
    low, high = tango_interval(gained, lost, n, alpha)
    tost = None
    if margin is not None:
        tost = max(ndtr(-tango_z(gained, lost, n, -margin)), ndtr(tango_z(gained, lost, n, margin)))
    return Comparison(
        method="McNemar mid-p, Tango interval",
        paired=True,
        n=n,
        change=(gained - lost) / n,
        low=low,
        high=high,
        p=mid,
        tost_p=_float(tost),
        margin=margin,
        mde=smallest_found((gained + lost) / n - ((gained - lost) / n) ** 2, n, step=1.0),
        detail={"gained": gained, "lost": lost, "mcnemar_exact_p": exact, "mcnemar_mid_p": mid},
    )


# -------------------------------------------------------------------------------------------------- paired numbers
def paired_mean(
    before: Sequence[float], after: Sequence[float], alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = SEED
) -> Comparison:
    """Change of the mean: interval by the paired bootstrap, p by the paired permutation test.

    A percentile bootstrap alone calls too many null pairs different when few pairs differ (bench_stats.py), so the
    decision rests on the permutation test, which is exact when the two phases are interchangeable.
    """
    d = np.asarray(after, float) - np.asarray(before, float)
    moved = d[d != 0]  # pairs that do not differ have no label to swap; leaving them out changes no p
    interval = _bootstrap(data=(d,), statistic=np.mean, alpha=alpha, resamples=resamples, seed=seed)
    p = permutation_p(moved, resamples, seed)
    return Comparison(
        "paired permutation, bootstrap interval",
        True,
        len(d),
        float(d.mean()),
        *interval,
        p,
        mde=smallest_found(float(d.var()), len(d)),
        detail={"resamples": resamples, "seed": seed},
    )


def paired_percentile(
    before: Sequence[float],
    after: Sequence[float],
    q: float,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Change of the q-th percentile (0-100) with its paired bootstrap interval, and no p: swapping the phases of pairs
    that went from all failed to all passed leaves two equal mixtures, whose percentiles jump between 0 and 1, so a
    permutation test is blind to the largest change there is."""
    x, y = np.asarray(before, float), np.asarray(after, float)

    def difference(u: np.ndarray, v: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.percentile(v, q, axis=axis) - np.percentile(u, q, axis=axis)

    interval = _bootstrap(data=(x, y), statistic=difference, alpha=alpha, resamples=resamples, seed=seed)
    return Comparison(
        "bootstrap interval",
        True,
        len(x),
        float(difference(x, y)),
        *interval,
        detail={"resamples": resamples, "seed": seed},
    )


def paired_cost(
    cost0: Sequence[float],
    solved0: Sequence[bool],
    cost1: Sequence[float],
    solved1: Sequence[bool],
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison | None:
    """Change of the cost per solved problem, sum(cost) / sum(solved); None below MIN_SOLVED solved on either side."""
    cost, solved = np.concatenate([cost0, cost1]).astype(float), np.concatenate([solved0, solved1]).astype(float)
    n = len(cost0)
    if min(solved[:n].sum(), solved[n:].sum()) < MIN_SOLVED:
        return None

    def difference(i: np.ndarray, j: np.ndarray, axis: int = -1) -> np.ndarray:
        i, j = i.astype(int), j.astype(int)  # a problem's cost and its verdict move together, so indices are resampled
        with np.errstate(divide="ignore", invalid="ignore"):
            change = cost[j].sum(axis) / solved[j].sum(axis) - cost[i].sum(axis) / solved[i].sum(axis)
        return np.round(
            change, 9
        )  # else a swap of equal pairs is a rounding error away from what was seen, not a tie with it

    pairs = (np.arange(n), np.arange(n) + n)
    interval = _bootstrap(data=pairs, statistic=difference, alpha=alpha, resamples=resamples, seed=seed)
    p = _permutation(pairs, difference, resamples, seed)
    return Comparison(
        "paired permutation, bootstrap interval",
        True,
        n,
        float(difference(*pairs)),
        *interval,
        p,
        mde=_reach_of(*interval),
        detail={"resamples": resamples, "seed": seed},
    )


def _reach_of(low: float | None, high: float | None) -> float | None:
    """The smallest change found, by the standard error that an interval implies."""
    return None if low is None or high is None else REACH * (high - low) / (2 * ndtri(1 - ALPHA / 2)) or None


def _bootstrap(
    data: Samples, statistic: Callable[..., Any], alpha: float, resamples: int, seed: int
) -> tuple[float | None, float | None]:
    """Interval of the statistic by the paired percentile bootstrap (Efron 1979); None for fewer than two pairs."""
    if len(data[0]) < 2:
        return None, None
    from scipy import stats as st

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of degenerate data; the interval is then the point itself
        ci = st.bootstrap(
            data,
            statistic,
            n_resamples=resamples,
            paired=True,
            vectorized=True,
            batch=1000,
            method="percentile",
            confidence_level=1 - alpha,
            random_state=seed,
        ).confidence_interval
    return _float(ci.low), _float(ci.high)


def permutation_p(changes: np.ndarray, resamples: int, seed: int, alternative: str = "two-sided") -> float:
    """p of the sum of the pairs' changes when each may as well have the other sign (Pitman 1937); 1 for fewer than two.

    The numbers are those of scipy's paired permutation test of the sum, which sorts each pair and so takes ten times as
    long: all signs where there are fewer than `resamples`, else as many drawn, the signs seen being one of them.

    Args:
        changes: of each pair.
        resamples: signs tried at most.
        seed: of the signs drawn.
        alternative: "two-sided", or "greater": the changes are above zero.
    """
    n = len(changes)
    if n < 2:
        return 1.0
    drawn = int(2**n > resamples - 1)
    if drawn:
        rng, todo = np.random.RandomState(seed), resamples - 1
        sums = []
        for at in range(0, todo, 1000):
            coins = rng.random((min(1000, todo - at), n, 2))
            sums.append(np.where(coins[:, :, 0] > coins[:, :, 1], -1.0, 1.0) @ changes)
        null = np.concatenate(sums)
    else:
        null = np.zeros(1)
        for change in changes:
            null = np.concatenate([null + change, null - change])
    seen = float(changes.sum())
    slack = 1e-9 * float(np.abs(changes).sum())  # sums that are equal but for rounding are ties
    above, below = (int(k) for k in ((null >= seen - slack).sum(), (null <= seen + slack).sum()))
    count = above if alternative == "greater" else 2 * min(above, below)
    factor = 1 if alternative == "greater" else 2
    return min(1.0, (count + factor * drawn) / (len(null) + drawn))


def _permutation(data: Samples, statistic: Callable[..., Any], resamples: int, seed: int) -> float:
    """Two-sided p of scipy's paired permutation test (Pitman 1937): each pair's two phases are swapped or not."""
    from scipy import stats as st

    result = st.permutation_test(
        data,
        statistic,
        permutation_type="samples",
        vectorized=True,
        batch=1000,
        n_resamples=resamples - 1,
        random_state=seed,
    )
    return float(result.pvalue)


# ---------------------------------------------------------------------------------------------------- only aggregates
def unpaired_rate(
    count0: int, n0: int, count1: int, n1: int, margin: float | None = None, alpha: float = ALPHA
) -> Comparison | None:
    """Score test and Newcombe's interval for two rates of which only the counts are known; None without problems."""
    if not n0 or not n1:
        return None
    from statsmodels.stats.proportion import confint_proportions_2indep, test_proportions_2indep

    low, high = confint_proportions_2indep(count1, n1, count0, n0, method="newcomb", compare="diff", alpha=alpha)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0 of n against 0 of m: no variance, p is nan
        p = _float(test_proportions_2indep(count1, n1, count0, n0, compare="diff", method="score").pvalue)
    tost = None
    if margin is not None:
        below, above = (score_z(count0, n0, count1, n1, delta) for delta in (-margin, margin))
        tost = float(max(ndtr(-below), ndtr(above)))
    return Comparison(
        method="unpaired score test, Newcombe interval",
        paired=False,
        n=min(n0, n1),
        change=count1 / n1 - count0 / n0,
        low=float(low),
        high=float(high),
        p=1.0 if p is None else p,
        tost_p=tost,
        margin=margin,
        mde=REACH * sqrt(sum(k / n * (1 - k / n) / n for k, n in ((count0, n0), (count1, n1)))) or None,
    )


def score_z(count0: int, n0: int, count1: int, n1: int, delta: float) -> float:
    """Score statistic of H0: rate 1 - rate 0 = delta, for 0 < |delta| < 1 (Miettinen and Nurminen 1985, Stat. Med.
    4:213, appendix I). statsmodels' score_test_proportions_2indep has a wrong coefficient for delta != 0
    (statsmodels#10269)."""
    n, count = n0 + n1, count0 + count1
    c2 = ((n1 + 2 * n0) * delta - n - count) / (3 * n)
    c1 = ((n0 * delta - n - 2 * count0) * delta + count) / n
    c0 = count0 * delta * (1 - delta) / n
    q = c2**3 - c1 * c2 / 2 + c0 / 2
    p = copysign(sqrt(max(0.0, c2**2 - c1 / 3)), q)
    angle = acos(min(1.0, max(-1.0, q / p**3))) if p else pi / 2
    rate0 = min(
        max(2 * p * cos((pi + angle) / 3) - c2, 0.0, -delta), 1.0, 1 - delta
    )  # at the constrained maximum of the likelihood
    rate1 = rate0 + delta
    variance = (rate1 * (1 - rate1) / n1 + rate0 * (1 - rate0) / n0) * n / (n - 1)
    return (count1 / n1 - count0 / n0 - delta) / sqrt(variance)


# -------------------------------------------------------------------------------------------------------- decisions
def holm(family: Sequence[Comparison | None]) -> None:
    """Fill in `p_holm` of every comparison of the family that has a p (Holm 1979)."""
    tested = sorted((c.p, i, c) for i, c in enumerate(family) if c is not None and c.p is not None)
    largest = 0.0
    for rank, (p, _, c) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        c.p_holm, c.family = largest, len(tested)


def answer(c: Comparison | None, better: int, alpha: float = ALPHA, expected: float | None = None) -> str:
    """What a comparison shows: improved, worse, equivalent, no clear difference or too small to tell; rose or fell
    where `better` is 0.

    `better` is +1 where a rise is good, -1 where a fall is. Equivalence is only asked of rows with a margin, and wins:
    within the margin is all that a no-regression row wants. `expected` is the largest change, up or down, that is
    expected: where the smallest change that is found lies above it, no answer says nothing of the model.
    """
    if c is None:
        return NOT_SHOWN
    if c.tost_p is not None and c.tost_p < alpha:
        return EQUIVALENT
    p = c.decisive_p
    if p is None or p >= alpha or c.change == 0:
        too_small = p is not None and expected is not None and c.mde is not None and c.mde > expected
        return TOO_SMALL if too_small else NOT_SHOWN
    if better == 0:
        return ROSE if c.change > 0 else FELL
    return IMPROVED if c.change * better > 0 else WORSE


def _float(value: Any) -> float | None:
    return float(value) if value is not None and isfinite(value) else None
