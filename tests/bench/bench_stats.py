"""How often does each decision of phase1/report/stats.py call a difference where there is none, and find one where
there is?

    python tests/bench/bench_stats.py                       # about 4 minutes on two cores
    python tests/bench/bench_stats.py --pairs 200 --resamples 300

Null pairs: two evaluations of the same problems in which a share of the problems (the discordance) comes out anew on
each side, with no true difference. A decision at alpha .05 should be wrong in at most 5% of them. Power: the same
problems with a true gain of 5 or 10 percentage points on top. Exit 1 when a decision that the report uses is wrong in
more than 6% of the null pairs of any setting.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from phase1.report.stats import ALPHA, WORSE, answer, mcnemar, paired_cost, paired_mean, paired_rate

DISCORDANCE = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
BASE = 0.4  # solved share of problems that are the same on both sides
LIMIT = 0.06
FAMILY = 12  # quality and error rows that are tested together


def binary_pairs(rng: np.random.Generator, n: int, discordance: float, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """(before, after) of n problems: `discordance` of them differ, `gain` more of them upwards than downwards."""
    up, down = (discordance + gain) / 2, (discordance - gain) / 2
    kind = rng.choice(4, n, p=[up, down, (1 - discordance) * BASE, (1 - discordance) * (1 - BASE)])
    return np.isin(kind, (1, 2)), np.isin(kind, (0, 2))


def ratio_pairs(rng: np.random.Generator, n: int, moved: float, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """pass_ratio of n problems on both sides: U-shaped, `moved` of them drawn anew, then `gain` more problems
    solved."""
    before = np.round(rng.beta(0.3, 0.5, n), 2)
    after = np.where(rng.random(n) < moved, np.round(rng.beta(0.3, 0.5, n), 2), before)
    return before, np.where(rng.random(n) < gain / 0.6, 1.0, after)  # 0.6: the mean distance to 1


def cost_pairs(rng: np.random.Generator, n: int, moved: float) -> tuple[np.ndarray, ...]:
    """tokens and verdicts of n problems on both sides; tokens are log-normal, `moved` of the problems come out anew."""
    sides = [(rng.lognormal(5, 0.8, n), rng.random(n) < BASE) for _ in range(2)]
    anew = rng.random(n) < moved
    return sides[0][0], sides[0][1], np.where(anew, sides[1][0], sides[0][0]), np.where(anew, sides[1][1], sides[0][1])


def rejects(c) -> tuple[bool, bool]:
    """(the interval leaves out zero, p is below alpha)"""
    outside = c.low is not None and (c.low > 0 or c.high < 0)
    return outside, c.p is not None and c.p < ALPHA


def main() -> int:
    args = parse_args()
    console, started = Console(width=150), time.monotonic()
    worst = false_positives(args, console) if args.only != "power" else 0.0
    if args.only != "false_positives":
        power(args, console)
    console.print(f"{time.monotonic() - started:.0f} s")
    return int(worst > LIMIT)  # a numpy bool would end in exit code 1 either way


def over_settings(args: argparse.Namespace, measure: Callable, settings: list) -> Iterator[tuple[Any, np.ndarray]]:
    """(setting, shares of the pairs), the settings side by side on --jobs cores; each has a seed of its own."""
    with ProcessPoolExecutor(args.jobs or os.cpu_count()) as pool:
        found = [pool.submit(measure, args, s, args.seed + i) for i, s in enumerate(settings)]
        for setting, f in zip(settings, found, strict=True):
            yield setting, f.result() / args.pairs


def null_pairs(args: argparse.Namespace, rate: float, seed: int) -> np.ndarray:
    rng, hits = np.random.default_rng(seed), np.zeros(7)
    for _ in range(args.pairs):
        binary = paired_rate(*binary_pairs(rng, args.problems, rate, 0))
        options = {"resamples": args.resamples, "seed": int(rng.integers(1 << 30))}
        ratio, cost = (
            paired_mean(*ratio_pairs(rng, args.problems, rate, 0), **options),
            paired_cost(*cost_pairs(rng, args.problems, rate), **options),
        )
        exact = mcnemar(binary.detail["gained"], binary.detail["lost"])[0]
        hits += [exact < ALPHA, rejects(binary)[1], rejects(binary)[0], *rejects(ratio), *rejects(cost)]
    return hits


def false_positives(args: argparse.Namespace, console: Console) -> float:
    """Print the table of null pairs; returns the worst rate of the decisions that the report uses."""
    worst = 0.0
    table = Table(
        title=(
            f"False positives at alpha {ALPHA} over {args.pairs} null pairs of {args.problems} problems (the "
            "report decides by the columns marked *)"
        )
    )
    for column in (
        "discordance",
        "McNemar exact",
        "McNemar mid-p *",
        "Tango interval",
        "ratio: bootstrap",
        "ratio: permutation *",
        "cost: bootstrap",
        "cost: permutation *",
    ):
        table.add_column(column, justify="right")
    for rate, shares in over_settings(args, null_pairs, list(DISCORDANCE)):
        worst = max(worst, *shares[[1, 4, 6]])
        table.add_row(f"{rate:.2f}", *(f"{s:.4f}" for s in shares))
    console.print(table)
    console.print(
        f"worst false-positive rate of a decision: {worst:.4f} (limit {LIMIT}): "
        f"{'holds' if worst <= LIMIT else 'FAILS'}"
    )
    return worst


def gained_pairs(args: argparse.Namespace, setting: tuple[float, float], seed: int) -> np.ndarray:
    (gain, rate), rng, hits = setting, np.random.default_rng(seed), np.zeros(5)
    for _ in range(args.pairs):
        binary = paired_rate(*binary_pairs(rng, args.problems, rate, gain))
        ratio = paired_mean(*ratio_pairs(rng, args.problems, rate, gain), resamples=args.resamples)
        alone = answer(binary, +1)
        binary.p_holm = min(1.0, FAMILY * binary.p)  # Holm where the other rows show nothing
        hits += [
            mcnemar(binary.detail["gained"], binary.detail["lost"])[0] < ALPHA and binary.change > 0,
            alone == "improved",
            answer(binary, +1) == "improved",
            ratio.p < ALPHA and ratio.change > 0,
            alone == WORSE,
        ]
    return hits


def power(args: argparse.Namespace, console: Console) -> None:
    """Print how often a true gain is found."""
    table = Table(
        title=(
            f"Power over {args.pairs} pairs: how often a true gain is called `improved`, alone and as one of "
            f"{FAMILY} rows under Holm"
        )
    )
    for column in (
        "gain",
        "discordance",
        "McNemar exact",
        "McNemar mid-p *",
        f"mid-p, Holm of {FAMILY}",
        "ratio: permutation *",
        "called worse",
    ):
        table.add_column(column, justify="right")
    settings = [(gain, rate) for gain in (0.05, 0.10) for rate in DISCORDANCE if rate >= max(gain, 0.1)]
    for (gain, rate), shares in over_settings(args, gained_pairs, settings):
        table.add_row(f"+{gain * 100:.0f} pp", f"{rate:.2f}", *(f"{s:.3f}" for s in shares))
    console.print(table)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pairs", type=int, default=2000, help="simulated evaluations a setting (default: 2000)")
    p.add_argument("--problems", type=int, default=117, help="problems an evaluation (default: 117)")
    p.add_argument(
        "--resamples",
        type=int,
        default=1000,
        help="bootstrap and permutation resamples (default: 1000; the report uses 10000)",
    )
    p.add_argument("--only", choices=["false_positives", "power"], help="one of the two tables")
    p.add_argument("--jobs", type=int, default=0, help="settings measured side by side (default: 0, one a core)")
    p.add_argument("--seed", type=int, default=42)
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
