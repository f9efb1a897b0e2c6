"""--grpo_raw: problems with tests as verl's GRPO trainer reads them, evaluation problems kept out.

A row asks as evaluation does (`Problem.user`) and carries what phase1/reward.py judges by. The files are read twice and
never held: the tests of CodeContests' training problems are gigabytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from phase1.contract.problems import Problem
from phase1.contract.prompts import chat
from phase1.data.decontaminate import EvalIndex, statement_hash, words_of
from phase1.data.statements import accepts_any_answer
from phase1.data.verify import problems_with_tests
from phase1.files import BadInput

TRAIN, VAL = "grpo_train.parquet", "grpo_val.parquet"
ROW_GROUP = 64  # rows: one may hold megabytes of tests
_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", _TURNS),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("problem_id", pa.string()), ("split", pa.string())])),
    ]
)


@dataclass
class Chosen:
    """Which problems of the files become rows.

    Attributes:
        split: the file (TRAIN or VAL) of each problem that is kept, by its place among all.
        dropped: problems by reason: no_tests, no_statement, no_text, contaminated, exact_duplicate, any_answer.
        contamination: each problem that is an evaluation problem, with the rule that found it.
    """

    split: dict[int, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    contamination: list[dict[str, JsonValue]] = field(default_factory=list)

    def rows(self, file: str) -> int:
        """How many rows a file has."""
        return sum(each == file for each in self.split.values())


def choose(paths: Sequence[Path], index: EvalIndex, val_ratio: float, seed: int) -> Chosen:
    """Choose the problems of `paths` and split them.

    Dropped is what would teach something false: evaluation problems, repeats, and problems of which any of several
    answers is right, since the reward knows one of them.

    Args:
        paths: raw files, or CodeContests' own.
        index: the evaluation problems.
        val_ratio: share of the problems that validate, at least one.
        seed: of the draw.

    Raises:
        BadInput: a file is damaged, or fewer than two problems are left.
    """
    chosen = Chosen()
    seen: set[bytes] = set()
    kept: list[int] = []
    for place, problem in enumerate(problems_with_tests(paths, most=0, refused=chosen.dropped)):
        digest = statement_hash(words_of(problem.prompt))
        if hit := index.find_problem(problem):
            chosen.dropped["contaminated"] += 1
            found = {"dataset": hit.dataset, "evaluation_id": hit.problem_id, "rule": hit.rule, "score": hit.score}
            chosen.contamination.append({"problem_id": problem.problem_id, **found})
        elif digest in seen:
            chosen.dropped["exact_duplicate"] += 1
        elif accepts_any_answer(problem.prompt):
            chosen.dropped["any_answer"] += 1
        elif not problem.prompt.strip():
            chosen.dropped["no_statement"] += 1
        elif not _is_text(problem.user):
            chosen.dropped["no_text"] += 1
        else:
            kept.append(place)
        seen.add(digest)
    if len(kept) < 2:
        raise BadInput(
            f"{paths[0]}: {len(kept)} problems are left for GRPO, a training and a validation row need two; dropped: "
            f"{dict(chosen.dropped)}"
        )
    drawn = np.random.RandomState(seed).permutation(len(kept))
    validating = set(drawn[: min(len(kept) - 1, max(1, round(val_ratio * len(kept))))].tolist())
    chosen.split = {place: VAL if i in validating else TRAIN for i, place in enumerate(kept)}
    return chosen


def _is_text(text: str) -> bool:
    """Whether Parquet can hold it: half a surrogate pair is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_rows(paths: Sequence[Path], chosen: Chosen, out: dict[str, Path], most: int) -> None:
    """Write both files.

    Args:
        paths: as `choose` was given them.
        chosen: its answer.
        out: where TRAIN and VAL go.
        most: tests of a problem that are kept, the first ones; 0 = all.
    """
    waiting: dict[str, list[dict[str, JsonValue]]] = {TRAIN: [], VAL: []}
    writers = {name: pq.ParquetWriter(out[name], SCHEMA, compression="zstd") for name in waiting}
    try:
        for place, problem in enumerate(problems_with_tests(paths, most)):
            if (name := chosen.split.get(place)) is None:
                continue
            waiting[name].append(row_of(problem, place, "train" if name == TRAIN else "val"))
            if len(waiting[name]) == ROW_GROUP:
                writers[name].write_table(pa.Table.from_pylist(waiting[name], schema=SCHEMA))
                waiting[name] = []
        for name, rest in waiting.items():
            if rest:
                writers[name].write_table(pa.Table.from_pylist(rest, schema=SCHEMA))
    finally:
        for writer in writers.values():
            writer.close()


def row_of(problem: Problem, index: int, split: str) -> dict[str, JsonValue]:
    """A problem as verl's RLHFDataset reads it.

    `data_source` is a name that verl has no score of its own for: were the reward lost, verl would stop instead of
    running programs outside the sandbox. The ground truth is text, since a column of objects would give every problem
    the fields of all.
    """
    truth: dict[str, JsonValue] = {"problem_id": problem.problem_id, "test_cases": problem.test_cases}
    if problem.test_type == "humaneval":
        truth["prompt"] = problem.prompt
    return {
        "data_source": f"phase1_{problem.test_type}",
        "prompt": chat(problem.user),
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": json.dumps(truth)},
        "extra_info": {"index": index, "problem_id": problem.problem_id, "split": split},
    }
