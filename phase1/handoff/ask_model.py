"""Questions for the model, and what transformers answers to them: greedily, in a process of its own.

The questions are the first of the checkpoint's own evaluation, where one is at hand, else one for each kind of test.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phase1.contract.prompts import user_message
from phase1.contract.records import Record, read_records
from phase1.handoff.transformers_process import Answers, Job

PROMPTS = (
    user_message("codecontests", "Read two integers a and b from one line and print their sum."),
    user_message("humaneval", 'def add(a: int, b: int) -> int:\n    """Return the sum of a and b."""\n'),
    user_message("mbpp", "Write a function to return the larger of two numbers.", "larger", "larger(1, 2)"),
)
FROM_EVALUATION = 4  # questions that are taken from an evaluation
TOOLKIT = Path(__file__).resolve().parents[2]  # where `python -m phase1…` finds the package


@dataclass(frozen=True)
class Question:
    """A user turn, and what the evaluation recorded as the model's answer; None where there is no evaluation."""

    user: str
    recorded: str | None = None


@dataclass(frozen=True)
class Generation:
    """What transformers answered to `questions`.

    `problem`: why it gave no answers; empty where it did. `random_weights`: tensors that the files lack, hold in excess
    or in another shape, a line each kind: transformers fills tensors in at random, and the answers mean nothing.
    """

    questions: list[Question]
    problem: str = ""
    random_weights: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    parameters: int = 0

    @property
    def meaningful(self) -> list[str]:
        """The answers; none where they come from random weights."""
        return [] if self.random_weights else self.texts


def questions(evaluation: Path | None) -> list[Question]:
    """What the model is asked."""
    records = itertools.islice(_records(evaluation), FROM_EVALUATION) if evaluation else ()
    return [Question(r.prompt, r.completion) for r in records] or [Question(p) for p in PROMPTS]


def _records(evaluation: Path) -> Iterator[Record]:
    """The evaluation's records, data sets in the order of their names."""
    for path in sorted((evaluation / "results").glob("*.jsonl")):
        yield from read_records(path)


def ask_transformers(
    model: Path, asked: list[Question], *, dtype: str, max_new_tokens: int, timeout: float, tied: bool
) -> Generation:
    """Load the model with transformers and have it answer greedily; that process ends with the answers.

    Args:
        model: the directory, an absolute path.
        asked: the questions.
        dtype: torch's name of it, in which the model is loaded.
        max_new_tokens: of each answer.
        timeout: seconds for loading and answering.
        tied: whether the head is the embedding, and so need not be among the weights.
    """
    job = Job(model=model, users=[q.user for q in asked], max_new_tokens=max_new_tokens, dtype=dtype)
    command = [sys.executable, "-m", "phase1.handoff.transformers_process"]
    try:
        done = subprocess.run(
            command, input=job.model_dump_json(), capture_output=True, text=True, timeout=timeout, cwd=TOOLKIT
        )
    except subprocess.TimeoutExpired:
        return Generation(asked, f"no answer within {timeout:.0f} s")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["?"])[-1][:300]
        return Generation(asked, f"transformers cannot load or run it: {reason}")
    return generation_of(asked, Answers.model_validate_json(done.stdout.splitlines()[-1]), tied=tied)


def generation_of(asked: list[Question], found: Answers, *, tied: bool) -> Generation:
    """What the answers and transformers' words about the weights mean; `tied` as above."""
    missing = [] if tied and found.missing == ["lm_head.weight"] else found.missing
    kinds = {"missing": missing, "unexpected": found.unexpected, "mismatched": found.mismatched}
    return Generation(
        asked,
        random_weights=[f"weights {kind}: {names[0]}" for kind, names in kinds.items() if names],
        texts=found.texts,
        ended=found.ended,
        parameters=found.parameters,
    )
