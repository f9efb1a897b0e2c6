"""Requests: a problem's prompt as token ids, and how long its answer may be.

Every backend is given the same token ids, made here by the checkpoint's tokenizer and chat template. So vLLM is asked
through /v1/completions with ids, not through /v1/chat/completions with messages: there the server renders the template,
with its own version of transformers and the --chat-template it was started with, and a template that adds a system
prompt or a space would differ from training without a word. Prompt lengths are known before a request is sent, for the
order, the room left in the context, and the counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from phase1.contract.problems import Problem
from phase1.contract.records import Completion
from phase1.generate.decoding import Answer
from phase1.generate.sampling import Sampling
from phase1.model.tokenizer import Tokenizer, chat_ids

# Mean answer lengths of Qwen2.5-Coder-7B-Instruct (contract 8): what is expected to take longest is sent first.
EXPECTED_TOKENS = {"codecontests": 250, "humaneval": 124, "mbpp": 54}


class Wanted(NamedTuple):
    """An answer that is still to be generated: the `sample`-th one, from 0, to a problem."""

    problem: Problem
    sample: int


@dataclass(frozen=True)
class Request:
    """One answer to generate. `prompt`: token ids; `max_tokens`: of the answer, as far as the context leaves room."""

    problem: Problem
    sample: int
    prompt: list[int] = field(repr=False)
    max_tokens: int

    def completion(
        self, answer: Answer, *, seconds: float, started: float, session: int, error: str | None = None
    ) -> Completion:
        """The record of this request's answer.

        Args:
            seconds: how long it took to generate.
            started: Unix time at which it was sent.
            session: number of the evaluation's start, from 0.
            error: why there is no answer.
        """
        p = self.problem
        return Completion(
            dataset=p.dataset,
            problem_id=p.problem_id,
            prompt=p.user,
            prompt_sha256=p.user_sha256,
            completion=answer.text,
            finish_reason=answer.reason,
            prompt_tokens=len(self.prompt),
            gen_tokens=answer.tokens,
            gen_time=seconds,
            started=started,
            session=session,
            sample=self.sample,
            error=error,
        )


def make_requests(todo: Iterable[Wanted], tokenizer: Tokenizer, limit: int, sampling: Sampling) -> list[Request]:
    """The requests, longest expected answer first: everything else would wait for a long answer that starts last.

    Args:
        limit: tokens of prompt and answer together. A prompt that fills it gets a request with `max_tokens` below 1.
    """
    prompts: dict[tuple[str, str], list[int]] = {}
    requests = []
    for problem, sample in todo:
        key = (problem.dataset, problem.problem_id)
        if key not in prompts:
            prompts[key] = chat_ids(tokenizer, problem.user)
        room = limit - len(prompts[key])
        requests.append(Request(problem, sample, prompts[key], min(sampling.max_new_tokens, room)))
    return sorted(requests, key=lambda r: (-EXPECTED_TOKENS[r.problem.test_type], -len(r.prompt)))
