"""What vLLM's OpenAI-compatible server answers, as far as it is read here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ServedModel(_Answer):
    """A model of /v1/models. `id`: the name to ask for; `root`: the path it was loaded from."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class ModelList(_Answer):
    """The answer of /v1/models."""

    data: list[ServedModel]


class Choice(_Answer):
    """One completion. `token_ids` came with vLLM 0.10.2."""

    text: str
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class Usage(_Answer):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int


class CompletionAnswer(_Answer):
    """The answer of /v1/completions to one prompt."""

    choices: list[Choice]
    usage: Usage


class ServerVersion(_Answer):
    """The answer of /version."""

    version: str | None = None
