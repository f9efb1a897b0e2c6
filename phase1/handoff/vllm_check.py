"""The hand-off's vLLM check: a real server with the seed's arguments, asked what transformers was asked, stopped for
certain."""

from __future__ import annotations

import os.path
from pathlib import Path

from phase1.contract.prompts import chat
from phase1.generate.vllm_servers import ServerConfig, ServerFailed, ask, vllm_servers, vllm_version
from phase1.handoff.checks import MAX_MODEL_LEN, PROMPTS, Check, Handoff, verdict

ANOTHER_MODEL = 0.1  # share of an answer: where none agrees even so far, the server computes something else


def check_vllm(
    h: Handoff, skip: bool, python: str, dtype: str, max_new_tokens: int, timeout: float, log_dir: Path
) -> Check:
    """Start vLLM's OpenAI server on the model, list it, ask it the questions that transformers answered, stop it.

    Greedy answers must agree. In bfloat16 two kernels round differently, and one token that two ids compete for changes
    all that follows: some different answers are a warning. None that agrees in its first tenth is another model: rope,
    tied head or template read otherwise. In float32 they agree to the letter (12 of 12 on a CPU).
    """
    if skip:
        return Check("vllm", "warn", "not run: --skip_vllm")
    python = os.path.abspath(python) if "/" in python else python  # the server starts in another directory
    if (version := vllm_version(python)) is None:
        return Check("vllm", "warn", f"not run: {python} has no vLLM; name the interpreter that has: --vllm_python")
    length = min(MAX_MODEL_LEN, h.config.get("max_position_embeddings") or MAX_MODEL_LEN)
    config = ServerConfig(
        h.model,
        log_dir,
        num_servers=1,
        dtype=dtype,
        max_model_len=length,
        max_num_seqs=len(PROMPTS) + 1,
        start_timeout=timeout,
        python=python,
    )
    questions = [q for q, _ in h.answers] or list(PROMPTS)
    try:
        with vllm_servers(config) as (server,):
            served = [m["id"] for m in ask(server.url + "/v1/models")["data"]]
            texts = [greedy(server.url, served[0], q, max_new_tokens) for q in questions]
    except ServerFailed as e:
        return Check("vllm", "fail", str(e)[:2000])
    except (OSError, KeyError, IndexError, ValueError) as e:
        return Check("vllm", "fail", f"the server started but does not answer: {type(e).__name__}: {e}")
    shared = [agreement(a, b) for a, (_, b) in zip(texts, h.answers, strict=False)]
    equal = sum(s == 1.0 for s in shared)
    failures = [] if any(t.strip() for t in texts) else ["every answer of the server is empty"]
    if shared and max(shared) < ANOTHER_MODEL:
        failures.append(
            "no answer agrees with transformers' even in its first tenth: the server computes another model"
        )
    text = (
        f"{equal} of {len(shared)} greedy answers as transformers' in {dtype}"
        if shared
        else "not compared with transformers: it gave no answers"
    )
    evidence = f"vLLM {version} ready after {server.ready_after:.0f} s, serves {served[0]}, {text}, stopped"
    warnings = [] if shared and equal == len(shared) else [evidence]
    return verdict(
        "vllm",
        failures,
        warnings,
        evidence,
        version=version,
        ready_after=server.ready_after,
        served=served,
        questions=questions,
        answers=texts,
        agreement=shared,
        log=str(server.log),
    )


def greedy(url: str, model: str, question: str, max_new_tokens: int) -> str:
    """The server's answer to one chat request, with EVAL@1's sampling."""
    body = {
        "model": model,
        "messages": chat(question),
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": -1,
        "repetition_penalty": 1.0,
        "max_tokens": max_new_tokens,
    }
    return ask(url + "/v1/chat/completions", body)["choices"][0]["message"]["content"] or ""


def agreement(a: str, b: str) -> float:
    """How far two answers agree from their start, as a share of the longer one; 1.0 when they are equal."""
    longer = max(len(a), len(b))
    return len(os.path.commonprefix([a, b])) / longer if longer else 1.0
