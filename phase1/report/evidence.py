"""What the rules of the report may look at: both phases, the filled rows, the flips, the training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from phase1.report.flips import Flips
from phase1.report.inputs import Side, value_of
from phase1.report.silent import SilentRise, silent_rises
from phase1.report.tables import Row
from phase1.report.train_data import TrainData
from phase1.train.step_log import Series


@dataclass
class Evidence:
    """All that the rules may look at.

    Attributes:
        phase0: the base model's evaluation.
        phase1: the evaluation of the fine-tuned model.
        rows: the filled rows of the three tables.
        flips: of each data set of which both phases have records.
        train_log: each metric of the training run over its steps; empty where no log was given.
        train_data: what the training rows look like; None where they were not given.
        more_rows: the filled rows beside them: sets taken together, several answers a problem.
    """

    phase0: Side
    phase1: Side
    rows: Sequence[Row]
    flips: Sequence[Flips] = ()
    train_log: Series = field(default_factory=dict)
    train_data: TrainData | None = None
    more_rows: Sequence[Row] = ()

    def value(self, phase: int, dataset: str, metric: str) -> float | None:
        """A metric of a data set in phase 0 or 1, None where it was not measured."""
        side = (self.phase0, self.phase1)[phase]
        return value_of(side.datasets.get(dataset), metric)

    @property
    def silent_rises(self) -> list[SilentRise]:
        """Where programs that print nothing make up the rise of exec_success_rate."""
        return silent_rises(self.phase0, self.phase1)

    def change(self, dataset: str, metric: str) -> float | None:
        """Phase 1's value less Phase 0's."""
        x, y = self.value(0, dataset, metric), self.value(1, dataset, metric)
        return None if x is None or y is None else y - x

    def relative(self, dataset: str, metric: str) -> float | None:
        """The change as a share of Phase 0's value; None where that is 0."""
        x, change = self.value(0, dataset, metric), self.change(dataset, metric)
        return change / x if change is not None and x else None
