"""The report's plots as inline SVG: text stays text, lines take the page's colour (light, dark, paper), output is
reproducible."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from phase1.evaluate.finished import FinishedEvaluation
from phase1.report.escaping import shown
from phase1.report.evidence import Evidence
from phase1.report.inputs import DatasetResult, value_of
from phase1.report.tables import rate_interval
from phase1.train.step_log import Series, drawable

INK = "#0a0b0c"  # stands for the page's own text colour and is replaced by currentColor
PHASES = (("Phase 0 (base)", "#8593a8"), ("Phase 1 (SFT)", "#2f7fe0"))
ERROR_COLOURS = {
    "success": "#2e9e6b",
    "wrong_answer": "#d9a021",
    "timeout": "#8d6fd1",
    "runtime_error": "#e06c3f",
    "syntax_error": "#c63d5a",
    "other": "#8a8a8a",
}
SHORT = {
    "codecontests_valid": "valid",
    "codecontests_valid_big": "valid_big",
    "codecontests_test": "test",
    "humaneval": "HumanEval",
    "mbpp_reg": "MBPP_reg",
}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
}


def figures(e: Evidence, checkpoints: Sequence[FinishedEvaluation] = ()) -> list[tuple[str, str]]:
    """(caption, SVG) of every plot that the data allows."""
    both = [(n, e.phase0.datasets.get(n), d) for n, d in e.phase1.datasets.items()]
    paired = [(n, a, b) for n, a, b in both if a and a.records and b.records]
    found: list[tuple[str, str]] = []
    with matplotlib.rc_context(STYLE):
        for metric, name in (
            ("exec_success_rate", "Programs that run to the end (exec_success_rate)"),
            ("accepted_at_1", "Problems solved (accepted@1)"),
        ):
            if any(value_of(d, metric) is not None for _, *ab in both for d in ab):
                found.append(
                    (f"{name}, with 95% Wilson intervals", _svg(metric, name, partial(_bars, both=both, metric=metric)))
                )
        if any(d.values.get("wrong_answer_rate") is not None for d in e.phase1.datasets.values()):
            found.append(
                (
                    "How the programs end; upper bar Phase 0, lower bar Phase 1",
                    _svg("errors", "Error types before and after", partial(_errors, both=both)),
                )
            )
        for name, a, b in paired:
            if name.startswith("codecontests"):
                title = f"pass_ratio, {_short(name)}"
                found.append(
                    (
                        f"{title}: share of problems at or below a pass_ratio; lower is better",
                        _svg(
                            f"ratio-{name}",
                            title,
                            partial(_ecdf, a=a, b=b, field="pass_ratio", label="tests passed / tests", log=False),
                        ),
                    )
                )
        main = next(((a, b) for n, a, b in paired if n == "codecontests_valid"), paired[0][1:] if paired else None)
        if main:
            for field, label in (("gen_tokens", "tokens an answer"), ("judge_time", "judge seconds a problem")):
                title = f"{label}, {_short(main[1].dataset)}"
                found.append(
                    (
                        f"{title}: share of problems at or below",
                        _svg(field, title, partial(_ecdf, a=main[0], b=main[1], field=field, label=label, log=True)),
                    )
                )
        for name in dict.fromkeys(d for c in checkpoints for d in c.datasets):
            curve = [c for c in checkpoints if name in c.datasets]
            if len(curve) > 1:
                title, base = f"Over the checkpoints, {_short(name)}", e.phase0.datasets.get(name)
                found.append(
                    (
                        f"{title}; dashed: Phase 0",
                        _svg(f"checkpoints-{name}", title, partial(_checkpoints, curve=curve, name=name, base=base)),
                    )
                )
        if any(k in e.train_log for k in ("train/loss", "val/loss")):
            found.append(
                (
                    "Training and validation loss",
                    _svg(
                        "loss",
                        "Loss",
                        partial(_series, log_data=e.train_log, keys=("train/loss", "val/loss"), log=False),
                    ),
                )
            )
        if "train/grad_norm" in e.train_log:
            found.append(
                (
                    "Gradient norm before clipping",
                    _svg(
                        "grad_norm",
                        "grad_norm",
                        partial(_series, log_data=e.train_log, keys=("train/grad_norm",), log=True),
                    ),
                )
            )
    return found


def _short(dataset: str) -> str:
    return SHORT.get(dataset) or shown(dataset, 24)


# ------------------------------------------------------------------------------------------------------------- plots
def _bars(ax: Axes, both: Sequence[tuple[str, DatasetResult | None, DatasetResult]], metric: str) -> None:
    for k, (label, colour) in enumerate(PHASES):
        named = False
        for x, (_, *pair) in enumerate(both):
            result = pair[k]
            value = value_of(result, metric)
            if value is None:
                continue
            low, high = rate_interval(result, metric) or (value, value)
            at = x + (k - 0.5) * 0.38
            ax.bar(at, 100 * value, 0.36, color=colour, label=None if named else label)
            named = True
            ax.errorbar(
                at,
                100 * value,
                yerr=[[100 * max(0, value - low)], [100 * max(0, high - value)]],
                color=INK,
                capsize=2.5,
                linewidth=0.9,
            )
            ax.text(at, 100 * high + 1.5, f"{100 * value:.0f}", ha="center", fontsize=7.5)
    ax.set_xticks(range(len(both)), [_short(n) for n, *_ in both])
    ax.set_ylim(0, 112)
    ax.set_yticks(range(0, 101, 20))
    ax.set_ylabel("%")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2)


def _errors(ax: Axes, both: Sequence[tuple[str, DatasetResult | None, DatasetResult]]) -> None:
    labelled = set()
    for y, (_, *pair) in enumerate(both):
        for k, result in enumerate(pair):
            if not result:
                continue
            v = {t: result.values.get("accepted_at_1" if t == "success" else f"{t}_rate") or 0.0 for t in ERROR_COLOURS}
            v["other"] = max(0.0, 1 - sum(v.values())) if result.values.get("wrong_answer_rate") is not None else 0.0
            left = 0.0
            for t, colour in ERROR_COLOURS.items():
                ax.barh(
                    y + (k - 0.5) * 0.4,
                    100 * v[t],
                    0.36,
                    left=left,
                    color=colour,
                    label=None if t in labelled else t.replace("_", " "),
                )
                labelled.add(t)
                left += 100 * v[t]
    ax.set_yticks(range(len(both)), [_short(n) for n, *_ in both])
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("% of problems")
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), ncol=3)


def _ecdf(ax: Axes, a: DatasetResult, b: DatasetResult, field: str, label: str, log: bool) -> None:
    for result, (name, colour) in zip((a, b), PHASES, strict=True):
        values = np.sort([getattr(r, field) for r in result.records.values()])
        if log:
            values = np.maximum(values, 1e-3)
        ax.step(
            np.concatenate([values[:1], values]),
            100 * np.arange(len(values) + 1) / len(values),
            where="post",
            color=colour,
            label=name,
        )
    if log:
        ax.set_xscale("log")
        plain_labels(ax.xaxis)
    ax.set_ylim(0, 101)
    ax.set_xlabel(label)
    ax.set_ylabel("% of problems")
    ax.legend(loc="best")


def _checkpoints(ax: Axes, curve: Sequence[FinishedEvaluation], name: str, base: DatasetResult | None) -> None:
    for metric, colour in (
        ("exec_success_rate", "#2f7fe0"),
        ("accepted_at_1", "#2e9e6b"),
        ("pass_ratio_mean", "#d9a021"),
        ("silent_rate", "#c4453c"),
        ("unread_rate", "#8a5fbf"),
    ):
        values = [(c.step, c.metric(name, metric)) for c in curve]
        points = [(step, 100 * value) for step, value in values if value is not None]
        if points:
            ax.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=3.5,
                color=colour,
                label=metric,
            )
        if (before := value_of(base, metric)) is not None:
            ax.axhline(100 * before, color=colour, linewidth=0.8, linestyle="--")
    ax.set_ylim(-2, 102)
    ax.set_xlabel("step")
    whole_steps(ax)
    ax.set_ylabel("%")
    ax.legend(loc="upper center", bbox_to_anchor=(0.42, -0.18), ncol=2, columnspacing=1, handlelength=1.4)


def _series(ax: Axes, log_data: Series, keys: Sequence[str], log: bool) -> None:
    for key, colour in zip(keys, ("#2f7fe0", "#e06c3f"), strict=False):
        points = drawable(log_data, key, log_scale=log)
        if points:
            ax.plot(
                *zip(*points, strict=True),
                color=colour,
                label=key,
                marker="o" if len(points) < 30 else None,
                markersize=3,
            )
    if log:
        ax.set_yscale("log")
        plain_labels(ax.yaxis)
    ax.set_ylabel("loss" if "loss" in keys[0] else keys[0].removeprefix("train/"))
    ax.set_xlabel("step")
    whole_steps(ax)
    ax.legend(loc="upper right")


def whole_steps(ax: Axes) -> None:
    """Marks of the steps' axis at whole numbers only, also where there are few steps."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain_labels(axis: Axis) -> None:
    """Labels 0.1, 1, 2, 5, 10 on a log axis: powers of ten would need mathtext, which data must never reach."""
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


# --------------------------------------------------------------------------------------------------------------- SVG
def _svg(name: str, title: str, draw: Callable[[Axes], None]) -> str:
    fig = Figure(figsize=(4.7, 3.3))  # no pyplot: no global state, no display
    ax = fig.add_axes(
        (0.17, 0.24, 0.8, 0.66)
    )  # room for long tick labels and a legend below; a layout engine costs more time than all plots
    ax.set_title(title)
    draw(ax)
    return to_svg(fig, name, title)


def to_svg(fig: Figure, name: str, title: str) -> str:
    """The figure as an <svg> element that scales to its column; ids carry `name`, so that several stand in one page."""
    name = re.sub(r"[^\w-]", "-", name)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        fig.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    label = re.sub(r"[<>&\"]", " ", title)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
