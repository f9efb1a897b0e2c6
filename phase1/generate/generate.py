"""Problems to completions: prompts, the chat template's checks, then the backend."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from phase1.contract.records import Completion
from phase1.generate.decoding import Answer
from phase1.generate.make_requests import Wanted, make_requests
from phase1.generate.model_config import context_limit, own_stop_ids, stop_ids
from phase1.generate.protocol import BackendRecord, Generation, Generator, Progress, Setup
from phase1.generate.sampling import Sampling
from phase1.model.tokenizer import (
    Tokenizer,
    check_template,
    compare_with_base,
    load_chat_tokenizer,
    lost_in_round_trip,
    template_sha256,
    without_torch,
)


@dataclass(frozen=True)
class Answering:
    """Who answers, and how. `base_model`: the model that training started from, whose chat template was training's."""

    model_path: Path
    sampling: Sampling
    generator: Generator
    base_model: Path | None = None


@contextlib.asynccontextmanager
async def open_generation(
    todo: list[Wanted], answering: Answering, tokenizer: Tokenizer, session: int, progress: Progress
) -> AsyncIterator[Generation]:
    """Begin to generate every answer of `todo`.

    A problem whose prompt alone fills the context gives a completion with finish_reason `too_long`.

    Args:
        tokenizer: from `load_checked_tokenizer`.
        session: number of the evaluation's start, from 0.

    Raises:
        BadInput: the backend cannot be started.
    """
    model_path, sampling = answering.model_path, answering.sampling
    setup = Setup(
        model_path=model_path,
        tokenizer=tokenizer,
        sampling=sampling,
        stop_ids=stop_ids(model_path, tokenizer),
        context_limit=context_limit(model_path, sampling.max_model_len),
        session=session,
    )
    requests = await asyncio.to_thread(make_requests, todo, tokenizer, setup.context_limit, sampling)
    too_long = []
    for r in requests:
        if r.max_tokens < 1:
            why = f"the prompt has {len(r.prompt)} tokens, the limit is {setup.context_limit}"
            nothing = Answer("", "too_long", 0)
            too_long.append(r.completion(nothing, seconds=0.0, started=time.time(), session=session, error=why))
    facts = {
        "chat_template_sha256": template_sha256(tokenizer),
        "chat_template_compared_with": str(answering.base_model) if answering.base_model else None,
    }
    async with contextlib.AsyncExitStack() as stack:
        record, answered, at_end = BackendRecord({}), None, Generation.facts_at_end
        if sendable := [r for r in requests if r.max_tokens >= 1]:
            begun = await stack.enter_async_context(answering.generator.open(sendable, setup, progress))
            record, answered, at_end = begun.record, begun.completions, begun.facts_at_end
        record = replace(record, facts={**facts, **record.facts})
        yield Generation(record, _one_after_another(too_long, answered), at_end)


def load_checked_tokenizer(answering: Answering) -> Tokenizer:
    """The checkpoint's tokenizer, once it and its chat template have been compared with training's.

    Raises:
        BadInput: it or its chat template cannot be used.
    """
    with contextlib.nullcontext() if answering.generator.needs_torch else without_torch():
        tokenizer = load_chat_tokenizer(answering.model_path)
    check_template(tokenizer, answering.model_path)
    for line in lost_in_round_trip(tokenizer):
        print(f"warning: {answering.model_path}: the tokenizer loses text: {line}", file=sys.stderr)
    own = own_stop_ids(answering.model_path)
    if own and tokenizer.eos_token_id not in own:
        print(
            f"warning: {answering.model_path}: the tokenizer ends answers with id {tokenizer.eos_token_id}, the model "
            f"with {own}; both end them here, only the second elsewhere",
            file=sys.stderr,
        )
    if answering.base_model:
        compare_with_base(tokenizer, answering.model_path, answering.base_model)
    return tokenizer


async def _one_after_another(
    first: list[Completion], then: AsyncGenerator[Completion, None] | None
) -> AsyncGenerator[Completion, None]:
    for completion in first:
        yield completion
    if then:
        async with contextlib.aclosing(then) as stream:
            async for completion in stream:
                yield completion
