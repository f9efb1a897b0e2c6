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
    """handoff.json. `sha256`: of each file of the model directory that was handed over."""

    verdict: str
    model_path: str
    fingerprint: str
    step: int | None = None
    base_model: str | None = None
    sha256: dict[str, str] = {}
    checks: list[CheckResult] = []
