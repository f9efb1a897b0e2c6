"""outputs/handoff/handoff.json: whether Phase 3 may start from this model. Written by verify_handoff.py."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from phase1.contract.state.base import StateFile

NAME = "handoff.json"


class CheckResult(BaseModel):
    """One check and its evidence."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    status: Literal["pass", "warn", "fail"]
    evidence: str
    data: dict[str, JsonValue] = {}


class HandoffResult(StateFile):
    """handoff.json. `sha256`: of each file of the model directory, None where its weights could not be read.

    `metrics`: of this checkpoint by data set, None without an evaluation. `report`: path and verdict of the comparison
    with Phase 0, None where there is none. `accepted`: why it is handed over although the report does not speak for it.
    """

    verdict: Literal["pass", "fail"]
    model_path: str
    fingerprint: str
    step: int | None = None
    base_model: str | None = None
    sha256: dict[str, str] | None = None
    metrics: dict[str, JsonValue] | None = None
    report: dict[str, JsonValue] | None = None
    accepted: str | None = None
    checks: list[CheckResult] = []
    stamp: dict[str, JsonValue] = {}
