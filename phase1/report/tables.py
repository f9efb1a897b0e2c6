"""The three tables of the seed's 3.1: every row, its statistics, and how it is written.

The rows stand in one table in the code, SEED_ROWS. Unit, direction and kind of test are those of the row's metric
(METRICS in phase1/evaluate/metrics.py). Values come from both phases' files, tests from the per-problem records where
both phases have them, else from the counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from phase1.contract.own_sets import is_own_name
from phase1.evaluate.metrics import RATE, UNITS, Mean, Metric, Percentile, PerSolved, in_order, metric
from phase1.report import stats
from phase1.report.escaping import markdown_text
from phase1.report.expected import largest_expected
from phase1.report.inputs import DatasetResult, Side, value_of
from phase1.report.silent import SilentRise, of_dataset, silent_rises

VALID, BIG, TEST = "codecontests_valid", "codecontests_valid_big", "codecontests_test"
NO_REGRESSION = 0.02  # humaneval and mbpp_reg may move by this much (seed 3.2)
NONE = "-"
JUDGE_TIMES = ("avg_judge_time", "cost_per_solved_judge_time")


@dataclass(frozen=True)
class RowSpec:
    """A row of the tables.

    Attributes:
        table: quality, errors or cost; pooled or samples beside them (more_rows.py).
        dataset: the data set it looks at.
        metric: the name of a metric.
        label: the first cell.
        expected: what the seed expects of the change, as it stands in the cell.
        bold: whether the label is bold.
        headline: whether the verdict rests on it.
        margin: a change within it, up or down, is no regression; None: that is not asked.
        estimator: what is made of several answers a problem.
    """

    table: str
    dataset: str
    metric: str
    label: str
    expected: str = ""
    bold: bool = False
    headline: bool = False
    margin: float | None = None
    estimator: str = ""  # avg@k, pass@k or exec_success@k, of k answers a problem; "": of the first answer

    @property
    def unit(self) -> str:
        """The name of the metric's unit, a key of UNITS."""
        return metric(self.metric).unit.name

    @property
    def better(self) -> int:
        """+1 where a rise is good, -1 where a fall is, 0 where neither."""
        return metric(self.metric).better


SAME = "≈ (no significant regression)"
SEED_ROWS = (
    RowSpec(
        "quality", VALID, "exec_success_rate", "exec_success_rate (valid)", "↑ +20-40 pp", bold=True, headline=True
    ),
    RowSpec("quality", BIG, "exec_success_rate", "exec_success_rate (valid_big)", "new", bold=True, headline=True),
    RowSpec("quality", TEST, "exec_success_rate", "exec_success_rate (test)", "↑", bold=True, headline=True),
    RowSpec("quality", VALID, "accepted_at_1", "accepted_at_1 (valid)", "↑ small", headline=True),
    RowSpec("quality", TEST, "accepted_at_1", "accepted_at_1 (test)", "↑ small", headline=True),
    RowSpec("quality", VALID, "pass_ratio_mean", "pass_ratio_mean (valid)", "↑", headline=True),
    RowSpec("quality", VALID, "pass_ratio_p50", "pass_ratio_p50 (valid)", "↑"),
    RowSpec("quality", VALID, "pass_ratio_p90", "pass_ratio_p90 (valid)", "↑"),
    RowSpec("quality", "humaneval", "accepted_at_1", "HumanEval pass@1", SAME, headline=True, margin=NO_REGRESSION),
    RowSpec("quality", "mbpp_reg", "accepted_at_1", "MBPP_reg pass@1", SAME, headline=True, margin=NO_REGRESSION),
    RowSpec("errors", VALID, "syntax_error_rate", "syntax_error", "↓ -30-60%", bold=True),
    RowSpec("errors", VALID, "runtime_error_rate", "runtime_error", "↓", bold=True),
    RowSpec("errors", VALID, "timeout_rate", "timeout", "↓", bold=True),
    RowSpec("errors", VALID, "wrong_answer_rate", "wrong_answer", "≈ or ↑"),
    RowSpec("cost", VALID, "avg_gen_tokens", "avg_gen_tokens"),
    RowSpec("cost", VALID, "avg_judge_time", "avg_judge_time"),
    RowSpec("cost", VALID, "throughput", "throughput"),
    RowSpec("cost", VALID, "cost_per_solved_tokens", "cost_per_solved_tokens"),
    RowSpec("cost", VALID, "cost_per_solved_judge_time", "cost_per_solved_judge_time"),
)

# The table of all data sets has every metric with a label: first these (contract 8's columns), then the others.
OVERVIEW_ORDER = (
    "accepted_at_1",
    "exec_success_rate",
    "pass_ratio_mean",
    "syntax_error_rate",
    "runtime_error_rate",
    "timeout_rate",
    "wrong_answer_rate",
    "api_error_rate",
    "unknown_error_rate",
    "truncation_rate",
)


def own_rows(phase0: Side, phase1: Side) -> list[RowSpec]:
    """Two headline rows for each set of one's own that both phases have."""
    own = [name for name in phase1.datasets if name in phase0.datasets and is_own_name(name)]
    return [
        RowSpec("quality", name, metric, f"{metric} ({name})", "new", bold=bold, headline=True)
        for name in own
        for metric, bold in (("exec_success_rate", True), ("accepted_at_1", False))
    ]


@dataclass
class Row:
    """A filled row. Intervals are Wilson's for a rate; `comparison` is None where nothing could be tested."""

    spec: RowSpec
    phase0: float | None
    phase1: float | None
    interval0: tuple[float, float] | None = None
    interval1: tuple[float, float] | None = None
    comparison: stats.Comparison | None = None
    answer: str = NONE
    why: str = ""  # why there is no test, or an unpaired one
    silent: bool = False  # whether programs that print nothing make up the rise

    @property
    def change(self) -> float | None:
        """Phase 1's value less Phase 0's."""
        return None if self.phase0 is None or self.phase1 is None else self.phase1 - self.phase0

    @property
    def gain(self) -> float:
        """The change, positive where it is for the better; 0 where there is none or neither direction is."""
        return (self.change or 0.0) * self.spec.better

    @property
    def relative(self) -> float | None:
        """The change as a share of Phase 0's value."""
        return None if self.change is None or not self.phase0 else self.change / self.phase0

    def as_json(self) -> dict[str, Any]:
        """The row in comparison_data.json."""
        return {
            "table": self.spec.table,
            "dataset": self.spec.dataset,
            "metric": self.spec.metric,
            "label": self.spec.label,
            "unit": self.spec.unit,
            "better": self.spec.better,
            "expected": self.spec.expected,
            "bold": self.spec.bold,
            "headline": self.spec.headline,
            "margin": self.spec.margin,
            "estimator": self.spec.estimator,
            "phase0": self.phase0,
            "phase1": self.phase1,
            "change": self.change,
            "relative_change": self.relative,
            "interval0": self.interval0,
            "interval1": self.interval1,
            "comparison": asdict(self.comparison) if self.comparison else None,
            "answer": self.answer,
            "why": self.why,
            "silent": self.silent,
        }


# ---------------------------------------------------------------------------------------------------------- filling
def fill_rows(phase0: Side, phase1: Side, seed: int = stats.SEED, resamples: int = stats.RESAMPLES) -> list[Row]:
    """Every row of the three tables with its test.

    Holm's correction runs over the quality and error rows together, which ask one question, and over the cost rows
    apart. A comparison without a p is in neither and gets no answer.
    """
    rows = [
        _fill(
            spec=spec,
            a=phase0.datasets.get(spec.dataset),
            b=phase1.datasets.get(spec.dataset),
            seed=seed,
            resamples=resamples,
        )
        for spec in (*SEED_ROWS, *own_rows(phase0, phase1))
    ]
    stats.holm([r.comparison for r in rows if r.spec.table != "cost"])
    stats.holm([r.comparison for r in rows if r.spec.table == "cost"])
    decide(rows, silent_rises(phase0, phase1))
    return rows


def decide(rows: Sequence[Row], rises: Sequence[SilentRise]) -> None:
    """Give each row that has a p its answer. A rise of exec_success_rate by programs that print nothing (`rises`) is a
    rise, and no improvement."""
    for r in rows:
        if r.comparison and r.comparison.p is not None:
            expected = largest_expected(r.spec.dataset, r.spec.metric, r.phase0)
            r.answer = stats.answer(r.comparison, r.spec.better, expected=expected)
        if r.spec.metric == "exec_success_rate" and of_dataset(rises, r.spec.dataset):
            r.silent = True
            if r.answer == stats.IMPROVED:
                r.answer = stats.ROSE


def _fill(spec: RowSpec, a: DatasetResult | None, b: DatasetResult | None, seed: int, resamples: int) -> Row:
    measured = metric(spec.metric)
    x, y = value_of(a, spec.metric), value_of(b, spec.metric)
    row = Row(spec, x, y)
    if measured.unit is RATE:
        row.interval0, row.interval1 = rate_interval(a, spec.metric), rate_interval(b, spec.metric)
    if a is None or b is None or x is None or y is None:
        missing = [name for name, v in (("Phase 0", x), ("Phase 1", y)) if v is None]
        row.why = f"no value in {' and '.join(missing)}"
    elif not isinstance(measured.pooling, Mean | Percentile | PerSolved):
        row.why = "one figure a run: nothing to test"
    elif spec.metric in JUDGE_TIMES and (other := other_load(a, b)):
        row.why = (
            f"not tested: judge time depends on the machine, and {other} differ{'s' if other != 'the workers' else ''}"
        )
    elif a.records and b.records:
        row.comparison, row.why = _paired(measured, spec.margin, a, b, seed=seed, resamples=resamples)
    elif measured.unit is RATE and a.n and b.n:
        row.comparison = stats.unpaired_rate(round(x * a.n), a.n, round(y * b.n), b.n, margin=spec.margin)
        row.why = "unpaired: per-problem records are missing on one side"
    else:
        row.why = "per-problem records are missing on one side, so no test is possible"
    return row


def other_load(a: DatasetResult, b: DatasetResult) -> str:
    """What says that the judge worked under another load on the two sides; "" where nothing does."""
    if a.run is None or b.run is None:
        return ""
    stamps = [run.stamp for run in (a.run, b.run)]
    if stamps[0].host != stamps[1].host:
        return "the host"
    workers = [(s.arguments.get("workers"), s.arguments.get("reserve_cores")) for s in stamps]
    return "the workers" if workers[0] != workers[1] else ""


class Tested(NamedTuple):
    """The test of a row, and why there is none or no p."""

    comparison: stats.Comparison | None
    why: str = ""


def _paired(
    measured: Metric, margin: float | None, a: DatasetResult, b: DatasetResult, *, seed: int, resamples: int
) -> Tested:
    """The test that fits the metric, on the problems that both phases have."""
    common = sorted(a.records.keys() & b.records.keys())
    if not common:
        return Tested(None, "no problem in common")
    records0, records1 = ([side.records[i] for i in common] for side in (a, b))
    match measured.pooling:
        case PerSolved(value):
            cost = stats.paired_cost(
                cost0=[value(r) for r in records0],
                solved0=[r.accepted for r in records0],
                cost1=[value(r) for r in records1],
                solved1=[r.accepted for r in records1],
                resamples=resamples,
                seed=seed,
            )
            return Tested(cost, "" if cost else f"fewer than {stats.MIN_SOLVED} solved on one side")
        case Percentile(value, q):
            before, after = [value(r) for r in records0], [value(r) for r in records1]
            interval = stats.paired_percentile(before, after, q, resamples=resamples, seed=seed)
            return Tested(interval, "a percentile: interval only")
        case Mean(value) if measured.unit is RATE:
            yes0, yes1 = [bool(value(r)) for r in records0], [bool(value(r)) for r in records1]
            return Tested(stats.paired_rate(yes0, yes1, margin))
        case Mean(value):
            before, after = [value(r) for r in records0], [value(r) for r in records1]
            return Tested(stats.paired_mean(before, after, resamples=resamples, seed=seed))
        case _:
            return Tested(None, "one figure a run: nothing to test")


def rate_interval(result: DatasetResult | None, metric: str) -> tuple[float, float] | None:
    """Wilson's interval of a rate of one phase; None where the rate or the number of problems is unknown."""
    value = value_of(result, metric)
    if result is None or value is None or not result.n:
        return None
    return stats.wilson(round(value * result.n), result.n)


# ---------------------------------------------------------------------------------------------------------- writing
def show_value(value: float | None, unit: str) -> str:
    """`65.8%`, `0.143`, `264.0`, `7.69 s`, `0.13 prob/s` by the unit's name; `-` for none."""
    return NONE if value is None else UNITS[unit].show(value)


def show_change(value: float | None, unit: str) -> str:
    """The same of a change: signed, rates in percentage points."""
    return NONE if value is None else UNITS[unit].show_change(value)


def row_change(row: Row) -> str:
    """The change as the row's table shows it: relative for the three error types that should fall, else absolute."""
    if row.change is None:
        return NONE
    if row.spec.table == "errors" and row.spec.better:
        if row.relative is None:
            return "0 on both sides" if row.change == 0 else f"{show_change(row.change, 'rate')} (from 0)"
        return f"{100 * row.relative:+.1f}% relative"
    return show_change(row.change, row.spec.unit)


def row_interval(row: Row) -> str:
    c = row.comparison
    if c is None or c.low is None or c.high is None:
        return NONE
    low, high = show_change(c.low, row.spec.unit), show_change(c.high, row.spec.unit)
    return f"{low.removesuffix(' pp').removesuffix(' prob/s').removesuffix(' s')} to {high}"


def row_answer(row: Row) -> str:
    """The answer with its evidence: what was tested how, with the corrected p."""
    c = row.comparison
    if row.answer == NONE or c is None or c.decisive_p is None:
        return f"{NONE} ({row.why})" if row.why else NONE
    parts = [f"p {show_p(c.decisive_p)}"]
    if reason := holm_reason(row):
        parts.append(reason)
    if c.tost_p is not None and c.margin is not None:
        parts.append(f"equivalence within {100 * c.margin:g} pp: p {show_p(c.tost_p)}")
    if "gained" in c.detail:
        parts.append(f"{c.detail['gained']} up, {c.detail['lost']} down")
    elif "up" in c.detail:
        parts.append(f"{c.detail['up']} up, {c.detail['down']} down")
    if c.mde is not None:
        parts.append(f"finds {show_change(c.mde, row.spec.unit).lstrip('+')} or more")
    if not c.paired:
        parts.append("unpaired")
    if row.silent:
        parts.append("by programs that print or read nothing")
    return f"{row.answer} ({'; '.join(parts)})"


def holm_reason(row: Row) -> str:
    """Why a change beyond noise by itself is none among many rows; "" where that is not so."""
    c = row.comparison
    if c is None or c.p is None or c.decisive_p is None or not c.p < stats.ALPHA <= c.decisive_p:
        return ""
    return f"{show_p(c.p)} by itself, but {c.family} rows are asked together"


def show_p(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


HEADINGS = {"quality": "Quality", "errors": f"Error distribution ({VALID})", "cost": f"Cost ({VALID})"}
MORE_HEADINGS = {"pooled": "More problems: valid and valid_big together", "samples": "More answers a problem"}


def markdown_table(rows: Sequence[Row], table: str) -> str:
    """One of the three tables: the seed's columns, then the interval of the change and the answer."""
    expected = table in ("quality", "errors")
    head = [
        "Metric",
        "Phase 0 (Base)",
        "Phase 1 (SFT)",
        "Change",
        *(["Expected"] if expected else []),
        "95% interval of the change",
        "Answer",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in (r for r in rows if r.spec.table == table):
        label = f"**{r.spec.label}**" if r.spec.bold else r.spec.label
        cells = [
            label,
            show_value(r.phase0, r.spec.unit),
            show_value(r.phase1, r.spec.unit),
            row_change(r),
            *([r.spec.expected] if expected else []),
            row_interval(r),
            row_answer(r),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def overview(phase0: Side, phase1: Side) -> list[dict[str, Any]]:
    """What the table of all data sets shows: of each set its size and, for each metric with a label, a cell of label,
    unit, Phase 0 and Phase 1."""
    names = dict.fromkeys(
        [*(s for s in (VALID, BIG, TEST, "humaneval", "mbpp_reg")), *phase0.datasets, *phase1.datasets]
    )
    shown = [m for m in in_order(OVERVIEW_ORDER) if m.label is not None]
    found: list[dict[str, Any]] = []
    for name in names:
        a, b = phase0.datasets.get(name), phase1.datasets.get(name)
        if a or b:
            cells = [(m.label, m.unit.name, value_of(a, m.name), value_of(b, m.name)) for m in shown]
            found.append(
                {
                    "dataset": name,
                    "n0": a and a.n,
                    "n1": b and b.n,
                    "cells": [c for c in cells if c[2] is not None or c[3] is not None],
                }
            )
    return found


def markdown_overview(sets: Sequence[dict[str, Any]]) -> str:
    """The table of all data sets: a line a metric and data set."""
    lines = ["| Data set | Metric | Phase 0 (Base) | Phase 1 (SFT) | Change |", "|---|---|---|---|---|"]
    for s in sets:
        for label, unit, x, y in s["cells"]:
            change = None if x is None or y is None else y - x
            lines.append(
                f"| {markdown_text(s['dataset'], 60)} | {label} | {show_value(x, unit)} | "
                f"{show_value(y, unit)} | {show_change(change, unit)} |"
            )
    return "\n".join(lines)
