"""runs.html, runs.md and what the terminal shows of any number of runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phase1.evaluate.metrics import RATE, metric
from phase1.report.escaping import markdown_text, shown
from phase1.report.figures import INK, STYLE, to_svg, whole_steps
from phase1.report.runs import Run, Runs
from phase1.report.stats import Comparison, wilson
from phase1.report.tables import NONE, row_answer, row_interval, show_change, show_value
from phase1.report.templating import page_environment

COLOUR = "#2f7fe0"
WIDTH = 80  # columns of a terminal


def headline(runs: Runs) -> str:
    """The line that opens every output: which runs got better or worse than the base on which rows."""
    counts = []
    for answer in ("improved", "worse"):
        names = [r.name for r in runs.runs if any(row.answer == answer for row in r.rows.values())]
        counts.append(f"{len(names)} {answer}" + (f" ({', '.join(names[:5])})" if names else ""))
    others = len(runs.runs) - 1
    wrong = [r.name for r in runs.runs if r.mismatches]
    end = f"; NOT COMPARABLE: {', '.join(wrong[:5])}" if wrong else ""
    return f"{others} runs against {runs.base.name}: {'; '.join(counts)} on some row{end}"


def terminal(runs: Runs) -> str:
    """A block a row of the table, a line a run, at most 80 columns; * marks the best value."""
    lines = [shown(headline(runs), 2000), ""]
    wide = min(24, max(len(shown(r.name, 24)) for r in runs.runs))
    for label in runs.labels:
        unit = runs.row(label).spec.unit
        lines.append(shown(label, WIDTH))
        for r in runs.runs:
            star = "*" if r.name in runs.best[label] else " "
            text = f" {star} {shown(r.name, 24):<{wide}} {show_value(runs.value(r, label), unit):>8}"
            row = r.rows.get(label)
            if row is not None:
                text += f" {show_change(row.change, unit):>10}  {row.answer}"
            lines.append(text.rstrip()[:WIDTH])
    return "\n".join(lines) + "\n"


def markdown_runs(data: Mapping[str, Any], runs: Runs) -> str:
    """runs.md."""
    head = ["Row", *(markdown_text(r.name, 40) + (" (base)" if r is runs.base else "") for r in runs.runs)]
    lines = [f"**{markdown_text(headline(runs), 2000)}**", ""]
    lines += [
        f"- {markdown_text(r.name, 40)}: NOT COMPARABLE: {markdown_text(m, 600)}"
        for r in runs.runs
        for m in r.mismatches
    ]
    lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for label in runs.labels:
        cells = [markdown_text(label, 60), *(_markdown_cell(runs, r, label) for r in runs.runs)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "The best value of a row is bold. " + str(data["method"]), ""])


def _markdown_cell(runs: Runs, run: Run, label: str) -> str:
    value = show_value(runs.value(run, label), runs.row(label).spec.unit)
    text = f"**{value}**" if run.name in runs.best[label] else value
    row = run.rows.get(label)
    if row is None or row.change is None:
        return text
    within = f" [{row_interval(row)}]" if row_interval(row) != NONE else ""
    return f"{text} ({show_change(row.change, row.spec.unit)}{within}): {row.answer}"


def runs_html(data: Mapping[str, Any], runs: Runs) -> str:
    """The page: the table, then the curves over the steps."""
    table = [{"label": label, "cells": [_cell(runs, run, label) for run in runs.runs]} for label in runs.labels]
    page: str = (
        page_environment()
        .get_template("runs.html")
        .render(
            data=data,
            headline=headline(runs),
            names=[(r.name, r is runs.base, r.step) for r in runs.runs],
            wrong=[r for r in runs.runs if r.mismatches],
            table=table,
            figures=[(caption, Markup(svg)) for caption, svg in curves(runs)],
        )
    )
    return page


def _cell(runs: Runs, run: Run, label: str) -> dict[str, Any]:
    unit, row = runs.row(label).spec.unit, run.rows.get(label)
    compared = row is not None and row.change is not None
    return {
        "value": show_value(runs.value(run, label), unit),
        "best": run.name in runs.best[label],
        "change": show_change(row.change, unit) if compared and row else "",
        "interval": row_interval(row) if compared and row else NONE,
        "answer": row.answer if compared and row else "",
        "evidence": row_answer(row).removeprefix(row.answer).strip(" ()") if compared and row else "",
    }


# ------------------------------------------------------------------------------------------------------------ curves
def curves(runs: Runs) -> list[tuple[str, str]]:
    """(caption, SVG) of each row that two runs with a step have."""
    found = []
    with matplotlib.rc_context(STYLE):
        for i, label in enumerate(runs.labels):
            points = [
                r for r in runs.runs if r is not runs.base and r.step is not None and runs.value(r, label) is not None
            ]
            if len({r.step for r in points}) > 1:
                figure = Figure(figsize=(4.7, 3.0))
                partial(_curve, runs=runs, label=label, points=points)(figure.add_axes((0.15, 0.17, 0.82, 0.72)))
                caption = f"{label} with 95% intervals; dashed: {runs.base.name}"
                found.append((caption, to_svg(figure, f"curve-{i}", label)))
    return found


def _curve(ax: Axes, runs: Runs, label: str, points: list[Run]) -> None:
    spec, ordered = runs.row(label).spec, sorted(points, key=lambda r: r.step or 0)
    scale = metric(spec.metric).unit.scale
    for r in ordered:
        value = runs.value(r, label)
        assert value is not None
        low, high = _interval(
            r.rows[label].comparison, runs.value(runs.base, label), value, spec.metric, spec.estimator
        )
        bars = [[scale * max(0.0, value - low)], [scale * max(0.0, high - value)]]
        ax.errorbar([r.step or 0], [scale * value], yerr=bars, color=INK, capsize=2.5, linewidth=0.9)
    values = [scale * (runs.value(r, label) or 0.0) for r in ordered]
    ax.plot([r.step or 0 for r in ordered], values, marker="o", markersize=3.5, color=COLOUR)
    base = runs.value(runs.base, label)
    if base is not None:
        ax.axhline(scale * base, color=COLOUR, linewidth=0.8, linestyle="--")
    ax.set_title(shown(label, 60))
    ax.set_xlabel("step")
    ax.set_ylabel("%" if scale == 100 else "")
    whole_steps(ax)


def _interval(c: Comparison | None, base: float | None, value: float, name: str, estimator: str) -> tuple[float, float]:
    """Wilson's of one answer's rate; else that of the change, set upon the base's value."""
    if c is not None and metric(name).unit is RATE and not estimator:
        return wilson(round(value * c.n), c.n) or (value, value)
    if c is None or c.low is None or c.high is None or base is None:
        return value, value
    return base + c.low, base + c.high
