"""outputs/status.html: the table of the steps with curves, in one file without network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from phase1.checkpoints.early_warning import REGRESSIONS, read_regressions
from phase1.checkpoints.rates import ACCEPTED, EXEC_SUCCESS_RATE, MBPP_ACCEPTED, SILENT, Rate
from phase1.checkpoints.status import COLUMNS, LEFT_ALIGNED, Status
from phase1.contract.state import best_checkpoint
from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.files import BadInput, now, write_text
from phase1.report.figures import STYLE, plain_labels, to_svg, whole_steps
from phase1.report.inputs import DatasetResult, read_side, value_of
from phase1.report.templating import page_environment
from phase1.train.step_log import Point, drawable


@dataclass(frozen=True)
class Line:
    """A line of a plot. `source`: a rate of the evaluations, or a key of the training logs."""

    label: str
    colour: str
    source: Rate | str


@dataclass(frozen=True)
class Plot:
    """A plot over the steps. `unit`: "%" for shares, "log" for a logarithmic axis, else empty."""

    title: str
    lines: tuple[Line, ...]
    unit: str = ""


PLOTS = (
    Plot(
        "exec_success_rate and accepted@1, codecontests_valid",
        (
            Line("exec_success_rate", "#2f7fe0", EXEC_SUCCESS_RATE),
            Line("accepted@1", "#2e9e6b", ACCEPTED),
            Line("prints nothing", "#c4453c", SILENT),
        ),
        "%",
    ),
    Plot("MBPP (mbpp_reg accepted@1)", (Line("MBPP", "#8d6fd1", MBPP_ACCEPTED),), "%"),
    Plot("val/loss", (Line("val/loss", "#e06c3f", "val/loss"),)),
    Plot("grad_norm before clipping", (Line("train/grad_norm", "#2f7fe0", "train/grad_norm"),), "log"),
)


def write_status_page(status: Status) -> Path:
    """Write status.html into the output directory and return its path; it reloads itself every five minutes.

    Raises:
        BadInput: best_checkpoint.json lacks the rate of the best step or of the runner-up.
    """
    best = status.best
    rates = [best.best_exec_success_rate] if best else []
    if best and best.runner_up:
        rates.append(best.runner_up.exec_success_rate)
    if None in rates:
        raise BadInput(
            f"{status.output_dir / best_checkpoint.NAME}: an exec_success_rate is missing; a pass of "
            "run_eval_checkpoints.sh writes the file anew"
        )
    base = base_of(status.output_dir)
    figures = [(plot.title, draw(plot, status, base)) for plot in PLOTS]
    page = (
        page_environment()
        .get_template("status.html")
        .render(
            columns=COLUMNS,
            left=LEFT_ALIGNED,
            rows=[(row.best, row.cells()) for row in status.rows],
            figures=[(title, Markup(svg)) for title, svg in figures if svg],
            best=best,
            below=below_base(best, base),
            dashed=bool(base),
            kept=next((row.kept for row in status.rows if best and row.step == best.best_step), ""),
            latest=status.latest,
            checkpoint_dir=status.checkpoint_dir,
            time=now(),
        )
    )
    write_text(status.output_dir / "status.html", page)
    return status.output_dir / "status.html"


def base_of(output_dir: Path) -> dict[str, DatasetResult]:
    """Phase 0's data sets, where a pass compared the checkpoints with it (--phase0_metrics) and its files are there."""
    said = read_regressions(output_dir / REGRESSIONS)
    if not said:
        return {}
    newest = max(said.values(), key=lambda entry: entry.time)
    try:
        return read_side("Phase 0", [newest.phase0_metrics]).datasets
    except BadInput:
        return {}  # it was moved since: the page is about the checkpoints


def below_base(best: BestCheckpoint | None, base: Mapping[str, DatasetResult]) -> str:
    """A sentence where the best checkpoint's rate is lower than Phase 0's; "" where it is not, or not known."""
    before = value_of(base.get(EXEC_SUCCESS_RATE.dataset), EXEC_SUCCESS_RATE.metric)
    after = best.best_exec_success_rate if best else None
    if before is None or after is None or after >= before:
        return ""
    return f"Even the best is below Phase 0, which has {100 * before:.1f}%."


def draw(plot: Plot, status: Status, base: Mapping[str, DatasetResult]) -> str:
    """The plot as SVG, empty where there is nothing to draw; dashed: Phase 0, where `base` has it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.7, 3.0))
        axes = figure.add_axes((0.14, 0.17, 0.83, 0.72))
        for line in plot.lines:
            points = points_of(line, plot.unit, status)
            if points:
                axes.plot(
                    [step for step, _ in points],
                    [value for _, value in points],
                    color=line.colour,
                    label=line.label,
                    marker="o" if len(points) < 30 else None,
                    markersize=3,
                )
        if not axes.lines:
            return ""
        for line in plot.lines:
            before = (
                None if isinstance(line.source, str) else value_of(base.get(line.source.dataset), line.source.metric)
            )
            if before is not None:
                axes.axhline(100 * before, color=line.colour, linewidth=0.8, linestyle="--", label="_phase0")
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        whole_steps(axes)
        if plot.unit == "%":
            axes.set_ylim(-2, 102)
            axes.set_ylabel("%")
        elif plot.unit == "log":
            axes.set_yscale("log")
            plain_labels(axes.yaxis)
        if len(plot.lines) > 1:
            axes.legend(loc="lower right")
        return to_svg(figure, plot.title.split()[0].replace("/", "-"), plot.title)


def points_of(line: Line, unit: str, status: Status) -> list[Point]:
    """The points of a line as they are drawn."""
    if isinstance(line.source, str):
        return drawable(status.series, line.source, log_scale=unit == "log")
    factor = 100 if unit == "%" else 1
    rates = [(row.step, row.rate(line.source)) for row in status.rows]
    return [Point(step, factor * rate) for step, rate in rates if rate is not None]
