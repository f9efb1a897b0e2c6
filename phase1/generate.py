"""Problems to completions. One seam, `generate`: an async iterator of finished completions, whatever makes them.

EVAL@1 (contract 5) is pinned here and nowhere else. A model's own generation_config.json must not change it
(Qwen2.5-Coder's sets repetition_penalty 1.1, temperature 0.7, top_k 20); only its end-of-text ids are still read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from phase1.files import BadInput
from phase1.problems import Problem
from phase1.prompts import chat
from phase1.results import Completion


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


@dataclass(frozen=True)
class Backend:
    """What generates: `transformers` on this machine (CPU or one GPU), `batch_size` problems at a time."""

    name: str = "transformers"
    batch_size: int = 16


async def generate(problems: list[Problem], model_path: Path, sampling: Sampling, backend: Backend, session: int) -> AsyncIterator[Completion]:
    """Yield one Completion a problem as each is finished, in no promised order.

    A problem whose generation failed yields finish_reason `error`, one whose prompt alone fills `max_model_len`
    yields `too_long`; both carry the reason in `error`.
    """
    if backend.name != "transformers":
        raise BadInput(f"--backend {backend.name}: not one of transformers")
    # The blocking library runs in a thread, so that judging goes on while it generates.
    batches = _transformers_batches(problems, model_path, sampling, backend.batch_size, session)
    while batch := await asyncio.to_thread(next, batches, None):
        for completion in batch:
            yield completion


def load_tokenizer(model_path: Path):
    """The checkpoint's tokenizer. BadInput when it has no chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path)
    except (OSError, ValueError) as e:
        raise BadInput(f"{model_path}: no loadable tokenizer ({str(e).splitlines()[0]})") from None
    if not tokenizer.chat_template:
        raise BadInput(f"{model_path}: its tokenizer has no chat template; copy tokenizer_config.json from the base model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_ids(tokenizer, problem: Problem) -> list[int]:
    """The token ids that the model is given for a problem: system and user turn and the opening of the answer."""
    return tokenizer.apply_chat_template(chat(problem.user), add_generation_prompt=True, return_dict=False)


def _transformers_batches(problems: list[Problem], model_path: Path, sampling: Sampling, batch_size: int, session: int) -> Iterator[list[Completion]]:
    """Generate with transformers: set after set, so that each has a wall clock of its own, the longest prompts first.

    A batch holds only prompts that leave room for `max_new_tokens`; one that does not is generated alone, or its length
    would shorten its neighbours' answers.

    `gen_time` is a problem's share of its batch: the batch's seconds divided by its size.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer = load_tokenizer(model_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, sampling.dtype)).to(device).eval()
    except (OSError, ValueError, RuntimeError) as e:
        raise BadInput(f"{model_path}: not a loadable model ({str(e).splitlines()[0]})") from None
    stops = model.generation_config.eos_token_id
    stops = {stops} if isinstance(stops, int) else set(stops or ())
    if tokenizer.eos_token_id is not None:
        stops.add(tokenizer.eos_token_id)
    # Replaced, not passed to generate(): transformers fills every argument that equals its own default from the model's
    # file again, so an explicit repetition_penalty of 1.0 would still become the model's 1.1.
    model.generation_config = GenerationConfig(
        do_sample=sampling.temperature > 0, eos_token_id=sorted(stops), pad_token_id=tokenizer.pad_token_id,
        repetition_penalty=sampling.repetition_penalty,
        **({"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": max(0, sampling.top_k)} if sampling.temperature > 0 else {}),
    )  # fmt: skip
    limit = min(sampling.max_model_len, model.config.max_position_embeddings)

    def completion(problem: Problem, n_prompt: int, text: str, reason: str, n_tokens: int, seconds: float, started: float, error: str | None = None) -> Completion:
        return Completion(problem.dataset, problem.problem_id, problem.user, problem.user_sha256, text, reason, n_prompt,
                          n_tokens, seconds, started, session, error=error)  # fmt: skip

    order = {d: i for i, d in enumerate(dict.fromkeys(p.dataset for p in problems))}
    queue = sorted(((prompt_ids(tokenizer, p), p) for p in problems), key=lambda x: (order[x[1].dataset], -len(x[0])))
    too_long = [(ids, p) for ids, p in queue if len(ids) >= limit]
    queue = [(ids, p) for ids, p in queue if len(ids) < limit]
    if too_long:
        yield [completion(p, len(ids), "", "too_long", 0, 0.0, time.time(), f"the prompt has {len(ids)} tokens, the limit is {limit}") for ids, p in too_long]
    while queue:
        alone = len(queue[0][0]) + sampling.max_new_tokens > limit
        size = 1 if alone else sum(p.dataset == queue[0][1].dataset for _, p in queue[:batch_size])
        batch, queue = queue[:size], queue[size:]
        started, clock = time.time(), time.perf_counter()
        width = max(len(ids) for ids, _ in batch)
        padded = torch.tensor([[tokenizer.pad_token_id] * (width - len(ids)) + ids for ids, _ in batch], device=device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in batch], device=device)
        with torch.inference_mode():
            output = model.generate(padded, attention_mask=mask, max_new_tokens=min(sampling.max_new_tokens, limit - width))[:, width:].tolist()
        seconds = (time.perf_counter() - clock) / len(batch)
        done = []
        for (ids, problem), tokens in zip(batch, output, strict=True):
            end = next((i for i, t in enumerate(tokens) if t in stops), None)
            kept = tokens if end is None else tokens[:end]
            text = tokenizer.decode(kept, skip_special_tokens=True)
            reason, n_tokens = ("length", len(kept)) if end is None else ("stop", end + 1)
            done.append(completion(problem, len(ids), text, reason, n_tokens, seconds, started))
        yield done
