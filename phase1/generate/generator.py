"""What a generator is: requests in, completions out as they are finished, whatever makes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from phase1.contract.records import Completion
from phase1.generate.requests import Request, Sampling
from phase1.model.tokenizer import Tokenizer


class Progress(Protocol):
    """Where a generator says what it is at; phase1/evaluate/display.py shows it."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def start(self, stage: str, n: int = 1) -> None:
        """`n` more requests are running; negative for those that came to nothing."""


@dataclass(frozen=True)
class Asked:
    """What all requests of one session have in common."""

    model_path: Path
    tokenizer: Tokenizer
    sampling: Sampling
    session: int
    progress: Progress


class GenerationStopped(Exception):
    """Nothing is left that could generate; what is finished is on disk."""


class Generator(Protocol):
    """transformers in this process, or vLLM servers. `info`: what run.json keeps of it, whole when it has finished."""

    info: dict[str, JsonValue]

    def completions(self, requests: Sequence[Request], asked: Asked) -> AsyncGenerator[Completion, None]:
        """Yield one Completion a request as it is finished, in no promised order.

        One that failed has finish_reason `error` and the reason in `error`.

        Raises:
            BadInput: the model, or a server that the user named, cannot do what was asked.
            GenerationStopped: every server is gone.
        """
        ...
