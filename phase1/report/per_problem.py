"""Two evaluations compared by one number a problem: the mean over several answers, or problems of several data sets.

The problem is the unit (Miller 2024, arXiv 2411.00640): answers to one problem resemble each other, so k answers to n
problems are n pairs and never k * n. As everywhere in the report no normal law decides: sign flips and the bootstrap
do. tests/bench/bench_samples.py measures how often they are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from scipy.special import ndtr, stdtrit

from phase1.report.stats import ALPHA, RESAMPLES, SEED, Comparison, paired_rate, permutation_p, smallest_found

METHOD = "paired permutation by problem, expanded bootstrap interval"


def paired_values(
    before: Sequence[float],
    after: Sequence[float],
    *,
    step: float = 0.0,
    margin: float | None = None,
    strata: Sequence[str] | None = None,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """The change of the mean over problems, of values between 0 and 1.

    Args:
        before: one value a problem, of Phase 0.
        after: the same problems' values in Phase 1.
        step: the least by which a problem's value can change: 1 / k where it is a share of k answers; 0: any.
        margin: also test whether the change lies within it.
        strata: each problem's data set. Problems are then drawn within their own one; a sign flip never leaves it.
        alpha: of the interval, two-sided.
        resamples: of bootstrap and permutation.
        seed: of the same.

    Returns:
        p by sign flips of the problems' changes; the interval by the percentile bootstrap, widened as Hesterberg (2015,
        The American Statistician 69:371, section 5.3) says. With values 0 and 1 it is `paired_rate`, as of one answer.
    """
    x, y = np.asarray(before, float), np.asarray(after, float)
    if step == 1.0 and strata is None:
        return paired_rate(x > 0, y > 0, margin, alpha)
    d, n = y - x, len(x)
    low, high = _interval(d, strata, alpha, resamples, seed)
    return Comparison(
        METHOD,
        True,
        n,
        float(d.mean()),
        low,
        high,
        permutation_p(d[d != 0], resamples, seed),
        tost_p=None if margin is None else equivalence_p(d, margin, resamples, seed),
        margin=margin,
        mde=smallest_found(_variance(d, strata), n, step),
        detail={"up": int((d > 0).sum()), "down": int((d < 0).sum()), "resamples": resamples, "seed": seed},
    )


def equivalence_p(d: np.ndarray, margin: float, resamples: int, seed: int) -> float:
    """p of "the change is `margin` or more, up or down": the larger of two one-sided sign-flip tests.

    Where hardly a problem moved, flips of what is left of the margin know no noise at all, although the few problems
    that would make up the margin may just not be among these. So a score is asked too, with no less variance than where
    they are solved by every answer on one side and by none on the other, and the larger p counts.
    """
    n = len(d)
    worst = 0.0
    for shifted in (d + margin, margin - d):
        flips = permutation_p(shifted, resamples, seed, alternative="greater")
        variance = max(float(d.var()), margin - margin**2)
        score = float(ndtr(-shifted.mean() / sqrt(variance / n)))
        worst = max(worst, flips, score)
    return worst


def _variance(d: np.ndarray, strata: Sequence[str] | None) -> float:
    """Of a problem's change, within its data set."""
    return sum(float(d[i].var()) * len(i) for i in _members(len(d), strata)) / len(d)


def _members(n: int, strata: Sequence[str] | None) -> list[np.ndarray]:
    if strata is None:
        return [np.arange(n)]
    names = np.asarray(strata)
    return [np.flatnonzero(names == name) for name in dict.fromkeys(strata)]


def _interval(
    d: np.ndarray, strata: Sequence[str] | None, alpha: float, resamples: int, seed: int
) -> tuple[float | None, float | None]:
    n = len(d)
    if n < 2:
        return None, None
    rng, total = np.random.RandomState(seed), np.zeros(resamples)
    for members in _members(n, strata):
        for rows in np.array_split(np.arange(resamples), max(1, resamples // 1000)):  # 1,000 at a time: memory
            drawn = rng.randint(0, len(members), (len(rows), len(members)))
            total[rows] += d[members][drawn].sum(axis=1)
    tail = ndtr(sqrt(n / (n - 1)) * stdtrit(n - 1, alpha / 2))  # Student's t, n - 1 degrees of freedom
    low, high = np.percentile(total / n, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)
