"""Rows beside the seed's: both validation sets as one, and k answers a problem. Their units, answers and words are the
seed's rows'; docs/04 says which protocol finds which gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb

from phase1.evaluate.metrics import RATE, Mean, metric
from phase1.report import stats
from phase1.report.inputs import DatasetResult, Outcome, Side
from phase1.report.per_problem import paired_values
from phase1.report.silent import silent_rises
from phase1.report.tables import BIG, NO_REGRESSION, TEST, VALID, Row, RowSpec, decide

Answers = Sequence[Outcome]  # to one problem
POOLED = "codecontests_valid+valid_big"
POOL = (VALID, BIG)
NAMES = {VALID: "valid", BIG: "valid_big", TEST: "test", POOLED: "valid + valid_big", "humaneval": "HumanEval"}
NAMES["mbpp_reg"] = "MBPP_reg"
POOLED_METRICS = ("exec_success_rate", "accepted_at_1", "pass_ratio_mean")


@dataclass(frozen=True)
class Estimator:
    """What is made of a problem's answers. `metric`: the one whose unit, direction and expected range it has."""

    name: str
    metric: str
    value: Callable[[Answers, int], float]


def average(answers: Answers, k: int) -> float:
    """The share of a problem's answers that are right."""
    return sum(a.accepted for a in answers) / len(answers)


def pass_at(answers: Answers, k: int) -> float:
    """The chance that one of k answers drawn from a problem's is right: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021)."""
    n, right = len(answers), sum(a.accepted for a in answers)
    return 1 - comb(n - right, k) / comb(n, k)


def executed(answers: Answers, k: int) -> float:
    """The share of a problem's answers whose program runs to its end."""
    return sum(a.executed for a in answers) / len(answers)


ESTIMATORS = (
    Estimator("avg", "accepted_at_1", average),
    Estimator("pass", "accepted_at_1", pass_at),
    Estimator("exec_success", "exec_success_rate", executed),
)


def more_rows(phase0: Side, phase1: Side, seed: int = stats.SEED, resamples: int = stats.RESAMPLES) -> list[Row]:
    """The rows that both sides have the records for, pooled ones first.

    Holm's correction runs over the pooled rows, and over the rows of several answers apart.
    """
    pooled = _pooled_rows(phase0, phase1, seed, resamples)
    sampled = _sampled_rows(phase0, phase1, seed, resamples)
    for family in (pooled, sampled):
        stats.holm([r.comparison for r in family])
    rises = silent_rises(phase0, phase1)
    rows = [*pooled, *sampled]
    decide(rows, rises)
    if any(rise.dataset in POOL for rise in rises):
        for r in rows:
            if (r.spec.dataset, r.spec.metric) == (POOLED, "exec_success_rate"):
                r.silent = True
                r.answer = stats.ROSE if r.answer == stats.IMPROVED else r.answer
    return rows


def _pooled_rows(phase0: Side, phase1: Side, seed: int, resamples: int) -> list[Row]:
    """One greedy answer to each problem of both validation sets; a pair is a problem, so the tests stay within its set.

    The interval of a rate is Tango's over all pairs, which the sets' own rates could only narrow."""
    pairs = [p for name in POOL for p in _common(phase0.datasets.get(name), phase1.datasets.get(name), "records")]
    if {p.dataset for p in pairs} != set(POOL):
        return []
    rows = []
    for name in POOLED_METRICS:
        measured = metric(name)
        assert isinstance(measured.pooling, Mean)
        value = measured.pooling.value
        records0 = [phase0.datasets[p.dataset].records[p.problem] for p in pairs]
        records1 = [phase1.datasets[p.dataset].records[p.problem] for p in pairs]
        before, after = [float(value(r)) for r in records0], [float(value(r)) for r in records1]
        comparison = (
            stats.paired_rate([v > 0 for v in before], [v > 0 for v in after])
            if measured.unit is RATE
            else paired_values(before, after, strata=[p.dataset for p in pairs], resamples=resamples, seed=seed)
        )
        spec = RowSpec("pooled", POOLED, name, f"{name} ({NAMES[POOLED]})")
        rows.append(_row(spec, before, after, comparison))
    return rows


def _sampled_rows(phase0: Side, phase1: Side, seed: int, resamples: int) -> list[Row]:
    rows = []
    known = [name for name in NAMES if name != POOLED]
    for name in [*known[:2], POOLED, *known[2:], *(d for d in phase1.datasets if d not in NAMES)]:
        of = POOL if name == POOLED else (name,)
        pairs = [p for d in of for p in _common(phase0.datasets.get(d), phase1.datasets.get(d), "samples")]
        if {p.dataset for p in pairs} != set(of):
            continue
        answers = [
            [list(side.datasets[p.dataset].samples[p.problem].values()) for p in pairs] for side in (phase0, phase1)
        ]
        k = min(len(given) for side in answers for given in side)
        if k < 2:
            continue
        for e in ESTIMATORS:
            before, after = ([e.value(given, k) for given in side] for side in answers)
            most = max(len(given) for side in answers for given in side)
            margin = NO_REGRESSION if name in ("humaneval", "mbpp_reg") and e.name == "avg" else None
            comparison = paired_values(
                before,
                after,
                step=1 / most,
                margin=margin,
                strata=[p.dataset for p in pairs] if len(of) > 1 else None,
                resamples=resamples,
                seed=seed,
            )
            estimator = f"{e.name}@{k}"
            label = f"{estimator} ({NAMES.get(name, name)})"
            spec = RowSpec("samples", name, e.metric, label, margin=margin, estimator=estimator)
            rows.append(_row(spec, before, after, comparison))
    return rows


@dataclass(frozen=True)
class _Pair:
    dataset: str
    problem: str


def _common(a: DatasetResult | None, b: DatasetResult | None, what: str) -> list[_Pair]:
    """The problems of which both sides have `what` (records or samples)."""
    if a is None or b is None:
        return []
    held: list[Mapping[str, object]] = [getattr(a, what), getattr(b, what)]
    return [_Pair(b.dataset, problem) for problem in sorted(held[0].keys() & held[1].keys())]


def _row(spec: RowSpec, before: Sequence[float], after: Sequence[float], comparison: stats.Comparison) -> Row:
    return Row(spec, sum(before) / len(before), sum(after) / len(after), comparison=comparison)
