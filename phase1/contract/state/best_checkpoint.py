"""outputs/best_checkpoint.json: the checkpoint that was chosen, and by what. Written by run_eval_checkpoints.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from phase1.contract.state.base import Stamp, StateFile, path_from
from phase1.files import BadInput

NAME = "best_checkpoint.json"


class Rates(BaseModel):
    """Shares of the problems, 0 to 1; None where an evaluation does not hold the metric."""

    model_config = ConfigDict(extra="allow", frozen=True)

    exec_success_rate: float | None = None
    accepted_at_1: float | None = None
    silent_rate: float | None = None


class WithoutSilent(BaseModel):
    """What would be chosen if programs that print nothing did not count as executed; the rate is that without them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    best_step: int
    exec_success_rate: float


class RunnerUp(Rates):
    """The second best and McNemar's test of the best against it on the same problems.

    `beyond_noise` is None where the problems' own records are not there to be compared.
    """

    step: int
    p: float | None = None
    beyond_noise: bool | None = None


class BestCheckpoint(StateFile):
    """best_checkpoint.json. Recomputed from all complete evaluations, never edited in place.

    `interval`: 95%, of the best rate. `not_judged`: failures that are not the model's, counted against it in the rate.
    `not_comparable`: steps left out because they were measured otherwise. `kept`: the model is held in outputs/kept/.
    `model_path`: relative to this file where it can be (`model_dir`). `fingerprint`: of the model that was evaluated.
    `warning`: where the choice rests on programs that print or read nothing, in words; missing where it does not.
    `without_silent`: None where an evaluation does not say which programs print nothing.
    """

    warning: str | None = None
    best_step: int
    best_exec_success_rate: float | None = None
    best_accepted_at_1: float | None = None
    without_silent: WithoutSilent | None = None
    model_path: str | None = None
    fingerprint: str | None = None
    selection_metric: str | None = None
    all_checkpoints: dict[str, Rates] = {}
    problems: int | None = None
    interval: tuple[float, float] | None = None
    not_judged: int | None = None
    not_comparable: list[int] = []
    runner_up: RunnerUp | None = None
    kept: bool | None = None
    stamp: Stamp | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in `path`. Raises BadInput as StateFile.read, and names the script that writes it."""
        if not path.is_file():
            raise BadInput(f"{path}: no such file; run_eval_checkpoints.sh writes it, once a checkpoint is evaluated")
        return super().read(path)

    def model_dir(self, file: Path) -> Path | None:
        """The chosen model's directory, by this record in `file`; None where it names none."""
        return path_from(self.model_path, file) if self.model_path else None
