"""The three tables of the seed's 3.1: every row, its unit, its direction, its statistics, and how each is written.

The rows stand in one table in the code, SEED_ROWS; values come from both phases' files, tests from the per-problem
records where both phases have them, else from the counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phase1.contract.records import EXEC_SUCCESS, Record
from phase1.report import stats
from phase1.report.inputs import DatasetResult, Side, value_of
from phase1.report.text import markdown_text

VALID, BIG, TEST = "codecontests_valid", "codecontests_valid_big", "codecontests_test"
NO_REGRESSION = 0.02  # humaneval and mbpp_reg may move by this much (seed 3.2)
NONE = "-"


@dataclass(frozen=True)
class RowSpec:
    """A row: `better` is +1 (up is good), -1 (down is good) or 0; `unit` rate, ratio, tokens, s or prob/s."""

    table: str  # quality, errors, cost
    dataset: str
    metric: str
    label: str
    unit: str
    better: int
    expected: str = ""
    bold: bool = False
    headline: bool = False  # the verdict rests on it
    margin: float | None = None  # no regression beyond this


SEED_ROWS = (
    RowSpec(
        "quality",
        VALID,
        "exec_success_rate",
        "exec_success_rate (valid)",
        "rate",
        +1,
        "↑ +20-40 pp",
        bold=True,
        headline=True,
    ),
    RowSpec(
        "quality",
        BIG,
        "exec_success_rate",
        "exec_success_rate (valid_big)",
        "rate",
        +1,
        "new",
        bold=True,
        headline=True,
    ),
    RowSpec(
        "quality", TEST, "exec_success_rate", "exec_success_rate (test)", "rate", +1, "↑", bold=True, headline=True
    ),
    RowSpec("quality", VALID, "accepted_at_1", "accepted_at_1 (valid)", "rate", +1, "↑ small", headline=True),
    RowSpec("quality", TEST, "accepted_at_1", "accepted_at_1 (test)", "rate", +1, "↑ small", headline=True),
    RowSpec("quality", VALID, "pass_ratio_mean", "pass_ratio_mean (valid)", "ratio", +1, "↑", headline=True),
    RowSpec("quality", VALID, "pass_ratio_p50", "pass_ratio_p50 (valid)", "ratio", +1, "↑"),
    RowSpec("quality", VALID, "pass_ratio_p90", "pass_ratio_p90 (valid)", "ratio", +1, "↑"),
    RowSpec(
        "quality",
        "humaneval",
        "accepted_at_1",
        "HumanEval pass@1",
        "rate",
        +1,
        "≈ (no significant regression)",
        headline=True,
        margin=NO_REGRESSION,
    ),
    RowSpec(
        "quality",
        "mbpp_reg",
        "accepted_at_1",
        "MBPP_reg pass@1",
        "rate",
        +1,
        "≈ (no significant regression)",
        headline=True,
        margin=NO_REGRESSION,
    ),
    RowSpec("errors", VALID, "syntax_error_rate", "syntax_error", "rate", -1, "↓ -30-60%", bold=True),
    RowSpec("errors", VALID, "runtime_error_rate", "runtime_error", "rate", -1, "↓", bold=True),
    RowSpec("errors", VALID, "timeout_rate", "timeout", "rate", -1, "↓", bold=True),
    RowSpec("errors", VALID, "wrong_answer_rate", "wrong_answer", "rate", 0, "≈ or ↑"),
    RowSpec("cost", VALID, "avg_gen_tokens", "avg_gen_tokens", "tokens", 0),
    RowSpec("cost", VALID, "avg_judge_time", "avg_judge_time", "s", -1),
    RowSpec("cost", VALID, "throughput", "throughput", "prob/s", +1),
    RowSpec("cost", VALID, "cost_per_solved_tokens", "cost_per_solved_tokens", "tokens", -1),
    RowSpec("cost", VALID, "cost_per_solved_judge_time", "cost_per_solved_judge_time", "s", -1),
)

# The table of all data sets: contract 8's columns and what the reader needs beside them.
OVERVIEW = (
    ("accepted_at_1", "accepted@1", "rate"),
    ("exec_success_rate", "exec_success", "rate"),
    ("pass_ratio_mean", "pass_ratio", "ratio"),
    ("syntax_error_rate", "syntax", "rate"),
    ("runtime_error_rate", "runtime", "rate"),
    ("timeout_rate", "timeout", "rate"),
    ("wrong_answer_rate", "wrong answer", "rate"),
    ("api_error_rate", "api error", "rate"),
    ("unknown_error_rate", "unknown", "rate"),
    ("truncation_rate", "truncated", "rate"),
    ("avg_gen_tokens", "tokens", "tokens"),
    ("avg_judge_time", "judge time", "s"),
    ("throughput", "throughput", "prob/s"),
    ("cost_per_solved_tokens", "tokens a solved one", "tokens"),
    ("cost_per_solved_judge_time", "judge time a solved one", "s"),
)


def _ended_as(error_type: str) -> Callable[[Record], bool]:
    return lambda r: r.error_type == error_type


# What one record says of a metric; a rate is a mean of these.
PER_RECORD: dict[str, Callable[[Record], Any]] = {
    "accepted_at_1": lambda r: bool(r.accepted),
    "exec_success_rate": lambda r: r.error_type in EXEC_SUCCESS,
    **{f"{e}_rate": _ended_as(e) for e in ("syntax_error", "runtime_error", "timeout", "wrong_answer")},
    "pass_ratio_mean": lambda r: r.pass_ratio,
    "pass_ratio_p50": lambda r: r.pass_ratio,
    "pass_ratio_p90": lambda r: r.pass_ratio,
    "avg_gen_tokens": lambda r: r.gen_tokens,
    "avg_judge_time": lambda r: r.judge_time,
    "cost_per_solved_tokens": lambda r: r.gen_tokens,
    "cost_per_solved_judge_time": lambda r: r.judge_time,
}


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

    @property
    def change(self) -> float | None:
        return None if self.phase0 is None or self.phase1 is None else self.phase1 - self.phase0

    @property
    def gain(self) -> float:
        """The change, positive where it is for the better; 0 where there is none or neither direction is."""
        return (self.change or 0.0) * self.spec.better

    @property
    def relative(self) -> float | None:
        return None if self.change is None or not self.phase0 else self.change / self.phase0

    def as_json(self) -> dict[str, Any]:
        comparison = asdict(self.comparison) if self.comparison else None
        return {
            **asdict(self.spec),
            "phase0": self.phase0,
            "phase1": self.phase1,
            "change": self.change,
            "relative_change": self.relative,
            "interval0": self.interval0,
            "interval1": self.interval1,
            "comparison": comparison,
            "answer": self.answer,
            "why": self.why,
        }


# ---------------------------------------------------------------------------------------------------------- filling
def fill_rows(phase0: Side, phase1: Side, seed: int = stats.SEED, resamples: int = stats.RESAMPLES) -> list[Row]:
    """Every row of the three tables with its test. Holm's correction runs over the quality and error rows together,
    which ask one question, and over the cost rows apart; a comparison without a p is in neither and gets no answer."""
    rows = [
        _fill(spec, phase0.datasets.get(spec.dataset), phase1.datasets.get(spec.dataset), seed, resamples)
        for spec in SEED_ROWS
    ]
    stats.holm([r.comparison for r in rows if r.spec.table != "cost"])
    stats.holm([r.comparison for r in rows if r.spec.table == "cost"])
    for r in rows:
        if r.comparison and r.comparison.p is not None:
            r.answer = stats.answer(r.comparison, r.spec.better)
    return rows


def _fill(spec: RowSpec, a: DatasetResult | None, b: DatasetResult | None, seed: int, resamples: int) -> Row:
    x, y = value_of(a, spec.metric), value_of(b, spec.metric)
    row = Row(spec, x, y)
    if spec.unit == "rate":
        row.interval0, row.interval1 = rate_interval(a, spec.metric), rate_interval(b, spec.metric)
    if a is None or b is None or x is None or y is None:
        missing = [name for name, v in (("Phase 0", x), ("Phase 1", y)) if v is None]
        row.why = f"no value in {' and '.join(missing)}"
    elif spec.metric not in PER_RECORD:
        row.why = "one figure a run: nothing to test"
    elif a.records and b.records:
        row.comparison, row.why = _paired(spec, a, b, seed, resamples)
    elif spec.unit == "rate" and a.n and b.n:
        row.comparison = stats.unpaired_rate(round(x * a.n), a.n, round(y * b.n), b.n, spec.margin)
        row.why = "unpaired: per-problem records are missing on one side"
    else:
        row.why = "per-problem records are missing on one side, so no test is possible"
    return row


def _paired(
    spec: RowSpec, a: DatasetResult, b: DatasetResult, seed: int, resamples: int
) -> tuple[stats.Comparison | None, str]:
    pairs = [(a.records[i], b.records[i]) for i in sorted(a.records.keys() & b.records.keys())]
    if not pairs:
        return None, "no problem in common"
    value = PER_RECORD[spec.metric]
    before, after = [value(x) for x, _ in pairs], [value(y) for _, y in pairs]
    options = {"seed": seed, "resamples": resamples}
    if spec.unit == "rate":
        return stats.paired_rate(before, after, spec.margin), ""
    if spec.metric.startswith("cost_per_solved"):
        cost = stats.paired_cost(
            before, [x.accepted for x, _ in pairs], after, [y.accepted for _, y in pairs], **options
        )
        return cost, "" if cost else f"fewer than {stats.MIN_SOLVED} solved on one side"
    if spec.metric.endswith(("_p50", "_p90")):
        return stats.paired_percentile(before, after, float(spec.metric[-2:]), **options), "a percentile: interval only"
    return stats.paired_mean(before, after, **options), ""


def rate_interval(result: DatasetResult | None, metric: str) -> tuple[float, float] | None:
    """Wilson's interval of a rate of one phase; None where the rate or the number of problems is unknown."""
    value = value_of(result, metric)
    if result is None or value is None or not result.n:
        return None
    return stats.wilson(round(value * result.n), result.n)


# ---------------------------------------------------------------------------------------------------------- writing
def show_value(value: float | None, unit: str) -> str:
    """`65.8%`, `0.143`, `264.0`, `7.69 s`, `0.13 prob/s`; `-` for none."""
    if value is None:
        return NONE
    return {
        "rate": f"{100 * value:.1f}%",
        "ratio": f"{value:.3f}",
        "tokens": f"{value:.1f}",
        "s": f"{value:.2f} s",
        "prob/s": f"{value:.2f} prob/s",
    }[unit]


def show_change(value: float | None, unit: str) -> str:
    """The same, signed: rates in percentage points."""
    if value is None:
        return NONE
    value = value or 0.0  # no -0.0
    return {
        "rate": f"{100 * value:+.1f} pp",
        "ratio": f"{value:+.3f}",
        "tokens": f"{value:+.1f}",
        "s": f"{value:+.2f} s",
        "prob/s": f"{value:+.2f} prob/s",
    }[unit]


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
    if c.tost_p is not None and c.margin is not None:
        parts.append(f"equivalence within {100 * c.margin:g} pp: p {show_p(c.tost_p)}")
    if "gained" in c.detail:
        parts.append(f"{c.detail['gained']} up, {c.detail['lost']} down")
    if not c.paired:
        parts.append("unpaired")
    return f"{row.answer} ({'; '.join(parts)})"


def show_p(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


HEADINGS = {"quality": "Quality", "errors": f"Error distribution ({VALID})", "cost": f"Cost ({VALID})"}


def markdown_table(rows: Sequence[Row], table: str) -> str:
    """One of the three tables: the seed's columns, then the interval of the change and the answer."""
    expected = table != "cost"
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
    """Per data set: its size and, for each metric of OVERVIEW, (label, unit, phase0, phase1), for the table of all data
    sets."""
    names = dict.fromkeys(
        [*(s for s in (VALID, BIG, TEST, "humaneval", "mbpp_reg")), *phase0.datasets, *phase1.datasets]
    )
    found = []
    for name in names:
        a, b = phase0.datasets.get(name), phase1.datasets.get(name)
        if a or b:
            cells = [(label, unit, a and a.values.get(m), b and b.values.get(m)) for m, label, unit in OVERVIEW]
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
