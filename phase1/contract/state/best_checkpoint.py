"""outputs/best_checkpoint.json: the checkpoint that was chosen, and by what. Written by run_eval_checkpoints.sh."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from phase1.contract.state.base import Stamp, StateFile

NAME = "best_checkpoint.json"


class Rates(BaseModel):
    """Shares of the problems, 0 to 1; None where an evaluation does not hold the metric."""

    model_config = ConfigDict(extra="allow", frozen=True)

    exec_success_rate: float | None = None
    accepted_at_1: float | None = None


class RunnerUp(Rates):
    """The second best and McNemar's test of the best against it on the same problems.

    `change`: the best rate minus this one, with its 95% `interval`; `gained` and `lost`: problems that only the best,
    or only this one, solves. `beyond_noise` is None, and all of the test is missing, where the problems' own records
    are not there to be compared.
    """

    step: int
    method: str | None = None
    problems: int | None = None
    change: float | None = None
    interval: tuple[float | None, float | None] | None = None
    gained: int | None = None
    lost: int | None = None
    mcnemar_exact_p: float | None = None
    mcnemar_mid_p: float | None = None
    p: float | None = None
    beyond_noise: bool | None = None


class BestCheckpoint(StateFile):
    """best_checkpoint.json. Recomputed from all complete evaluations, never edited in place.

    `interval`: 95%, of the best rate. `not_judged`: failures that are not the model's, counted against it in the rate.
    `not_comparable`: steps left out because they were measured otherwise. `kept`: the model is held in outputs/kept/.
    """

    best_step: int
    best_exec_success_rate: float | None = None
    best_accepted_at_1: float | None = None
    model_path: str | None = None
    selection_metric: str | None = None
    all_checkpoints: dict[str, Rates] = {}
    problems: int | None = None
    interval: tuple[float, float] | None = None
    not_judged: int | None = None
    not_comparable: list[int] = []
    runner_up: RunnerUp | None = None
    kept: bool | None = None
    stamp: Stamp | None = None
