"""How many problems and answers does a question need? Asked before a run, answered without a GPU.

    python -m phase1.report.power --gain 0.05 --problems 117
    python -m phase1.report.power --gain 0.05 --problems 617 --samples 4
    python -m phase1.report.power --gain 0.05 --problems 617 --dataset codecontests_valid \\
        --measured_on outputs/phase0_k/metrics.json outputs/final_k/metrics.json

The change of avg@k over n problems has the variance 2 m (1 - m) ((1 - agreement) rho + (1 - rho) / k) / n: m the mean,
rho the correlation of two answers to one problem, agreement that of the two models' chances at a problem. More answers
take the last term away, more problems both.

m and rho are measured with --measured_on an evaluation of several answers a problem, agreement with two of them.
Without it they are those of published figures: a beta-binomial fitted by least squares to HumanEval's pass@1, pass@10
and pass@100 of Codex-12B (28.81, 46.81, 72.31%; Chen et al. 2021, arXiv 2107.03374, table 1). CodeGen-Mono-16.1B gives
rho .56, InCoder-6.7B .56, CodeGen-Mono-2.7B .65. The agreement is an assumption. The power comes from a normal law: at
117 problems simulation finds up to 8 points less (tests/bench/bench_samples.py). Exit 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from phase1.arguments import Parser
from phase1.files import BadInput, run_script
from phase1.report.inputs import DatasetResult, read_side
from phase1.report.stats import ALPHA, POWER, REACH

MEAN, RHO, AGREEMENT = 0.27, 0.58, 0.9
SAMPLES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Question:
    """What is to be found.

    Attributes:
        problems: in the data set.
        samples: answers a problem.
        gain: the true change, a share.
        mean: the share of right answers before.
        rho: correlation of two answers to one problem, 0 to 1.
        agreement: correlation of the two models' chances at the same problem.
        rows: that are asked together under Holm's correction; the worst case is taken, that no other row moves.
    """

    problems: int
    samples: int
    gain: float
    mean: float = MEAN
    rho: float = RHO
    agreement: float = AGREEMENT
    rows: int = 1


def variance(q: Question) -> float:
    """Of one problem's change of avg@k."""
    return 2 * q.mean * (1 - q.mean) * ((1 - q.agreement) * q.rho + (1 - q.rho) / q.samples)


def power(q: Question) -> float:
    """How often the gain is called improved, 0 to 1."""
    spread = sqrt(variance(q) / q.problems)
    if spread == 0:
        return 1.0
    return float(ndtr(q.gain / spread + ndtri(ALPHA / 2 / q.rows)))


def problems_needed(q: Question) -> int:
    """The fewest problems that find the gain with power POWER."""
    reach = REACH if q.rows == 1 else float(ndtri(POWER) - ndtri(ALPHA / 2 / q.rows))
    return max(2, ceil(variance(q) * (reach / q.gain) ** 2))


@dataclass(frozen=True)
class Measured:
    """What evaluations of several answers say; `agreement` is None with one of them."""

    mean: float
    rho: float
    agreement: float | None


def measure(first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]] | None = None) -> Measured:
    """The mean and the correlation of answers to one problem, by moments; with the same problems' answers of a second
    model the agreement of the two models' chances.

    Args:
        first: of each problem whether each of its answers is right; the same number of answers each, 2 or more.
        second: the same of another model.
    """
    rates, rho = [], []
    for side in (first,) if second is None else (first, second):
        x, k = np.array([np.mean(a) for a in side]), len(side[0])
        m = float(x.mean())
        total = m * (1 - m)
        rates.append(x)
        found = (float(x.var(ddof=1)) / total - 1 / k) / (1 - 1 / k) if total else 1.0
        rho.append(min(1.0, max(0.0, found)))
    if len(rates) == 1:
        return Measured(float(rates[0].mean()), rho[0], None)
    means = [float(x.mean()) for x in rates]
    spread = sqrt(np.prod([r * m * (1 - m) for r, m in zip(rho, means, strict=True)]))
    together = float(np.cov(rates[0], rates[1])[0, 1])
    agreement = min(1.0, max(0.0, together / spread)) if spread else 1.0
    return Measured(means[0], sum(rho) / 2, agreement)


def read_measured(files: Sequence[Path], dataset: str) -> Measured:
    """What the evaluations that `files` name say of `dataset`.

    Raises:
        BadInput: one has no such data set, or one answer a problem.
    """
    if len(files) > 2:
        raise BadInput(f"--measured_on {files[2]}: one evaluation or two, not {len(files)}; leave the others out")
    results = [_sampled(path, dataset) for path in files]
    common = sorted(set.intersection(*(set(r.samples) for r in results)))
    k = min((len(r.samples[i]) for r in results for i in common), default=0)
    if k < 2 or len(common) < 2:
        raise BadInput(
            f"{files[-1]}: {dataset} has fewer than two problems with several answers in common; "
            "name two evaluations of the same problems"
        )
    answers = [[[a.accepted for a in list(r.samples[i].values())[:k]] for i in common] for r in results]
    return measure(*answers)


def _sampled(path: Path, dataset: str) -> DatasetResult:
    result = read_side(str(path), [path]).datasets.get(dataset)
    if result is None or not result.samples:
        raise BadInput(
            f"{path}: holds no {dataset} with several answers a problem; evaluate it with "
            "phase1_eval.py --n_samples 4 --temperature 0.8"
        )
    return result


def report(args: argparse.Namespace) -> str:
    """The answer as text of at most 80 columns."""
    base = Question(args.problems, 1, args.gain, args.mean, args.rho, args.agreement, args.rows)
    said = "given or published, see --help"
    if args.measured_on:
        found = read_measured(args.measured_on, args.dataset)
        agreement = args.agreement if found.agreement is None else found.agreement
        base = replace(base, mean=found.mean, rho=found.rho, agreement=agreement)
        said = f"measured on {args.dataset}" + ("" if found.agreement is not None else ", agreement given")
    lines = [
        f"To find a change of {100 * base.gain:+.1f} pp with {POWER:.0%} power"
        + (f", {base.rows} rows under Holm" if base.rows > 1 else ""),
        f"mean {base.mean:.3f}, rho {base.rho:.2f}, agreement {base.agreement:.2f} ({said})",
        "",
        f"{'answers a problem':>18} {f'power at {base.problems}':>14} {'problems needed':>16} {'answers a side':>15}",
    ]
    for k in args.samples:
        q = replace(base, samples=k)
        needed = problems_needed(q)
        lines.append(f"{k:>18} {power(q):>14.0%} {needed:>16,} {q.problems * k:>15,}")
    return "\n".join(lines)


def parse_args() -> argparse.Namespace:
    p = Parser(__doc__, prog="python -m phase1.report.power")
    asked, known = p.add_argument_group("what is asked"), p.add_argument_group("what is known of the answers")
    asked.add_argument(
        "--gain", type=float, default=0.05, help="true change to find, a share (default: 0.05, 5 points)"
    )
    asked.add_argument(
        "--problems", type=int, default=117, help="problems of the data set (default: 117, as codecontests_valid)"
    )
    asked.add_argument("--samples", type=int, nargs="+", default=SAMPLES, help="answers a problem (default: 1 to 32)")
    asked.add_argument("--rows", type=int, default=1, help="rows asked together under Holm's correction (default: 1)")
    known.add_argument("--mean", type=float, default=MEAN, help=f"share of right answers (default: {MEAN})")
    known.add_argument("--rho", type=float, default=RHO, help=f"correlation of answers to a problem (default: {RHO})")
    known.add_argument(
        "--agreement",
        type=float,
        default=AGREEMENT,
        help=f"correlation of the two models' answers (default: {AGREEMENT})",
    )
    known.add_argument(
        "--measured_on",
        type=Path,
        nargs="+",
        metavar="F",
        help="take both from these: metrics.json of one or two evaluations",
    )
    known.add_argument(
        "--dataset", default="codecontests_valid", help="data set of --measured_on (default: codecontests_valid)"
    )
    args = p.parse_args()
    for name, low, high in (("gain", 0, 1), ("mean", 0, 1)):
        if not low < getattr(args, name) < high:
            raise BadInput(f"--{name} {getattr(args, name)}: expected a share between 0 and 1 (0.05 is 5 points)")
    for name in ("rho", "agreement"):
        if not 0 <= getattr(args, name) <= 1:
            raise BadInput(f"--{name} {getattr(args, name)}: expected a correlation from 0 to 1")
    for name, value, least in (
        ("problems", args.problems, 2),
        ("samples", min(args.samples), 1),
        ("rows", args.rows, 1),
    ):
        if value < least:
            raise BadInput(f"--{name} {value}: expected {least} or more")
    return args


def main() -> int:
    print(report(parse_args()))
    return 0


if __name__ == "__main__":
    run_script(main)
