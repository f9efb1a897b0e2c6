"""Generate with transformers in this process: on a CPU or one GPU, without vLLM."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

from pydantic import JsonValue

from phase1.contract.records import Completion
from phase1.files import BadInput
from phase1.generate.generator import Asked
from phase1.generate.requests import Request, decode, stop_ids


class TransformersGenerator:
    """A Generator: `batch_size` prompts at a time."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.info: dict[str, JsonValue] = {"backend": "transformers"}

    async def completions(self, requests: Sequence[Request], asked: Asked) -> AsyncGenerator[Completion, None]:
        """See Generator. The blocking library runs in a thread, so that judging goes on while it generates."""
        asked.progress.start("generated", 0)
        stop = threading.Event()  # a thread cannot be cancelled: without it a stopped evaluation waits for its batch
        batches = _batches(requests, asked, self.batch_size, stop)
        try:
            while batch := await asyncio.to_thread(next, batches, None):
                for completion in batch:
                    yield completion
        finally:
            stop.set()


def _batches(
    requests: Sequence[Request], asked: Asked, batch_size: int, stop: threading.Event
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
        dtype = getattr(torch, asked.sampling.dtype)
        model = AutoModelForCausalLM.from_pretrained(asked.model_path, dtype=dtype).to(device).eval()
    except (OSError, ValueError, RuntimeError) as e:
        raise BadInput(f"{asked.model_path}: not a loadable model ({str(e).splitlines()[0]})") from None
    pad = asked.tokenizer.pad_token_id or 0
    stops = set(stop_ids(asked.model_path, asked.tokenizer))
    torch.manual_seed(requests[0].seed(asked.sampling.seed))
    sampled: dict[str, float] = {}
    if asked.sampling.temperature > 0:
        sampling = asked.sampling
        sampled = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": max(0, sampling.top_k)}
    # Replaced, not passed to generate(): transformers fills every argument that equals its own default from the model's
    # file again, so an explicit repetition_penalty of 1.0 would still become the model's 1.1.
    model.generation_config = GenerationConfig(
        do_sample=asked.sampling.temperature > 0,
        eos_token_id=sorted(stops),
        pad_token_id=pad,
        repetition_penalty=asked.sampling.repetition_penalty,
        **sampled,
    )

    def stopped(ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.full((len(ids),), stop.is_set(), device=ids.device)

    order = {d: i for i, d in enumerate(dict.fromkeys(r.problem.dataset for r in requests))}
    queue = sorted(requests, key=lambda r: (order[r.problem.dataset], -len(r.prompt)))
    while queue:
        alone = queue[0].max_tokens < asked.sampling.max_new_tokens
        size = 1 if alone else sum(r.problem.dataset == queue[0].problem.dataset for r in queue[:batch_size])
        batch, queue = queue[:size], queue[size:]
        started, clock = time.time(), time.perf_counter()
        width = max(len(r.prompt) for r in batch)
        padded = torch.tensor([[pad] * (width - len(r.prompt)) + r.prompt for r in batch], device=device)
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
            answer = decode(asked.tokenizer, tokens, stops)
            done.append(
                request.completion(
                    answer.text,
                    reason=answer.reason,
                    n_tokens=answer.n_tokens,
                    seconds=seconds,
                    started=started,
                    session=asked.session,
                )
            )
        yield done
