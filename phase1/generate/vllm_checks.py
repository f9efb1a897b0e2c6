"""What is proved of a vLLM server before the first request that counts: its model, its context, its sampling
defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from phase1.files import BadInput

PROBE_TOKENS = 48
PENALTY = 2.0  # strong enough to change an answer that repeats any token


async def check_model(http: aiohttp.ClientSession, url: str, model_path: Path, limit: int, name: str | None) -> str:
    """The name to ask for. BadInput when the server serves another model, or too short a context.

    A server names a model by the path it was started with, unless --served-model-name says otherwise: then `name` must
    say the same. Two checkpoints of a run have equal shapes and answer equally fast; only the name tells them apart.
    """
    async with http.get(url + "/v1/models") as response:
        response.raise_for_status()
        served = (await response.json())["data"]
    for model in served:
        paths = [str(model.get(key)) for key in ("id", "root") if model.get(key)]
        if (name and model["id"] == name) or (
            not name and any(Path(p).is_absolute() and Path(p).resolve() == model_path for p in paths)
        ):
            if (length := model.get("max_model_len")) is not None and length < limit:
                raise BadInput(
                    f"{url}: serves a context of {length} tokens, the evaluation needs {limit}; start it with "
                    f"--max-model-len {limit}"
                )
            return model["id"]
    names = ", ".join(m["id"] + (f" ({m['root']})" if m.get("root") not in (None, m["id"]) else "") for m in served)
    raise BadInput(
        f"{url}: serves {names}, not {name or model_path}; start it with the right model, or name it with "
        "--served_model_name"
    )


async def check_sampling(http: aiohttp.ClientSession, url: str, explicit: dict[str, Any]) -> dict[str, Any]:
    """Prove that the server adds no sampling of the model's own. BadInput when it does.

    The same greedy question three times: with every parameter explicit; with none but the temperature, which a server
    started without `--generation-config vllm` answers under the model's own penalty; and with a penalty of 2, which
    must show, or the server, or a proxy before it, does not hand the parameter on. Asked one after another, so that no
    other request of ours shares a batch with them. lm-evaluation-harness#3154 is what happens without this.
    """
    question = {k: v for k, v in explicit.items() if k != "stop_token_ids"}  # nothing may end the answer early
    question |= {
        "temperature": 0.0,
        "max_tokens": min(PROBE_TOKENS, explicit["max_tokens"]),
        "ignore_eos": True,
        "repetition_penalty": 1.0,
        "top_p": 1.0,
        "top_k": -1,
    }
    bare = {k: v for k, v in question.items() if k in ("model", "prompt", "max_tokens", "temperature", "ignore_eos")}
    for _ in range(2):  # a running server may have been at work for others: once more before it is refused
        pinned, unpinned, penalised = [
            await _text(http, url, body) for body in (question, bare, {**question, "repetition_penalty": PENALTY})
        ]
        if pinned == unpinned:
            return {"defaults_verified": True, "penalty_seen": penalised != pinned}
    raise BadInput(
        f"{url}: adds sampling parameters of its own to a request (penalty of the model's generation_config.json?); "
        "start it with --generation-config vllm"
    )


async def version(http: aiohttp.ClientSession, url: str) -> str | None:
    """The server's vLLM version; None where it does not tell."""
    async with http.get(url + "/version") as response:
        return (await response.json()).get("version") if response.status == 200 else None


async def _text(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> str:
    async with http.post(url + "/v1/completions", json=body) as response:
        if response.status != 200:
            raise ValueError(f"{response.status}: {(await response.text())[:200]}")
        return (await response.json())["choices"][0]["text"]
