"""Generation by transformers in this process, on a CPU or one GPU."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phase1.contract.records import Completion
from phase1.files import BadInput
from phase1.generate.decoding import decode
from phase1.generate.make_requests import Request
from phase1.generate.protocol import BackendRecord, Generation, Progress, Setup
from phase1.generate.settings import BackendSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def from_settings(settings: BackendSettings) -> TransformersGenerator:
    """The generator that `settings` describe.

    Raises:
        BadInput: a setting is given that only vLLM has.
    """
    if settings.batch_invariant:
        raise BadInput("--batch_invariant is a mode of vLLM's; it needs --backend vllm")
    return TransformersGenerator(settings.batch_size)


@dataclass(frozen=True)
class TransformersGenerator:
    """`batch_size`: requests that are answered at a time."""

    batch_size: int = 16

    @property
    def name(self) -> str:
        return "transformers"

    @property
    def needs_torch(self) -> bool:
        return True

    @property
    def busy_cores(self) -> int:
        return 0

    @contextlib.asynccontextmanager
    async def open(self, requests: list[Request], setup: Setup, progress: Progress) -> AsyncIterator[Generation]:
        progress.requests_sent(0)  # the clock of this stage starts with the loading of the model
        yield Generation(BackendRecord({"backend": "transformers"}), self._completions(requests, setup))

    async def _completions(self, requests: list[Request], setup: Setup) -> AsyncGenerator[Completion, None]:
        """The library blocks, so it runs in a thread: judging goes on while it generates."""
        stop = threading.Event()  # a thread cannot be cancelled: without it a stopped evaluation waits for its batch
        batches = generate_batches(requests, setup, self.batch_size, stop)
        try:
            while batch := await asyncio.to_thread(next, batches, None):
                for completion in batch:
                    yield completion
        finally:
            stop.set()


def generate_batches(
    requests: list[Request], setup: Setup, batch_size: int, stop: threading.Event
) -> Iterator[list[Completion]]:
    """Load the model and yield the completions of each batch.

    `gen_time` of a completion is its share of the batch: the batch's seconds divided by its size. Once `stop` is set, a
    batch ends at its next token and nothing of it is kept.

    Raises:
        BadInput: the model cannot be loaded.
    """
    import torch

    model = _load_model(setup)
    torch.manual_seed(setup.sampling.seed_of(requests[0].problem.problem_id, requests[0].sample))
    for batch in make_batches(requests, batch_size, setup.sampling.max_new_tokens):
        started, clock = time.time(), time.perf_counter()
        output = _answer_ids(model, batch, setup, stop)
        if stop.is_set():
            return
        seconds = (time.perf_counter() - clock) / len(batch)
        answers = [decode(setup.tokenizer, ids, setup.stop_ids) for ids in output]
        yield [
            request.completion(answer, seconds=seconds, started=started, session=setup.session)
            for request, answer in zip(batch, answers, strict=True)
        ]


def make_batches(requests: list[Request], batch_size: int, max_new_tokens: int) -> Iterator[list[Request]]:
    """The requests in batches: data set after data set, so that each has a wall clock of its own, long prompts first.

    A request that the context leaves less than `max_new_tokens` is a batch by itself: its limit would cut off others.
    """
    datasets = list(dict.fromkeys(r.problem.dataset for r in requests))
    for dataset in datasets:
        queue = sorted((r for r in requests if r.problem.dataset == dataset), key=lambda r: -len(r.prompt))
        short = [r for r in queue if r.max_tokens < max_new_tokens]
        for request in short:
            yield [request]
        rest = queue[len(short) :]
        for start in range(0, len(rest), batch_size):
            yield rest[start : start + batch_size]


def _load_model(setup: Setup) -> PreTrainedModel:
    """The model, with the sampling of `setup` in place of its own generation_config.json.

    It is replaced, not passed to generate(): transformers fills every argument that equals its own default from the
    model's file again, so an explicit repetition_penalty of 1.0 would still become the model's 1.1.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    sampling = setup.sampling
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(setup.model_path, dtype=getattr(torch, sampling.dtype))
        model = model.to(device).eval()
    except (OSError, ValueError, RuntimeError) as e:
        raise BadInput(
            f"{setup.model_path}: the model cannot be loaded ({str(e).splitlines()[0]}); copy or convert it again"
        ) from None
    config = GenerationConfig(
        do_sample=sampling.temperature > 0,
        eos_token_id=setup.stop_ids,
        pad_token_id=setup.tokenizer.pad_token_id,
        repetition_penalty=sampling.repetition_penalty,
    )
    if sampling.temperature > 0:
        config.update(temperature=sampling.temperature, top_p=sampling.top_p, top_k=max(0, sampling.top_k))
    model.generation_config = config
    return model


def _answer_ids(model: PreTrainedModel, batch: list[Request], setup: Setup, stop: threading.Event) -> list[list[int]]:
    """The ids that the model generates for each prompt of the batch, padding behind the end included."""
    import torch

    def stopped(ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.full((len(ids),), stop.is_set(), device=ids.device)

    pad_id = setup.tokenizer.pad_token_id or 0  # masked, so that any id will do
    width = max(len(r.prompt) for r in batch)
    padding = [width - len(r.prompt) for r in batch]
    ids = [[pad_id] * pad + r.prompt for pad, r in zip(padding, batch, strict=True)]
    mask = [[0] * pad + [1] * (width - pad) for pad in padding]
    with torch.inference_mode():
        output = model.generate(
            torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=batch[0].max_tokens,
            stopping_criteria=[stopped],
        )
    answers: list[list[int]] = output[:, width:].tolist()
    return answers
