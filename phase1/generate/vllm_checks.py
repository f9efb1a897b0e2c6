"""Checks of a vLLM server before the first request that counts: its model, its context, its sampling defaults."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from pydantic import JsonValue

from phase1.files import BadInput
from phase1.generate.vllm_api import CompletionAnswer, ModelList, ServedModel, ServerVersion

PROBE_TOKENS = 48
PENALTY = 2.0  # strong enough to change an answer that repeats any token


async def check_model(http: aiohttp.ClientSession, url: str, model_path: Path, limit: int, name: str | None) -> str:
    """Check that the server serves this model.

    A server names a model by the path it was started with, unless --served-model-name says otherwise; then `name` must
    say the same. Two checkpoints of a run have equal shapes and answer equally fast: only the name tells them apart.

    Args:
        limit: tokens of prompt and answer that it must have room for.
        name: the name the model is served under; None for its path.

    Returns:
        The name to ask for.

    Raises:
        BadInput: the server serves another model, or too short a context.
    """
    async with http.get(url + "/v1/models") as response:
        response.raise_for_status()
        served: list[ServedModel] = ModelList.model_validate(await response.json()).data
    for model in served:
        if not (model.id == name if name else _is_at(model, model_path)):
            continue
        if model.max_model_len is not None and model.max_model_len < limit:
            raise BadInput(
                f"{url}: serves a context of {model.max_model_len} tokens, the evaluation needs {limit}; start it with "
                f"--max-model-len {limit}"
            )
        served_name: str = model.id
        return served_name
    names = ", ".join(f"{m.id} ({m.root})" if m.root not in (None, m.id) else m.id for m in served)
    raise BadInput(
        f"{url}: serves {names}, not {name or model_path}; start it with the right model, or name it with "
        "--served_model_name"
    )


def _is_at(model: ServedModel, model_path: Path) -> bool:
    """Whether the server loaded the model from this path."""
    named = [Path(path) for path in (model.id, model.root) if path]
    return any(path.is_absolute() and path.resolve() == model_path for path in named)


async def check_sampling(http: aiohttp.ClientSession, url: str, explicit: dict[str, JsonValue]) -> bool:
    """Check that the server adds no sampling parameters of the model's own (lm-evaluation-harness#3154).

    The same greedy question is asked three times: with every parameter; with none but the temperature, which a server
    started without `--generation-config vllm` answers under the model's own penalty; and with a penalty of 2. The
    questions follow one another, so that no other request of ours shares a batch with them.

    Args:
        explicit: the body of a request with every sampling parameter.

    Returns:
        Whether the penalty changed the answer. If not, either the model repeats no token, or something on the way drops
        the parameter.

    Raises:
        BadInput: the first two answers differ.
    """
    question = {key: value for key, value in explicit.items() if key != "stop_token_ids"}  # nothing ends it early
    limit = explicit["max_tokens"]
    question |= {
        "temperature": 0.0,
        "max_tokens": min(PROBE_TOKENS, limit) if isinstance(limit, int) else PROBE_TOKENS,
        "ignore_eos": True,
        "repetition_penalty": 1.0,
        "top_p": 1.0,
        "top_k": -1,
    }
    bare = {key: question[key] for key in ("model", "prompt", "max_tokens", "temperature", "ignore_eos")}
    for _ in range(2):  # a running server may have been at work for others: once more before it is refused
        pinned = await _text(http, url, question)
        unpinned = await _text(http, url, bare)
        penalised = await _text(http, url, {**question, "repetition_penalty": PENALTY})
        if pinned == unpinned:
            return penalised != pinned
    raise BadInput(
        f"{url}: adds sampling parameters of its own to a request (penalty of the model's generation_config.json?); "
        "start it with --generation-config vllm"
    )


async def server_version(http: aiohttp.ClientSession, url: str) -> str | None:
    """The server's vLLM version; None where it does not tell."""
    async with http.get(url + "/version") as response:
        if response.status != 200:
            return None
        version: str | None = ServerVersion.model_validate(await response.json()).version
        return version


async def _text(http: aiohttp.ClientSession, url: str, body: dict[str, JsonValue]) -> str:
    async with http.post(url + "/v1/completions", json=body) as response:
        if response.status != 200:
            raise ValueError(f"{response.status}: {(await response.text())[:200]}")
        text: str = CompletionAnswer.model_validate(await response.json()).choices[0].text
        return text
