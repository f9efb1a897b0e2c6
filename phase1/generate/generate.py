"""Problems to completions: which generator, the checks before it is asked, and one stream of finished completions.

Another generator is a module with a class of the Generator protocol, and a line in `generator_for`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from phase1.contract.records import Completion
from phase1.generate.generator import Asked, Generator, Progress
from phase1.generate.requests import Answer, Sampling, context_limit, make_requests
from phase1.generate.vllm_client import VllmGenerator, VllmSettings
from phase1.generate.with_transformers import TransformersGenerator
from phase1.model.tokenizer import check_template, compare_template, load_chat_tokenizer, template_sha256


@dataclass(frozen=True)
class Backend:
    """What generates: vLLM where `vllm` is given, else transformers in this process (CPU or one GPU).

    `batch_size`: prompts at a time with transformers. `base_model`: what training started from, whose chat template was
    training's.
    """

    vllm: VllmSettings | None = None
    batch_size: int = 16
    base_model: Path | None = None

    @property
    def name(self) -> str:
        """vllm or transformers."""
        return "vllm" if self.vllm else "transformers"

    def identity(self) -> dict[str, JsonValue]:
        """What run.json keeps: two evaluations that differ in it are not comparable."""
        invariant = self.vllm is not None and self.vllm.batch_invariant
        return {"backend": self.name} | ({"batch_invariant": True} if invariant else {})


def generator_for(backend: Backend) -> Generator:
    """The generator of a backend: the one place that chooses."""
    return VllmGenerator(backend.vllm) if backend.vllm else TransformersGenerator(backend.batch_size)


class Generation:
    """One session's generation. `info`: what run.json keeps of it, whole when `completions` has ended."""

    def __init__(self, model_path: Path, sampling: Sampling, backend: Backend, session: int, progress: Progress):
        self.model_path, self.sampling, self.backend = model_path, sampling, backend
        self.session, self.progress = session, progress
        self.info: dict[str, JsonValue] = {}

    async def completions(self, todo: Sequence[Answer]) -> AsyncGenerator[Completion, None]:
        """Yield one Completion an answer as it is finished, in no promised order.

        One whose generation failed has finish_reason `error`, one whose prompt alone fills `max_model_len` has
        `too_long`; both carry the reason in `error`.

        Raises:
            BadInput: the model's chat template is not training's, or the generator cannot do what was asked.
            GenerationStopped: every server is gone.
        """
        tokenizer = await asyncio.to_thread(load_chat_tokenizer, self.model_path)
        check_template(tokenizer, self.model_path)
        base = self.backend.base_model
        if base:
            await asyncio.to_thread(compare_template, tokenizer, self.model_path, base)
        self.info["chat_template_sha256"] = template_sha256(tokenizer)
        self.info["chat_template_compared_with"] = str(base) if base else None
        limit = context_limit(self.model_path, self.sampling.max_model_len)
        requests = await asyncio.to_thread(make_requests, todo, tokenizer, limit, self.sampling)
        fitting = []
        for request in requests:
            if request.max_tokens >= 1:
                fitting.append(request)
                continue
            error = f"the prompt has {len(request.prompt)} tokens, the limit is {limit}"
            yield request.completion(reason="too_long", started=time.time(), session=self.session, error=error)
        if not fitting:
            return
        generator = generator_for(self.backend)
        asked = Asked(self.model_path, tokenizer, self.sampling, self.session, self.progress)
        try:
            async with contextlib.aclosing(generator.completions(fitting, asked)) as stream:
                async for completion in stream:
                    yield completion
        finally:
            self.info.update(generator.info)
