"""outputs/attempts.json: every attempt at evaluating a checkpoint, how it ended, and its log."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from phase1.contract.state.base import StateFile

NAME = "attempts.json"


class Attempt(BaseModel):
    """One attempt. `files`: what identifies the checkpoint's files; `log`: relative to the output directory.

    `exit_code` is None while it runs, and for ever where its whole process tree was killed.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    attempt: int
    step: int
    files: str
    log: str
    started: str | None = None
    finished: str | None = None
    exit_code: int | None
    error: str | None


class AttemptsFile(StateFile):
    """attempts.json: one writer, the holder of the lock; rewritten whole."""

    attempts: list[Attempt]
