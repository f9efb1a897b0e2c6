"""What is asked of a model: EVAL@1's sampling, a request an answer, its prompt as token ids, and how its answer ends.

EVAL@1 (contract 5) is pinned here and nowhere else. A model's own generation_config.json must not change it
(Qwen2.5-Coder's sets repetition_penalty 1.1, temperature 0.7, top_k 20); only its end-of-text ids are still read.

Every generator is given the same token ids, made here by the checkpoint's tokenizer and chat template. So vLLM is asked
through /v1/completions with ids, not through /v1/chat/completions with messages: there the server renders the template,
with its own version of transformers and whatever --chat-template it was started with, and a template that adds a system
prompt or a space would be a silent mismatch with training. Prompt tokens are then known before a request is sent, for
the order, the room left in the context and the counts. Answers come back as ids too and are decoded here: the server's
own text, decoded as it streams, loses the end of an answer with broken UTF-8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.contract.problems import Problem
from phase1.contract.records import Completion
from phase1.files import read_json
from phase1.model.tokenizer import Tokenizer, chat_ids

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

    def identity(self) -> dict[str, JsonValue]:
        """What run.json keeps: greedy decoding has no seed and one answer."""
        fields = asdict(self)
        if self.temperature == 0:
            del fields["n_samples"], fields["seed"]
        return fields


class Answer(NamedTuple):
    """One answer that is wanted: a problem and the number of the sample."""

    problem: Problem
    sample: int


@dataclass(frozen=True)
class Request:
    """One answer to generate. `prompt`: token ids; `max_tokens`: what the context leaves of max_new_tokens."""

    problem: Problem
    sample: int
    prompt: list[int] = field(repr=False)
    max_tokens: int

    def completion(
        self,
        text: str = "",
        *,
        reason: str,
        n_tokens: int = 0,
        seconds: float = 0.0,
        started: float,
        session: int,
        error: str | None = None,
    ) -> Completion:
        """The line that goes to disk. `reason`: finish_reason; `started`: Unix time; `error`: why it failed."""
        return Completion(
            dataset=self.problem.dataset,
            problem_id=self.problem.problem_id,
            prompt=self.problem.user,
            prompt_sha256=self.problem.user_sha256,
            completion=text,
            finish_reason=reason,
            prompt_tokens=len(self.prompt),
            gen_tokens=n_tokens,
            gen_time=seconds,
            started=started,
            session=session,
            sample=self.sample,
            error=error,
        )

    def seed(self, seed: int) -> int:
        """The same for this problem and sample whatever the order and the server, so that a resumed run samples what an
        undisturbed one does."""
        return int.from_bytes(
            hashlib.sha256(f"{seed}:{self.problem.problem_id}:{self.sample}".encode()).digest()[:4], "big"
        )


def prompt_ids(tokenizer: Tokenizer, problem: Problem) -> list[int]:
    """The token ids that the model is given for a problem: system and user turn and the opening of the answer."""
    return chat_ids(tokenizer, problem.user)


def make_requests(todo: Sequence[Answer], tokenizer: Tokenizer, limit: int, sampling: Sampling) -> list[Request]:
    """The requests, longest expected first: a long answer that starts last is what everything else waits for."""
    prompts: dict[int, list[int]] = {}
    requests = []
    for problem, sample in todo:
        ids = prompts.setdefault(id(problem), [])
        if not ids:
            ids += prompt_ids(tokenizer, problem)
        requests.append(Request(problem, sample, ids, min(sampling.max_new_tokens, limit - len(ids))))
    return sorted(requests, key=lambda r: (-EXPECTED_TOKENS[r.problem.test_type], -len(r.prompt)))


def context_limit(model_path: Path, max_model_len: int) -> int:
    """Tokens of prompt and answer together: `max_model_len`, or what the model can, if that is less."""
    return min(max_model_len, read_json(model_path / "config.json").get("max_position_embeddings") or max_model_len)


def stop_ids(model_path: Path, tokenizer: Tokenizer) -> list[int]:
    """The ids that end an answer: the model's own (generation_config.json, else config.json) and the tokenizer's."""
    path = model_path / "generation_config.json"
    own = (read_json(path) if path.exists() else {}).get("eos_token_id")
    if own is None:
        own = read_json(model_path / "config.json").get("eos_token_id")
    ids: set[int] = {own} if isinstance(own, int) else set(own or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    return sorted(ids)


class Decoded(NamedTuple):
    """An answer's text, its finish_reason (`stop` or `length`), and how many tokens were generated."""

    text: str
    reason: str
    n_tokens: int


def decode(tokenizer: Tokenizer, tokens: list[int], stops: set[int]) -> Decoded:
    """An answer's ids up to the first that ends it, which counts as generated.

    No clean-up of spaces, which a tokenizer's settings may ask for: this is code.
    """
    end = next((i for i, t in enumerate(tokens) if t in stops), None)
    text = tokenizer.decode(tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Decoded(text, "length", len(tokens)) if end is None else Decoded(text, "stop", end + 1)
