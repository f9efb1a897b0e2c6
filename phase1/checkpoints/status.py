"""A row a step: what training left, what evaluation says, which is the best, what is kept; and outputs/status.html with
the curves."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from phase1.checkpoints.choose import SELECTION_SET, evaluated_steps, ranking
from phase1.checkpoints.find import find_checkpoints, read_tracker, snapshot
from phase1.checkpoints.keep import kept_folder, kept_model
from phase1.contract.problems import EVAL_SETS
from phase1.files import BadInput, now, read_json, write_text
from phase1.report import stats
from phase1.train.step_log import Series, drawable, read_train_log

# What a phone shows without scrolling comes first.
COLUMNS = (
    "step",
    "best",
    "exec_success",
    "accepted@1",
    "MBPP",
    "val/loss",
    "95% interval",
    "evaluation",
    "kept",
    "checkpoint",
    "GB",
)
LEFT = ("evaluation", "kept", "checkpoint")
BEST_SHOWN = {
    "best_step",
    "best_exec_success_rate",
    "interval",
    "problems",
    "runner_up",
    "model_path",
}  # of best_checkpoint.json, by the template
# The page's curves: title, the series in it as (label, colour, where it comes from), unit.
CURVES = (
    (
        "exec_success_rate and accepted@1, codecontests_valid",
        (
            ("exec_success_rate", "#2f7fe0", (SELECTION_SET, "exec_success_rate")),
            ("accepted@1", "#2e9e6b", (SELECTION_SET, "accepted_at_1")),
        ),
        "%",
    ),
    ("MBPP (mbpp_reg accepted@1)", (("MBPP", "#8d6fd1", ("mbpp_reg", "accepted_at_1")),), "%"),
    ("val/loss", (("val/loss", "#e06c3f", "val/loss"),), ""),
    ("grad_norm before clipping", (("train/grad_norm", "#2f7fe0", "train/grad_norm"),), "log"),
)


@dataclass
class Row:
    """What is known of one step."""

    step: int
    checkpoint: str = "gone"
    size: int | None = None  # bytes on disk
    evaluation: str = "-"
    summary: dict[str, Any] = field(default_factory=dict)  # by data set
    val_loss: float | None = None
    kept: str = ""
    best: bool = False

    def rate(self, dataset: str, metric: str) -> float | None:
        return self.summary.get(dataset, {}).get(metric)

    def cells(self) -> list[str]:
        """The row as text, in the order of COLUMNS."""
        rate, n = self.rate(SELECTION_SET, "exec_success_rate"), self.rate(SELECTION_SET, "total_problems")
        low_high = stats.wilson(round(rate * n), int(n)) if rate is not None and n else None
        return [
            str(self.step),
            "*" * self.best,
            percent(rate),
            percent(self.rate(SELECTION_SET, "accepted_at_1")),
            percent(self.rate("mbpp_reg", "accepted_at_1")),
            "-" if self.val_loss is None else f"{self.val_loss:.3g}",
            f"{percent(low_high[0])} to {percent(low_high[1])}" if low_high else "-",
            self.evaluation,
            self.kept,
            self.checkpoint,
            "-" if self.size is None else f"{self.size / 1e9:.2f}",
        ]


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


# ----------------------------------------------------------------------------------------------------------- reading
def status_rows(args: argparse.Namespace) -> list[Row]:
    """A row for every step that is on disk, evaluated, attempted or kept; safe to read while a pass is at work."""
    from phase1.checkpoints.attempts import Attempts

    rows: dict[int, Row] = {}
    for c in find_checkpoints(args.checkpoint_dir):
        state = c.problem or ("whole, to be converted" if c.convert else "whole")
        rows[c.step] = Row(c.step, state, sum(size for size, _ in snapshot(c.path).values()))
    evaluated, attempts = evaluated_steps(args.output_dir), Attempts(args.output_dir)
    for step, summary in evaluated.items():
        row = rows.setdefault(step, Row(step))
        row.summary = {d: v for d, v in summary["datasets"].items() if isinstance(v, dict)}
        row.evaluation = "complete"
    for attempt in attempts.rows:
        row = rows.setdefault(attempt["step"], Row(attempt["step"]))
        if row.evaluation != "complete" and (attempt["exit_code"] or attempt["exit_code"] is None):
            row.evaluation = "begun" if attempt["exit_code"] is None else f"failed: {attempt['error']}"
    rates, left_out = ranking(evaluated)
    losses = dict(training_series(args).get("val/loss", []))
    for step, row in rows.items():
        row.val_loss, row.best = losses.get(step), bool(rates) and step == next(iter(rates))
        if step in left_out:
            row.evaluation = "complete, measured otherwise"
        row.kept = how_kept(args.output_dir, step)
    return [rows[s] for s in sorted(rows)]


def how_kept(output_dir: Path, step: int) -> str:
    """How a step's model is kept, empty when it is not; a pass may take it away while we look."""
    whole = kept_model(output_dir, step)
    try:
        return (
            read_json(kept_folder(output_dir, step) / "kept.json")["how"]
            if whole
            else "CHANGED since it was kept"
            if kept_folder(output_dir, step).is_dir()
            else ""
        )
    except (BadInput, KeyError, TypeError):
        return ""


def training_series(args: argparse.Namespace) -> Series:
    """val/loss, train/grad_norm, … of the training logs: --train_log, else outputs/logs/sft_*.log."""
    logs = f"{glob.escape(str(args.output_dir))}/logs/sft_*.log"
    paths = getattr(args, "train_log", None) or sorted(glob.glob(logs))
    return read_train_log([Path(path) for path in paths], skip_empty=True)


# ----------------------------------------------------------------------------------------------------------- showing
def status_table(rows: Sequence[Row]) -> Table:
    table = Table()
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in LEFT else "right", overflow="fold")
    for row in rows:
        table.add_row(*row.cells())
    return table


def base_against_best(phase0_metrics: Path, phase1_metrics: Path) -> Table:
    """A row a data set: the base model's rates and the chosen checkpoint's, from each file and the summary.json beside
    it."""
    from phase1.report.inputs import read_side, value_of

    base, best = (
        read_side(label, [path]).datasets for label, path in (("Phase 0", phase0_metrics), ("Phase 1", phase1_metrics))
    )
    table = Table(title="base -> SFT", title_justify="left")
    for column in ("data set", "problems", "exec_success", "accepted@1", "syntax_error"):
        table.add_column(column, justify="left" if column == "data set" else "right")
    for name in [s for s in EVAL_SETS if s in base and s in best]:
        change = [
            f"{percent(value_of(base[name], k))} -> {percent(value_of(best[name], k))}"
            for k in ("exec_success_rate", "accepted_at_1", "syntax_error_rate")
        ]
        table.add_row(name, str(best[name].n or "-"), *change)
    return table


def write_status_page(args: argparse.Namespace, rows: Sequence[Row]) -> Path:
    """Write outputs/status.html: one file, no network; it reloads itself every five minutes."""
    from markupsafe import Markup

    from phase1.report.templating import page_environment

    series = training_series(args)
    figures = [(title, Markup(svg)) for title, svg in (_curve(c, rows, series) for c in CURVES) if svg]
    path = args.output_dir / "best_checkpoint.json"
    best = read_json(path) if path.exists() else None
    if best and not (isinstance(best, dict) and best.keys() >= BEST_SHOWN):
        raise BadInput(f"{path}: not as run_eval_checkpoints.sh writes it; a pass of it writes it anew")
    kept = next((r.kept for r in rows if best and r.step == best["best_step"]), "")
    page = (
        page_environment()
        .get_template("status.html")
        .render(
            columns=COLUMNS,
            left=LEFT,
            rows=[(r.best, r.cells()) for r in rows],
            figures=figures,
            best=best,
            kept=kept,
            latest=read_tracker(args.checkpoint_dir),
            checkpoint_dir=args.checkpoint_dir,
            time=now(),
        )
    )
    write_text(args.output_dir / "status.html", page)
    return args.output_dir / "status.html"


def _curve(plan: tuple, rows: Sequence[Row], series: Series) -> tuple[str, str]:
    """(title, SVG) of one plot, the SVG empty where there is nothing to draw."""
    import matplotlib
    from matplotlib.figure import Figure

    from phase1.report.figures import STYLE, plain_labels, to_svg

    title, lines, unit = plan
    drawn = False
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.7, 3.0))
        axes = figure.add_axes((0.14, 0.17, 0.83, 0.72))
        for label, colour, source in lines:
            points = (
                drawable(series, source, log_scale=unit == "log")
                if isinstance(source, str)
                else [(r.step, v) for r in rows if (v := r.rate(*source)) is not None]
            )
            points = [(s, 100 * v if unit == "%" else v) for s, v in points]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    label=label,
                    marker="o" if len(points) < 30 else None,
                    markersize=3,
                )
                drawn = True
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        if unit == "%":
            axes.set_ylim(-2, 102)
            axes.set_ylabel("%")
        elif unit == "log" and drawn:
            axes.set_yscale("log")
            plain_labels(axes.yaxis)
        if len(lines) > 1 and drawn:
            axes.legend(loc="lower right")
        return title, to_svg(figure, title.split()[0].replace("/", "-"), title) if drawn else ""
