"""run.json of an evaluation folder: how it was made and how far it is. Written by phase1_eval.py."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from phase1.contract.extraction import UNRECORDED
from phase1.contract.state.base import Stamp, StateFile

NAME = "run.json"


class EvaluatedModel(BaseModel):
    """The model that answered. `fingerprint` tells models apart; a folder that was moved is the same model."""

    model_config = ConfigDict(extra="allow", frozen=True)

    path: str | None = None
    step: int | None = None
    fingerprint: str | None = None


class EvaluatedSet(BaseModel):
    """The problems of one data set as they were asked and judged."""

    model_config = ConfigDict(extra="allow", frozen=True)

    manifest_sha256: str | None = None
    problems_sha256: str | None = None
    problems: int = 0


class Behaviour(BaseModel):
    """By which rules answers became verdicts: a hash each, made by phase1.judge.behaviour.

    Attributes:
        answer_form: how a problem is asked and a solution is shown in training; None where old answers, of which it is
            not known, were judged again.
        extraction: which program is taken from an answer.
        beside: what else is noted of an answer, and which other program is judged beside it.
        comparison: which outputs are right.
        programs: what is made of a program before it is run.
        judge_code: the sources of the judge.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    answer_form: str | None = None
    extraction: str
    beside: str
    comparison: str
    programs: str
    judge_code: str


class Session(BaseModel):
    """One start of phase1_eval.py on the folder; `finished` is missing where it was killed.

    `vllm` is the version that generated, None where it generated nothing or with another backend.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    started: str
    finished: str | None = None
    stamp: Stamp = Stamp()
    vllm: str | None = None


class EvaluationRun(StateFile):
    """run.json. Readers trust a folder only when `complete` is true.

    `model` to `behaviour` make two evaluations comparable; `behaviour` is None in a file of before it was recorded, and
    then not known. `stamp`: of the last session. `sandbox`, `generation`: what
    the judge and the backend said of themselves. `seconds`: where the last session's time went, by the names of
    phase1.evaluate.timing. `recomputed`: the last start that only derived the metrics again.
    """

    status: Literal["running", "complete", "incomplete", "interrupted"]
    model: EvaluatedModel = EvaluatedModel()
    prompts_sha256: str | None = None
    sampling: dict[str, JsonValue] = {}
    judge: dict[str, JsonValue] = {}
    datasets: dict[str, EvaluatedSet] = {}
    behaviour: Behaviour | None = None
    sessions: list[Session] = []
    stamp: Stamp = Stamp()
    finished: str | None = None
    sandbox: dict[str, JsonValue] | None = None
    generation: dict[str, JsonValue] | None = None
    seconds: dict[str, float] | None = None
    recomputed: Stamp | None = None

    @property
    def complete(self) -> bool:
        """Whether every answer of every set was generated and judged."""
        return self.status == "complete"

    @property
    def n_samples(self) -> int:
        """Answers to each problem."""
        value = self.sampling.get("n_samples", 1)
        return value if isinstance(value, int) else 1

    @property
    def vllm(self) -> str | None:
        """The vLLM version that generated; a later session that only judged may have had none, or another."""
        generated = [session.vllm for session in self.sessions if session.vllm]
        return generated[-1] if generated else self.stamp.versions.get("vllm")

    @property
    def judge_settings(self) -> dict[str, JsonValue]:
        """The judge's settings, with what an older file leaves out."""
        return {**UNRECORDED, **self.judge}
