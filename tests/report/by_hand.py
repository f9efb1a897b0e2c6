"""Every number of the report's three tables from the stored result lines, without phase1 and without statsmodels.

Each row of the tables is named here again, each rate counted again, each interval and p derived again another way than
phase1/report/stats.py does it: closed forms where they exist (Wilson, Newcombe, Holm, the binomial sums of McNemar),
Tango's interval as the roots of a polynomial instead of a search, equivalence from the likelihood equation itself, the
bootstrap and the permutation test resample by resample from the documented seed. `exact_permutation_p` counts every
swap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import comb, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from scipy.optimize import brentq

SEED, RESAMPLES, MARGIN, ALPHA = 42, 10_000, 0.02, 0.05  # what the report says of itself in its line on methods
Z, Z80 = NormalDist().inv_cdf(1 - ALPHA / 2), NormalDist().inv_cdf(0.8)

# label -> table, data set, kind of figure, what one record says
ROWS: dict[str, tuple[str, str, str, Callable[[dict], Any]]] = {
    "exec_success_rate (valid)": (
        "quality",
        "codecontests_valid",
        "rate",
        lambda r: r["error_type"] in ("success", "wrong_answer"),
    ),
    "exec_success_rate (valid_big)": (
        "quality",
        "codecontests_valid_big",
        "rate",
        lambda r: r["error_type"] in ("success", "wrong_answer"),
    ),
    "exec_success_rate (test)": (
        "quality",
        "codecontests_test",
        "rate",
        lambda r: r["error_type"] in ("success", "wrong_answer"),
    ),
    "accepted_at_1 (valid)": ("quality", "codecontests_valid", "rate", lambda r: r["accepted"]),
    "accepted_at_1 (test)": ("quality", "codecontests_test", "rate", lambda r: r["accepted"]),
    "pass_ratio_mean (valid)": ("quality", "codecontests_valid", "mean", lambda r: r["pass_ratio"]),
    "pass_ratio_p50 (valid)": ("quality", "codecontests_valid", "p50", lambda r: r["pass_ratio"]),
    "pass_ratio_p90 (valid)": ("quality", "codecontests_valid", "p90", lambda r: r["pass_ratio"]),
    "HumanEval pass@1": ("quality", "humaneval", "rate", lambda r: r["accepted"]),
    "MBPP_reg pass@1": ("quality", "mbpp_reg", "rate", lambda r: r["accepted"]),
    "syntax_error": ("errors", "codecontests_valid", "rate", lambda r: r["error_type"] == "syntax_error"),
    "runtime_error": ("errors", "codecontests_valid", "rate", lambda r: r["error_type"] == "runtime_error"),
    "timeout": ("errors", "codecontests_valid", "rate", lambda r: r["error_type"] == "timeout"),
    "wrong_answer": ("errors", "codecontests_valid", "rate", lambda r: r["error_type"] == "wrong_answer"),
    "avg_gen_tokens": ("cost", "codecontests_valid", "mean", lambda r: r["gen_tokens"]),
    "avg_judge_time": ("cost", "codecontests_valid", "mean", lambda r: r["judge_time"]),
    "throughput": ("cost", "codecontests_valid", "per second", lambda r: 1),
    "cost_per_solved_tokens": ("cost", "codecontests_valid", "per solved", lambda r: r["gen_tokens"]),
    "cost_per_solved_judge_time": ("cost", "codecontests_valid", "per solved", lambda r: r["judge_time"]),
}
MORE_IS_BETTER = {
    **dict.fromkeys(ROWS, +1),
    **dict.fromkeys(("syntax_error", "runtime_error", "timeout", "avg_judge_time"), -1),
    "cost_per_solved_tokens": -1,
    "cost_per_solved_judge_time": -1,
    "wrong_answer": 0,
    "avg_gen_tokens": 0,
}
# The far end of what the seed's 3.2 expects, up or down: of Phase 0's value where it says percent.
LARGEST = {
    **{f"exec_success_rate ({name})": lambda before: 0.4 for name in ("valid", "valid_big", "test")},
    **{f"accepted_at_1 ({name})": lambda before: 0.05 for name in ("valid", "test")},
    "pass_ratio_mean (valid)": lambda before: 0.15,
    "HumanEval pass@1": lambda before: 0.02,
    "MBPP_reg pass@1": lambda before: 0.02,
    "syntax_error": lambda before: 0.6 * before,
    "runtime_error": lambda before: 0.3 * before,
    "timeout": lambda before: 0.3 * before,
}
NO_REGRESSION = ("HumanEval pass@1", "MBPP_reg pass@1")


@dataclass
class Counted:
    """One row. None where there is no such number; `answer` is `-` where nothing is decided."""

    before: float | None
    after: float
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm: float | None = None
    equivalence_p: float | None = None
    finds: float | None = None
    family: int | None = None
    answer: str = "-"
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def change(self) -> float | None:
        return None if self.before is None else self.after - self.before


def count(phase0: Path, phase1: Path, paired: bool = True) -> dict[str, Counted]:
    """The rows from two evaluations' results/; `paired=False` as if only Phase 0's rates and numbers were known."""
    found = {}
    for label, (_, dataset, kind, value) in ROWS.items():
        x, y = read(phase0, dataset), read(phase1, dataset)
        assert y is not None
        row = found[label] = Counted(x and figure(x, kind, value), figure(y, kind, value))
        if kind == "rate":
            row.after_interval = wilson(sum(map(value, y)), len(y))
            row.before_interval = x and wilson(sum(map(value, x)), len(x))
        if x:
            test = _paired if paired else _unpaired
            test(row, label, kind, value, x, y)
    for family in (("quality", "errors"), ("cost",)):
        _holm([found[label] for label, (table, *_) in ROWS.items() if table in family])
    for label, row in found.items():
        largest = LARGEST[label](row.before) if label in LARGEST and row.before is not None else None
        row.answer = _answer(row, MORE_IS_BETTER[label], largest)
    return found


def read(phase: Path, dataset: str) -> list[dict] | None:
    """The records of one phase in the order of their problem ids."""
    path = phase / "results" / f"{dataset}.jsonl"
    return (
        sorted(map(json.loads, path.read_text().splitlines()), key=lambda r: r["problem_id"]) if path.exists() else None
    )


def figure(rows: Sequence[dict], kind: str, value: Callable[[dict], Any]) -> float:
    values = [value(r) for r in rows]
    if kind in ("p50", "p90"):
        return percentile(values, int(kind[1:]) / 100)
    if kind == "per solved":
        return sum(values) / sum(r["accepted"] for r in rows)
    if kind == "per second":
        return len(rows) / (max(r["finished"] for r in rows) - min(r["started"] for r in rows))
    return sum(values) / len(values)


def percentile(values: Sequence[float], q: float) -> float:
    ordered, at = sorted(values), q * (len(values) - 1)
    low = int(at)
    return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


# --------------------------------------------------------------------------------------------------------- the tests
def _paired(row: Counted, label: str, kind: str, value: Callable[[dict], Any], x: list[dict], y: list[dict]) -> None:
    assert [r["problem_id"] for r in x] == [r["problem_id"] for r in y]
    before, after = (np.array([value(r) for r in rows], float) for rows in (x, y))
    if kind == "rate":
        n, up, down = len(x), int(sum(after > before)), int(sum(before > after))
        exact, mid = mcnemar(up, down)
        row.p, (row.low, row.high) = mid, tango_interval(up, down, n)
        # Such an effect lies 1.96 + 0.84 standard errors from none, and moves its own share of the pairs at least.
        row.finds = max((Z + Z80) * np.std(after - before) / sqrt(n), (Z + Z80) ** 2 / n)
        row.detail = {"gained": up, "lost": down, "mcnemar_exact_p": exact, "mcnemar_mid_p": mid}
        if label in NO_REGRESSION:
            row.equivalence_p = max(
                1 - NormalDist().cdf(tango_score(up, down, n, -MARGIN)),
                NormalDist().cdf(tango_score(up, down, n, MARGIN)),
            )
    elif kind == "mean":
        row.low, row.high = bootstrap(len(x), lambda i: (after - before)[i].mean(axis=1))
        row.p = permutation_p((after - before)[after != before])
        row.finds = (Z + Z80) * np.std(after - before) / sqrt(len(x))
    elif kind in ("p50", "p90"):
        q = int(kind[1:])
        row.low, row.high = bootstrap(
            len(x), lambda i: np.percentile(after[i], q, axis=1) - np.percentile(before[i], q, axis=1)
        )
    elif kind == "per solved":
        solved = [np.array([r["accepted"] for r in rows], float) for rows in (x, y)]
        row.low, row.high = bootstrap(
            len(x),
            lambda i: (
                after[i].sum(axis=1) / solved[1][i].sum(axis=1) - before[i].sum(axis=1) / solved[0][i].sum(axis=1)
            ),
        )
        row.p = swapped_costs_p(before, after, *solved)
        row.finds = (Z + Z80) * (row.high - row.low) / (2 * Z)


def _unpaired(row: Counted, label: str, kind: str, value: Callable[[dict], Any], x: list[dict], y: list[dict]) -> None:
    if kind != "rate":
        return
    (k0, n0), (k1, n1) = ((int(sum(map(value, rows))), len(rows)) for rows in (x, y))
    (l0, u0), (l1, u1) = wilson(k0, n0), wilson(k1, n1)
    p0, p1 = k0 / n0, k1 / n1
    row.low = p1 - p0 - sqrt((p1 - l1) ** 2 + (u0 - p0) ** 2)  # Newcombe 1998, method 10
    row.high = p1 - p0 + sqrt((u1 - p1) ** 2 + (p0 - l0) ** 2)
    row.p = 2 * (1 - NormalDist().cdf(abs(two_rates_score(k0, n0, k1, n1, 0.0))))
    row.finds = (Z + Z80) * sqrt(p0 * (1 - p0) / n0 + p1 * (1 - p1) / n1)
    if label in NO_REGRESSION:
        below, above = (two_rates_score(k0, n0, k1, n1, sign * MARGIN) for sign in (-1, 1))
        row.equivalence_p = max(1 - NormalDist().cdf(below), NormalDist().cdf(above))


def _holm(family: list[Counted]) -> None:
    ordered, running = sorted((r for r in family if r.p is not None), key=lambda r: r.p), 0.0
    for rank, row in enumerate(ordered):
        running = row.holm = max(running, min(1.0, (len(ordered) - rank) * row.p))
        row.family = len(ordered)


def _answer(row: Counted, better: int, largest: float | None) -> str:
    if row.holm is None:
        return "-"
    if row.equivalence_p is not None and row.equivalence_p < ALPHA:
        return "equivalent"
    if row.holm >= ALPHA or not row.change:
        return "too small to tell" if largest is not None and row.finds > largest else "no clear difference"
    return {0: ("fell", "rose"), 1: ("worse", "improved"), -1: ("improved", "worse")}[better][row.change > 0]


# ----------------------------------------------------------------------------------------------------------- formulas
def wilson(k: int, n: int) -> tuple[float, float]:
    centre, half = (k + Z * Z / 2) / (n + Z * Z), Z / (n + Z * Z) * sqrt(k * (n - k) / n + Z * Z / 4)
    return centre - half, centre + half


def mcnemar(up: int, down: int) -> tuple[float, float]:
    """Exact and mid-p from the binomial coefficients."""
    n, k = up + down, min(up, down)
    tail = sum(comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail), min(1.0, 2 * tail - comb(n, k) / 2**n)


def tango_score(up: int, down: int, n: int, delta: float) -> float:
    """The estimated change less `delta` over its standard error at the likelihood's maximum where the change is delta.

    With q the share of falls and q + delta that of rises, the likelihood up log(q + delta) + down log q + same log(1 -
    2q - delta) is greatest where its derivative is 0, or at the least q there can be."""
    same, low, high = n - up - down, max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12

    def slope(q: float) -> float:
        return up / (q + delta) + down / q - 2 * same / (1 - 2 * q - delta)

    q = brentq(slope, low, high, xtol=1e-15) if slope(low) > 0 else low
    return ((up - down) / n - delta) / sqrt((2 * q + delta - delta**2) / n)


def tango_interval(up: int, down: int, n: int) -> tuple[float, float]:
    """The two changes at which the score is +-z: score = +-z gives q as a polynomial in delta, and that q put into the
    likelihood equation (times its denominators) leaves a polynomial whose roots hold the two."""
    same, delta = n - up - down, Polynomial([0.0, 1.0])
    q = ((up - down - n * delta) ** 2 / (Z * Z * n) - delta * (1 - delta)) / 2
    rest = 1 - 2 * q - delta
    roots = (up * q * rest + down * (q + delta) * rest - 2 * same * q * (q + delta)).roots()
    changes = [float(r.real) for r in roots if abs(r.imag) < 1e-6 and -1 < r.real < 1]
    low, high = (min(changes, key=lambda d: abs(tango_score(up, down, n, d) - z)) for z in (Z, -Z))
    assert abs(tango_score(up, down, n, low) - Z) < 1e-5 and abs(tango_score(up, down, n, high) + Z) < 1e-5
    return low, high


def two_rates_score(k0: int, n0: int, k1: int, n1: int, delta: float) -> float:
    """Miettinen and Nurminen 1985: the difference less `delta` over its standard error where the two rates, `delta`
    apart, have the greatest likelihood, with their factor N / (N - 1)."""
    low, high = max(0.0, -delta) + 1e-12, min(1.0, 1 - delta) - 1e-12
    p0 = brentq(
        lambda p: k0 / p - (n0 - k0) / (1 - p) + k1 / (p + delta) - (n1 - k1) / (1 - p - delta), low, high, xtol=1e-15
    )
    p1, total = p0 + delta, n0 + n1
    return (k1 / n1 - k0 / n0 - delta) / sqrt((p0 * (1 - p0) / n0 + p1 * (1 - p1) / n1) * total / (total - 1))


# --------------------------------------------------------------------------------------------------------- resampling
def bootstrap(n: int, change: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Problems drawn with replacement, both phases of a problem together; the middle 95% of the changes."""
    changes = np.sort(change(np.random.RandomState(SEED).randint(0, n, (RESAMPLES, n))))
    return percentile(changes, ALPHA / 2), percentile(changes, 1 - ALPHA / 2)


def _swaps(n: int) -> np.ndarray:
    """RESAMPLES - 1 times n coins: whether a problem's two phases change places."""
    coins = np.random.RandomState(SEED).random((RESAMPLES - 1, n, 2))
    return coins[:, :, 0] > coins[:, :, 1]


def _two_sided(null: np.ndarray, observed: float) -> float:
    slack = 1e-9 * max(1.0, abs(observed))
    extreme = min((null >= observed - slack).sum(), (null <= observed + slack).sum())
    return min(1.0, 2 * (extreme + 1) / (len(null) + 1))  # the observed order is one of the resamples


def permutation_p(differences: np.ndarray) -> float:
    signs = np.where(_swaps(len(differences)), -1, 1)
    return _two_sided(signs @ differences, differences.sum())


def swapped_costs_p(before: np.ndarray, after: np.ndarray, solved0: np.ndarray, solved1: np.ndarray) -> float:
    swap = _swaps(len(before))

    def total(stay: np.ndarray, come: np.ndarray) -> np.ndarray:
        return np.where(swap, come, stay).sum(axis=1)

    null = total(after, before) / total(solved1, solved0) - total(before, after) / total(solved0, solved1)
    return _two_sided(null, after.sum() / solved1.sum() - before.sum() / solved0.sum())


def exact_permutation_p(differences: Sequence[int]) -> float:
    """Two-sided p over all 2^n swaps of whole-number differences, by adding them up one at a time."""
    size = sum(map(abs, differences))
    ways = np.zeros(2 * size + 1)
    ways[size] = 1.0
    for d in differences:
        ways = (np.roll(ways, d) + np.roll(ways, -d)) / 2
    at = size + sum(differences)
    return min(1.0, 2 * min(ways[at:].sum(), ways[: at + 1].sum()))
