"""Several answers a problem: how often is a decision wrong where nothing differs, does the interval hold the truth, and
how often is a gain found?

    python tests/bench/bench_samples.py                     # about 5 minutes on two cores
    python tests/bench/bench_samples.py --only power --mean 0.22 --rho 0.5     # as tests/bench/real_answers.py measures
    python tests/bench/bench_samples.py --pairs 300 --resamples 300

A problem is solved by each answer with a chance of its own, drawn from a beta distribution (beta-binomial): `rho` is
the correlation of two answers to one problem, 1 where a problem is always or never solved. Null pairs: both models have
the same chances, or a third of them drawn anew (`moved`), so that only the mean is the same. Exit 1 where a decision
that the report uses is wrong in more than 6% of the null pairs of a setting, or an interval covers less than 93 or more
than 97%. A share of --pairs is known to two standard errors only, by which both limits are widened.

Power: a gain of 5 points at the correlation of published pass@k (phase1/report/power.py), the base model's chances
kept in place at a share of the problems, the `agreement`; beside it what `python -m phase1.report.power` says
beforehand. Not measured on answers of this project's models.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from phase1.report.per_problem import paired_values
from phase1.report.power import AGREEMENT, MEAN, RHO, Question, power
from phase1.report.stats import ALPHA

SAMPLES, CORRELATIONS, MOVED = (1, 4, 16), (0.1, 0.4, 0.8), (0.0, 1 / 3)
LIMIT, COVER_LOW, COVER_HIGH = 0.06, 0.93, 0.97
GAIN = 0.05


@dataclass(frozen=True)
class Setting:
    """What is simulated. `moved`: share of the problems whose chance is drawn anew, so the models' agreement is the
    rest."""

    k: int
    rho: float
    problems: int = 117
    mean: float = 0.3
    moved: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True)
class Shares:
    """Of the pairs: called different by p, interval without the truth; for avg@k and for pass@k."""

    avg: float
    avg_outside: float
    any: float
    any_outside: float


def chances(rng: np.random.Generator, s: Setting) -> tuple[np.ndarray, np.ndarray]:
    """The chance of each problem on both sides: at the same place of the two distributions, or at another."""
    shapes = [(m * (1 / s.rho - 1), (1 - m) * (1 / s.rho - 1)) for m in (s.mean, s.mean + s.gain)]
    if not s.gain:  # the same distribution: no quantiles needed
        before = rng.beta(*shapes[0], s.problems)
        return before, np.where(rng.random(s.problems) < s.moved, rng.beta(*shapes[1], s.problems), before)
    place = rng.random(s.problems)
    other = np.where(rng.random(s.problems) < s.moved, rng.random(s.problems), place)
    return st.beta.ppf(place, *shapes[0]), st.beta.ppf(other, *shapes[1])


def simulate(s: Setting, pairs: int, resamples: int, seed: int) -> Shares:
    """The shares over `pairs` simulated comparisons."""
    rng, hits = np.random.default_rng(seed), np.zeros(4)
    for _ in range(pairs):
        right = [rng.binomial(s.k, p) for p in chances(rng, s)]
        options = {"resamples": resamples, "seed": int(rng.integers(1 << 30))}
        for i, (values, step) in enumerate((([r / s.k for r in right], 1 / s.k), ([r > 0 for r in right], 1 / s.k))):
            c = paired_values(*values, step=step, **options)
            better = c.change > 0 if s.gain else True
            outside = c.low > s.gain or c.high < s.gain
            hits[2 * i : 2 * i + 2] += [c.p < ALPHA and better, outside]
    return Shares(*(float(h) / pairs for h in hits))


def main() -> int:
    args = parse_args()
    console, started = Console(width=130), time.monotonic()
    failed = null_table(args, console) if args.only != "power" else False
    if args.only != "false_positives":
        power_table(args, console)
    console.print(f"{time.monotonic() - started:.0f} s")
    return int(failed)


def over(args: argparse.Namespace, settings: list[Setting]) -> list[Shares]:
    """The shares of each setting, side by side on --jobs cores."""
    with ProcessPoolExecutor(args.jobs or os.cpu_count()) as pool:
        n = len(settings)
        seeds = range(args.seed, args.seed + n)
        return list(pool.map(simulate, settings, [args.pairs] * n, [args.resamples] * n, seeds))


def null_table(args: argparse.Namespace, console: Console) -> bool:
    """Print how often nothing is called something; whether a limit is broken."""
    settings = [Setting(k, rho, moved=moved) for moved in MOVED for rho in CORRELATIONS for k in SAMPLES]
    table = Table(title=f"{args.pairs} null pairs of 117 problems: false positives, and coverage of the 95% interval")
    for column in ("moved", "rho", "k", "avg@k: p", "covered", "pass@k: p", "covered"):
        table.add_column(column, justify="right")
    failed = False
    for s, found in zip(settings, over(args, settings), strict=True):
        for wrong, outside in ((found.avg, found.avg_outside), (found.any, found.any_outside)):
            slack, near = (2 * sqrt(p * (1 - p) / args.pairs) for p in (LIMIT, COVER_LOW))
            failed |= wrong > LIMIT + slack or not COVER_LOW - near <= 1 - outside <= COVER_HIGH + near
        cells = (found.avg, 1 - found.avg_outside, found.any, 1 - found.any_outside)
        table.add_row(f"{s.moved:.2f}", f"{s.rho}", str(s.k), *(f"{c:.3f}" for c in cells))
    console.print(table)
    console.print("FAILS" if failed else "holds")
    return failed


def power_table(args: argparse.Namespace, console: Console) -> None:
    """Print how often a gain of 5 points is found, and what was said beforehand."""
    settings = [
        Setting(k, args.rho, n, args.mean, moved=1 - agreement, gain=GAIN)
        for agreement in (1.0, AGREEMENT, 0.8)
        for n, ks in ((117, (1, 4, 8, 16, 32)), (617, (1, 2, 4)))
        for k in ks
    ]
    table = Table(title=f"Gain of 5 points, mean {args.mean}, rho {args.rho}: called improved ({args.pairs} pairs)")
    for column in ("agreement", "problems", "k", "avg@k", "said beforehand", "pass@k"):
        table.add_column(column, justify="right")
    for s, found in zip(settings, over(args, settings), strict=True):
        said = power(Question(s.problems, s.k, s.gain, s.mean, s.rho, 1 - s.moved))
        table.add_row(
            f"{1 - s.moved:.1f}", str(s.problems), str(s.k), f"{found.avg:.3f}", f"{said:.3f}", f"{found.any:.3f}"
        )
    console.print(table)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pairs", type=int, default=2000, help="simulated comparisons a setting (default: 2000)")
    p.add_argument("--resamples", type=int, default=1000, help="of bootstrap and permutation (default: 1000)")
    p.add_argument("--only", choices=["false_positives", "power"], help="one of the two tables")
    p.add_argument("--mean", type=float, default=MEAN, help=f"of right answers, for the power (default: {MEAN})")
    p.add_argument("--rho", type=float, default=RHO, help=f"of two answers to a problem (default: {RHO})")
    p.add_argument("--jobs", type=int, default=0, help="settings side by side (default: 0, one a core)")
    p.add_argument("--seed", type=int, default=42)
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
