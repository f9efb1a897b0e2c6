"""The check by a real vLLM server: started as the original plan does, asked what transformers was asked, stopped."""

from __future__ import annotations

import os.path

from phase1.contract.prompts import chat
from phase1.contract.state.handoff import CheckResult
from phase1.generate.vllm_servers import ServerConfig, ServerFailed, ask, vllm_servers, vllm_version
from phase1.handoff.ask_model import PROMPTS
from phase1.handoff.handoff import MAX_MODEL_LEN, Handoff, failed, not_run, verdict

ANOTHER_MODEL = 0.1  # share of an answer: where none agrees even so far, the server computes something else


def check_vllm(h: Handoff) -> CheckResult:
    """Start vLLM's OpenAI server on the model, list it, ask it the questions that transformers answered, stop it.

    Greedy answers must agree. In bfloat16 two kernels round differently, and one token that two ids compete for changes
    all that follows: some different answers are a warning. None that agrees in its first tenth is another model: rope,
    tied head or template read otherwise. In float32 they agree to the letter (12 of 12 on a CPU).
    """
    settings = h.settings
    if settings.skip_vllm:
        return not_run("vllm", "--skip_vllm")
    python = settings.vllm_python
    if "/" in python:
        python = os.path.abspath(python)  # the server starts in another directory
    if (version := vllm_version(python)) is None:
        return not_run("vllm", f"{python} has no vLLM; name the interpreter that has: --vllm_python")
    config = ServerConfig(
        model_path=h.model,
        log_dir=settings.log_dir,
        num_servers=1,
        dtype=settings.dtype,
        max_model_len=min(MAX_MODEL_LEN, h.context_length or MAX_MODEL_LEN),
        max_num_seqs=len(PROMPTS) + 1,
        start_timeout=settings.vllm_timeout,
        python=python,
    )
    expected = h.generation.meaningful
    questions = [q.user for q in h.generation.questions] if expected else list(PROMPTS)
    try:
        with vllm_servers(config) as (server,):
            served = [m["id"] for m in ask(server.url + "/v1/models")["data"]]
            texts = [greedy(server.url, served[0], q, settings.max_new_tokens) for q in questions]
    except ServerFailed as e:
        return failed("vllm", str(e)[:2000])
    except (OSError, KeyError, IndexError, ValueError) as e:
        return failed("vllm", f"the server started but does not answer: {type(e).__name__}: {e}")
    shared = [agreement(a, b) for a, b in zip(texts, expected, strict=False)]
    equal = shared.count(1.0)
    failures = []
    if not any(text.strip() for text in texts):
        failures.append("every answer of the server is empty")
    if shared and max(shared) < ANOTHER_MODEL:
        failures.append(
            "no answer agrees with transformers' even in its first tenth: the server computes another model"
        )
    compared = "not compared with transformers: it gave no answers"
    if shared:
        compared = f"{equal} of {len(shared)} greedy answers as transformers' in {settings.dtype}"
    evidence = f"vLLM {version} ready after {server.ready_after:.0f} s, serves {served[0]}, {compared}, stopped"
    return verdict(
        "vllm",
        failures,
        [] if shared and equal == len(shared) else [evidence],
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
    """The server's answer to one chat request, with EVAL@1's sampling.

    Raises:
        OSError, KeyError, IndexError, ValueError: it does not answer as vLLM does.
    """
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
