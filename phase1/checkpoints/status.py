"""A row a step: what training left, what evaluation says, which is the best, what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.choose import rank
from phase1.checkpoints.find import find_checkpoints, snapshot
from phase1.checkpoints.keep import KeptModel, kept_folder, kept_model
from phase1.checkpoints.publish import percent
from phase1.checkpoints.rates import ACCEPTED, EXEC_SUCCESS_RATE, MBPP_ACCEPTED, SELECTION_SET, SILENT, Rate
from phase1.contract.problems import EVAL_SETS
from phase1.contract.state import best_checkpoint
from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.contract.state.tracker import read_tracker
from phase1.evaluate.finished import FinishedEvaluation, finished_evaluations
from phase1.files import BadInput
from phase1.report import stats
from phase1.report.inputs import read_side, value_of
from phase1.train.step_log import Series, read_train_log

# What a phone shows without scrolling comes first.
COLUMNS = (
    "step",
    "best",
    "exec_success",
    "silent",
    "accepted@1",
    "MBPP",
    "val/loss",
    "95% interval",
    "evaluation",
    "kept",
    "checkpoint",
    "GB",
)
LEFT_ALIGNED = ("evaluation", "kept", "checkpoint")
CHANGED = "CHANGED since it was kept"


@dataclass
class Row:
    """What is known of one step. `size`: bytes on disk, None where the checkpoint is gone."""

    step: int
    checkpoint: str = "gone"
    size: int | None = None
    evaluation: str = "-"
    evaluated: FinishedEvaluation | None = None
    val_loss: float | None = None
    kept: str = ""
    best: bool = False

    def rate(self, rate: Rate) -> float | None:
        """One rate of its evaluation, None where there is none."""
        return self.evaluated.metric(rate.dataset, rate.metric) if self.evaluated else None

    def cells(self) -> list[str]:
        """The row as text, in the order of COLUMNS."""
        return [
            str(self.step),
            "*" * self.best,
            percent(self.rate(EXEC_SUCCESS_RATE)),
            percent(self.rate(SILENT)),
            percent(self.rate(ACCEPTED)),
            percent(self.rate(MBPP_ACCEPTED)),
            "-" if self.val_loss is None else f"{self.val_loss:.3g}",
            self._interval(),
            self.evaluation,
            self.kept,
            self.checkpoint,
            "-" if self.size is None else f"{self.size / 1e9:.2f}",
        ]

    def _interval(self) -> str:
        rate, n = self.rate(EXEC_SUCCESS_RATE), self.rate(Rate(SELECTION_SET, "total_problems"))
        if rate is None or not n:
            return "-"
        interval = stats.wilson(round(rate * n), int(n))
        return f"{percent(interval[0])} to {percent(interval[1])}" if interval else "-"


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        checkpoint_dir: the folder of the global_step_N folders.
        output_dir: the folder of the evaluations.
        latest: the step that training saved last, None where verl does not say.
        rows: a row for each step.
        series: what training logged, by metric (val/loss, train/grad_norm, …).
        best: best_checkpoint.json, None where there is none yet.
        damaged: a line for each evaluation whose files cannot be read.
    """

    checkpoint_dir: Path
    output_dir: Path
    latest: int | None
    rows: list[Row] = field(default_factory=list)
    series: Series = field(default_factory=dict)
    best: BestCheckpoint | None = None
    damaged: list[str] = field(default_factory=list)


# ----------------------------------------------------------------------------------------------------------- reading
def read_status(checkpoint_dir: Path, output_dir: Path, train_logs: Sequence[Path] | None = None) -> Status:
    """A row for every step that is on disk, evaluated, attempted or kept; safe to read while a pass is at work.

    Args:
        train_logs: logs of the training run; None: outputs/logs/sft_*.log.

    Raises:
        BadInput: attempts.json or best_checkpoint.json is damaged.
    """
    logs = sorted((output_dir / "logs").glob("sft_*.log")) if train_logs is None else train_logs
    series = read_train_log(logs, skip_empty=True)
    evaluations = finished_evaluations(output_dir)
    rows = status_rows(checkpoint_dir, output_dir, evaluations.by_step)
    losses = dict(series.get("val/loss", []))
    for row in rows:
        row.val_loss = losses.get(row.step)
    best = output_dir / best_checkpoint.NAME
    return Status(
        checkpoint_dir=checkpoint_dir,
        output_dir=output_dir,
        latest=read_tracker(checkpoint_dir),
        rows=rows,
        series=series,
        best=BestCheckpoint.read(best) if best.exists() else None,
        damaged=evaluations.damaged,
    )


def status_rows(checkpoint_dir: Path, output_dir: Path, evaluated: Mapping[int, FinishedEvaluation]) -> list[Row]:
    """The rows by step, without what training logged.

    Args:
        checkpoint_dir: the folder of the global_step_N folders.
        output_dir: the folder of the evaluations.
        evaluated: the complete evaluations by step.

    Raises:
        BadInput: attempts.json is damaged.
    """
    rows: dict[int, Row] = {}
    for c in find_checkpoints(checkpoint_dir):
        state = c.problem or ("whole, to be converted" if c.convert else "whole")
        rows[c.step] = Row(c.step, state, size=sum(f.size for f in snapshot(c.path).values()))
    for step, evaluation in evaluated.items():
        row = rows.setdefault(step, Row(step))
        row.evaluated, row.evaluation = evaluation, "complete"
    for attempt in Attempts(output_dir).rows:
        row = rows.setdefault(attempt.step, Row(attempt.step))
        if row.evaluated is None and attempt.exit_code is None:
            row.evaluation = "begun"
        elif row.evaluated is None and attempt.exit_code:
            row.evaluation = f"failed: {attempt.error}"
    ranking = rank(evaluated.values())
    for step in ranking.top(1):
        rows[step].best = True
    for step in ranking.not_comparable:
        rows[step].evaluation = "complete, measured otherwise"
    for row in rows.values():
        row.kept = how_kept(output_dir, row.step)
    return [rows[step] for step in sorted(rows)]


def how_kept(output_dir: Path, step: int) -> str:
    """How a step's model is kept, empty when it is not; a pass may delete it while we look."""
    home = kept_folder(output_dir, step)
    if kept_model(output_dir, step) is None:
        return CHANGED if home.is_dir() else ""
    try:
        return KeptModel.read(home / "kept.json").how
    except BadInput:
        return ""


# ----------------------------------------------------------------------------------------------------------- showing
def status_table(rows: Sequence[Row]) -> Table:
    """The rows for the terminal."""
    table = Table()
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in LEFT_ALIGNED else "right", overflow="fold")
    for row in rows:
        table.add_row(*row.cells())
    return table


def base_against_best(phase0_metrics: Path, phase1_metrics: Path) -> Table:
    """A row a data set: the rates of the base model and of the chosen checkpoint.

    Args:
        phase0_metrics, phase1_metrics: metrics.json of each, with summary.json beside it.

    Raises:
        BadInput: a file is missing or damaged.
    """
    base = read_side("Phase 0", [phase0_metrics]).datasets
    best = read_side("Phase 1", [phase1_metrics]).datasets
    table = Table(title="base -> SFT", title_justify="left")
    for column in ("data set", "problems", "exec_success", "accepted@1", "syntax_error"):
        table.add_column(column, justify="left" if column == "data set" else "right")
    for name in dict.fromkeys([*EVAL_SETS, *best]):
        if name not in base or name not in best:
            continue
        changes = [
            f"{percent(value_of(base[name], metric))} -> {percent(value_of(best[name], metric))}"
            for metric in ("exec_success_rate", "accepted_at_1", "syntax_error_rate")
        ]
        table.add_row(name, str(best[name].n or "-"), *changes)
    return table
