"""Greedy answers of a model by transformers: a Job in on stdin, Answers out on stdout, both JSON.

    python -m phase1.handoff.transformers_process

A process of its own, so that the model's memory goes with it, and damage that ends the process is seen from outside.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from phase1.model.tokenizer import chat_ids, load_tokenizer

SMALL = 1e8  # parameters: below, threads cost more than they give, on a busy machine 20 times more


class Job(BaseModel):
    """The model directory, the user turns to answer, tokens of an answer at most, torch's name of the dtype."""

    model_config = ConfigDict(frozen=True)

    model: Path
    users: list[str]
    max_new_tokens: int
    dtype: str


class Answers(BaseModel):
    """The answers' texts, whether each ended by itself, and what transformers said of the weights while loading."""

    model_config = ConfigDict(frozen=True)

    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    parameters: int
    texts: list[str]
    ended: list[bool]


def answer_all(job: Job) -> Answers:
    """Load the model and answer every question greedily, with none of the model's own sampling settings."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = getattr(torch, job.dtype)
    model, info = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype, output_loading_info=True)
    parameters = sum(p.numel() for p in model.parameters())
    if parameters < SMALL:
        torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    tokenizer = load_tokenizer(job.model)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=job.max_new_tokens,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts, ended = [], []
    for user in job.users:
        prompt = chat_ids(tokenizer, user)
        ids = torch.tensor([prompt], device=device)
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids))[0, len(prompt) :].tolist()
        texts.append(tokenizer.decode(out, skip_special_tokens=True))
        ended.append(len(out) < job.max_new_tokens)
    return Answers(
        missing=sorted(info["missing_keys"]),
        unexpected=sorted(info["unexpected_keys"]),
        mismatched=[str(key) for key in info["mismatched_keys"]],
        parameters=parameters,
        texts=texts,
        ended=ended,
    )


if __name__ == "__main__":
    print(answer_all(Job.model_validate_json(sys.stdin.read())).model_dump_json())
