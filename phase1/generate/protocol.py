"""The seam between an evaluation and what generates: requests in, finished completions out.

A backend is a module with one class of the form `Generator` and one line in phase1/generate/backends.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from phase1.contract.records import Completion
from phase1.generate.make_requests import Request
from phase1.generate.sampling import Sampling
from phase1.model.tokenizer import Tokenizer


class GenerationStopped(Exception):
    """Nothing is left that could generate; what is finished is on disk."""


class Progress(Protocol):
    """Where a backend reports what it does."""

    def say(self, text: str) -> None:
        """Show one line to the user."""

    def requests_sent(self, n: int = 1) -> None:
        """Count `n` requests as being worked on; negative for those that are given back unanswered."""


@dataclass(frozen=True)
class Setup:
    """What every backend is told beside the requests.

    Attributes:
        stop_ids: token ids that end an answer.
        context_limit: tokens of prompt and answer together.
        session: number of the evaluation's start, from 0; each completion carries it.
    """

    model_path: Path
    tokenizer: Tokenizer = field(repr=False)
    sampling: Sampling
    stop_ids: list[int]
    context_limit: int
    session: int


@dataclass(frozen=True)
class BackendRecord:
    """What run.json keeps of a backend.

    Attributes:
        facts: entries of run.json's `generation`.
        versions: of packages that generate in another environment than this one, for the run's stamp.
        seconds: what it took before the first request, by the names of phase1.evaluate.timing.
    """

    facts: dict[str, JsonValue]
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """A generation that has begun: what run.json keeps of it, and the completions as they are finished, in any order.

    A request that failed gives a completion with finish_reason `error` and the reason in `error`. The iterator raises
    GenerationStopped when nothing is left that could answer the rest.

    Attributes:
        facts_at_end: asked once the completions have ended: entries of run.json's `generation` that are known only
            then; they take the place of those of the same name in `record`.
    """

    record: BackendRecord
    completions: AsyncGenerator[Completion, None]
    facts_at_end: Callable[[], Mapping[str, JsonValue]] = dict


class Generator(Protocol):
    """A backend."""

    @property
    def name(self) -> str:
        """Its name in --backend and in run.json's `sampling`."""

    @property
    def needs_torch(self) -> bool:
        """Whether it generates in this process, with torch."""

    @property
    def busy_cores(self) -> int:
        """Cores of this machine that it keeps busy while it generates, and that the judge should leave to it."""

    def open(
        self, requests: list[Request], setup: Setup, progress: Progress
    ) -> AbstractAsyncContextManager[Generation]:
        """Begin to answer `requests`, of which there is at least one; on leaving, nothing that was started remains.

        Raises:
            BadInput: the backend cannot be started, or would answer otherwise than `setup` says.
        """
