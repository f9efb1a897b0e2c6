"""Problems to completions. One seam, `generate`: an async iterator of finished completions, whatever makes them.

EVAL@1 (contract 5) is pinned here and nowhere else. A model's own generation_config.json must not change it
(Qwen2.5-Coder's sets repetition_penalty 1.1, temperature 0.7, top_k 20); only its end-of-text ids are still read.

Both backends are given the same token ids, made here by the checkpoint's tokenizer and chat template, which are
compared with training's first. So vLLM is asked through /v1/completions with ids, not through /v1/chat/completions with
messages: there the server renders the template, with its own version of transformers and whatever --chat-template it
was started with, and a template that adds a system prompt or a space would be a silent mismatch with training. Prompt
tokens are then known before a request is sent, for the order, the room left in the context and the counts. Answers come
back as ids too and are decoded here: the server's own text, decoded as it streams, loses the end of an answer with
broken UTF-8.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from phase1.contract.problems import Problem
from phase1.contract.records import Completion
from phase1.files import BadInput, read_json
from phase1.generate.progress import Display
from phase1.generate.vllm_servers import ServerConfig
from phase1.model.tokenizer import (
    Tokenizer,
    chat_ids,
    check_template,
    compare_template,
    load_chat_tokenizer,
    template_sha256,
)

# Mean answer lengths of Qwen2.5-Coder-7B-Instruct (contract 8): what is expected to take longest is sent first.
EXPECTED_TOKENS = {"codecontests": 250, "humaneval": 124, "mbpp": 54}


@dataclass(frozen=True)
class Sampling:
    """EVAL@1. Every field goes into run.json, and two evaluations that differ in one are not comparable."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = -1
    repetition_penalty: float = 1.0
    max_new_tokens: int = 2048
    max_model_len: int = 6144  # prompt and answer together
    dtype: str = "bfloat16"
    n_samples: int = 1  # answers a problem; beyond EVAL@1
    seed: int = 0  # of sampled answers; says nothing at temperature 0

    def identity(self) -> dict[str, Any]:
        """What run.json keeps: greedy decoding has no seed and one answer."""
        return (
            asdict(self)
            if self.temperature > 0
            else {k: v for k, v in asdict(self).items() if k not in ("n_samples", "seed")}
        )


@dataclass(frozen=True)
class Backend:
    """What generates: `transformers` in this process (CPU or one GPU), or `vllm`: running servers (`urls`) or our own
    (`servers`), `max_concurrent` requests at a time on each."""

    name: str = "transformers"
    batch_size: int = 16
    urls: tuple[str, ...] = ()
    servers: ServerConfig | None = None
    served_model_name: str | None = None  # under which running servers serve the model, where it is not its path
    max_concurrent: int = 256
    request_timeout: float = 600.0  # seconds for one answer
    stall_timeout: float = 180.0  # seconds without one token from a server that has requests
    base_model: Path | None = None  # what training started from: its chat template was training's


@dataclass(frozen=True)
class Request:
    """One answer to generate. `prompt`: token ids; `max_tokens`: what the context leaves of max_new_tokens."""

    problem: Problem
    sample: int
    prompt: list[int] = field(repr=False)
    max_tokens: int

    def completion(
        self,
        text: str,
        reason: str,
        n_tokens: int,
        seconds: float,
        started: float,
        session: int,
        error: str | None = None,
    ) -> Completion:
        p = self.problem
        return Completion(
            p.dataset,
            p.problem_id,
            p.user,
            p.user_sha256,
            text,
            reason,
            len(self.prompt),
            n_tokens,
            seconds,
            started,
            session,
            self.sample,
            error,
        )

    def seed(self, seed: int) -> int:
        """The same for this problem and sample whatever the order and the server, so that a resumed run samples what an
        undisturbed one does."""
        return int.from_bytes(
            hashlib.sha256(f"{seed}:{self.problem.problem_id}:{self.sample}".encode()).digest()[:4], "big"
        )


class GenerationStopped(Exception):
    """Nothing is left that could generate; what is finished is on disk."""


async def generate(
    todo: list[tuple[Problem, int]],
    model_path: Path,
    sampling: Sampling,
    backend: Backend,
    session: int,
    display: Display,
    info: dict[str, Any],
) -> AsyncGenerator[Completion, None]:
    """Yield one Completion for each (problem, sample) as it is finished, in no promised order.

    One whose generation failed has finish_reason `error`, one whose prompt alone fills `max_model_len` has `too_long`;
    both carry the reason in `error`. `info` is filled with what run.json keeps of the backend. GenerationStopped when
    every server is gone.
    """
    if backend.name == "vllm":
        from phase1.generate.vllm_client import vllm_completions as completions
    else:
        completions = _transformers_completions
    tokenizer = await asyncio.to_thread(load_chat_tokenizer, model_path)
    check_template(tokenizer, model_path)
    if backend.base_model:
        await asyncio.to_thread(compare_template, tokenizer, model_path, backend.base_model)
    info |= {"chat_template_sha256": template_sha256(tokenizer), "chat_template_compared_with": backend.base_model}
    limit = context_limit(model_path, sampling.max_model_len)
    requests = await asyncio.to_thread(make_requests, todo, tokenizer, limit, sampling)
    for r in [r for r in requests if r.max_tokens < 1]:
        yield r.completion(
            "", "too_long", 0, 0.0, time.time(), session, f"the prompt has {len(r.prompt)} tokens, the limit is {limit}"
        )
    requests = [r for r in requests if r.max_tokens >= 1]
    if requests:
        async with contextlib.aclosing(
            completions(requests, model_path, tokenizer, sampling, backend, session, display, info)
        ) as stream:
            async for completion in stream:
                yield completion


# ---------------------------------------------------------------------------------------------------------- prompts
def prompt_ids(tokenizer: Tokenizer, problem: Problem) -> list[int]:
    """The token ids that the model is given for a problem: system and user turn and the opening of the answer."""
    return chat_ids(tokenizer, problem.user)


def make_requests(todo: list[tuple[Problem, int]], tokenizer, limit: int, sampling: Sampling) -> list[Request]:
    """The requests, longest expected first: a long answer that starts last is what everything else waits for."""
    ids = {id(p): prompt_ids(tokenizer, p) for p, _ in todo}
    requests = [Request(p, k, ids[id(p)], min(sampling.max_new_tokens, limit - len(ids[id(p)]))) for p, k in todo]
    return sorted(requests, key=lambda r: (-EXPECTED_TOKENS[r.problem.test_type], -len(r.prompt)))


def context_limit(model_path: Path, max_model_len: int) -> int:
    """Tokens of prompt and answer together: `max_model_len`, or what the model can, if that is less."""
    return min(max_model_len, read_json(model_path / "config.json").get("max_position_embeddings") or max_model_len)


def stop_ids(model_path: Path, tokenizer) -> list[int]:
    """The ids that end an answer: the model's own (generation_config.json, else config.json) and the tokenizer's."""
    path = model_path / "generation_config.json"
    own = (read_json(path) if path.exists() else {}).get("eos_token_id")
    if own is None:
        own = read_json(model_path / "config.json").get("eos_token_id")
    ids = {own} if isinstance(own, int) else set(own or ())
    return sorted(ids | ({tokenizer.eos_token_id} - {None}))


def decode(tokenizer, tokens: list[int], stops: set[int]) -> tuple[str, str, int]:
    """(text, finish_reason, tokens generated) of an answer's ids: up to the first that ends it, which counts as
    generated.

    No clean-up of spaces, which a tokenizer's settings may ask for: this is code.
    """
    end = next((i for i, t in enumerate(tokens) if t in stops), None)
    text = tokenizer.decode(tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return (text, "length", len(tokens)) if end is None else (text, "stop", end + 1)


# ----------------------------------------------------------------------------------------------------- transformers
async def _transformers_completions(
    requests: list[Request],
    model_path: Path,
    tokenizer,
    sampling: Sampling,
    backend: Backend,
    session: int,
    display: Display,
    info: dict[str, Any],
) -> AsyncGenerator[Completion, None]:
    """The blocking library runs in a thread, so that judging goes on while it generates."""
    info |= {"backend": "transformers"}
    display.start("generated", 0)
    stop = threading.Event()  # a thread cannot be cancelled: without it a stopped evaluation waits for its batch
    batches = _transformers_batches(requests, model_path, tokenizer, sampling, backend.batch_size, session, stop)
    try:
        while batch := await asyncio.to_thread(next, batches, None):
            for completion in batch:
                yield completion
    finally:
        stop.set()


def _transformers_batches(
    requests: list[Request],
    model_path: Path,
    tokenizer,
    sampling: Sampling,
    batch_size: int,
    session: int,
    stop: threading.Event,
) -> Iterator[list[Completion]]:
    """Generate with transformers: set after set, so that each has a wall clock of its own, the longest prompts first.

    A batch holds only prompts that leave room for `max_new_tokens`; one that does not is generated alone, or its length
    would shorten its neighbours' answers.

    `gen_time` is a problem's share of its batch: the batch's seconds divided by its size. `stop` ends the batch at its
    next token, and nothing of it is kept.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, sampling.dtype)).to(device).eval()
    except (OSError, ValueError, RuntimeError) as e:
        raise BadInput(f"{model_path}: not a loadable model ({str(e).splitlines()[0]})") from None
    stops = set(stop_ids(model_path, tokenizer))
    torch.manual_seed(requests[0].seed(sampling.seed))
    # Replaced, not passed to generate(): transformers fills every argument that equals its own default from the model's
    # file again, so an explicit repetition_penalty of 1.0 would still become the model's 1.1.
    model.generation_config = GenerationConfig(
        do_sample=sampling.temperature > 0,
        eos_token_id=sorted(stops),
        pad_token_id=tokenizer.pad_token_id,
        repetition_penalty=sampling.repetition_penalty,
        **(
            {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": max(0, sampling.top_k)}
            if sampling.temperature > 0
            else {}
        ),
    )

    def stopped(ids, scores, **_):
        return torch.full((len(ids),), stop.is_set(), device=ids.device)

    order = {d: i for i, d in enumerate(dict.fromkeys(r.problem.dataset for r in requests))}
    queue = sorted(requests, key=lambda r: (order[r.problem.dataset], -len(r.prompt)))
    while queue:
        alone = queue[0].max_tokens < sampling.max_new_tokens
        size = 1 if alone else sum(r.problem.dataset == queue[0].problem.dataset for r in queue[:batch_size])
        batch, queue = queue[:size], queue[size:]
        started, clock = time.time(), time.perf_counter()
        width = max(len(r.prompt) for r in batch)
        padded = torch.tensor(
            [[tokenizer.pad_token_id] * (width - len(r.prompt)) + r.prompt for r in batch], device=device
        )
        mask = torch.tensor([[0] * (width - len(r.prompt)) + [1] * len(r.prompt) for r in batch], device=device)
        with torch.inference_mode():
            output = model.generate(
                padded, attention_mask=mask, max_new_tokens=batch[0].max_tokens, stopping_criteria=[stopped]
            )[:, width:].tolist()
        if stop.is_set():
            return
        seconds = (time.perf_counter() - clock) / len(batch)
        done = []
        for request, tokens in zip(batch, output, strict=True):
            text, reason, n_tokens = decode(tokenizer, tokens, stops)
            done.append(request.completion(text, reason, n_tokens, seconds, started, session))
        yield done
