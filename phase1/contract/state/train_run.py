"""train_run.json beside the checkpoints: on what they were trained, by which command, when. Written by run_sft.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from phase1.contract.state.base import Stamp, StateFile

NAME = "train_run.json"


class TrainSession(BaseModel):
    """One start of run_sft.sh; it went on from `from_step`, 0 for the beginning."""

    model_config = ConfigDict(extra="allow", frozen=True)

    started: str
    from_step: int


class TrainRun(StateFile):
    """train_run.json. `stamp.arguments` holds verl's settings by key, as they were resolved; `command` is for people.

    `shape`: what a resumed run must share with the one that saved its checkpoint.
    """

    status: Literal["running", "complete"]
    expected_steps: int
    world_size: int
    shape: dict[str, JsonValue]
    sessions: list[TrainSession]
    command: list[str]
    stamp: Stamp
    final_step: int | None = None
    finished: str | None = None

    @property
    def base_model(self) -> str | None:
        """The model that training started from, a folder or a name on the Hub."""
        value = self.stamp.arguments.get("model.partial_pretrain")
        return str(value) if value else None

    @property
    def train_files(self) -> list[Path]:
        """The Parquet files that it was trained on."""
        value = self.stamp.arguments.get("data.train_files")
        return [Path(str(v)) for v in value] if isinstance(value, list) else [Path(str(value))] if value else []

    @property
    def loggers(self) -> list[str]:
        """Where verl sent its metrics: console, wandb, …"""
        value = self.stamp.arguments.get("trainer.logger")
        return [str(v) for v in value] if isinstance(value, list) else [str(value)] if value else []
