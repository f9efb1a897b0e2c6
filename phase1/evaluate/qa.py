"""The QA sample of an evaluation (seed 2.4): a stratified draw of its records for a person to read.

`qa_logs/{dataset}_qa.jsonl` holds a line an answer, `qa_logs/qa_summary.json` how many of each kind were wanted, there
and taken.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.contract.problems import EVAL_SETS, EvalSet
from phase1.contract.records import Record
from phase1.evaluate.metrics import eval_at_1
from phase1.files import finite, write_json, write_text

STRATA = ("success", "wrong_answer", "syntax_error", "runtime_error", "timeout")  # of the seed's 2.4
OTHER = "other"  # every further error type: never drawn as a stratum, only to fill up
ORIGIN = ("step", "checkpoint", "model")  # what a line says of the evaluation it belongs to


class QaSample(NamedTuple):
    """A drawn sample: its records, failures first, and its entry in qa_summary.json."""

    records: list[Record]
    summary: dict[str, JsonValue]


def qa_sample(records: Sequence[Record], eval_set: EvalSet, seed: int = 42) -> QaSample:
    """Draw the sample of one data set; the same records in any order and the same seed give the same sample.

    Each of STRATA gives `qa_per_stratum` records. Where one has fewer, the others fill its places in turn. What is
    then left up to `qa_size` is drawn at random from all records not yet taken.
    """
    rng = random.Random(f"{seed}:{eval_set.name}")
    pools: dict[str, list[Record]] = {s: [] for s in (*STRATA, OTHER)}
    for r in sorted(eval_at_1(records), key=lambda r: r.problem_id):  # the order of finishing must not matter
        pools[_stratum(r)].append(r)
    available = {s: len(pool) for s, pool in pools.items()}
    for pool in pools.values():
        rng.shuffle(pool)

    taken: list[Record] = []
    for s in STRATA:
        taken += pools[s][: eval_set.qa_per_stratum]
        del pools[s][: eval_set.qa_per_stratum]
    missing = eval_set.qa_per_stratum * len(STRATA) - len(taken)
    while missing and any(pools.values()):
        for pool in pools.values():
            if missing and pool:
                taken.append(pool.pop(0))
                missing -= 1
    rest = sorted(chain.from_iterable(pools.values()), key=lambda r: r.problem_id)
    at_random = max(0, min(len(rest), eval_set.qa_size - len(taken)))
    taken += rng.sample(rest, at_random)

    taken.sort(key=lambda r: (r.error_type == "success", r.error_type, r.problem_id))
    counts = Counter(map(_stratum, taken))
    strata: dict[str, JsonValue] = {
        s: {"wanted": 0 if s == OTHER else eval_set.qa_per_stratum, "available": available[s], "taken": counts[s]}
        for s in pools
    }
    summary: dict[str, JsonValue] = {
        "wanted": eval_set.qa_size,
        "available": sum(available.values()),
        "taken": len(taken),
        "taken_at_random": at_random,
        "forms": dict(Counter(r.form for r in taken if r.rule).most_common()),
        "rules": dict(Counter(r.rule for r in taken if r.rule).most_common()),
        "strata": strata,
    }
    return QaSample(taken, summary)


def _stratum(record: Record) -> str:
    return record.error_type if record.error_type in STRATA else OTHER


def write_qa_logs(
    output_dir: str | Path,
    records: Mapping[str, Sequence[Record]],
    sets: Mapping[str, EvalSet] = EVAL_SETS,
    seed: int = 42,
    extra: Mapping[str, JsonValue] | None = None,
) -> dict[str, JsonValue]:
    """Write qa_logs/{dataset}_qa.jsonl and qa_logs/qa_summary.json.

    Args:
        output_dir: the evaluation's folder.
        records: by data set.
        sets: all sets by name; what is none of them is sampled like codecontests_valid.
        seed: of the draw.
        extra: ORIGIN of the evaluation, repeated in each line and in the summary.

    Returns:
        What qa_summary.json holds.
    """
    directory, extra = Path(output_dir) / "qa_logs", extra or {}
    datasets: dict[str, JsonValue] = {}
    for name, rows in records.items():
        eval_set = sets.get(name) or EvalSet(name, len(rows), test_only=False, tier=1, qa_size=30, qa_per_stratum=5)
        taken, datasets[name] = qa_sample(rows, eval_set, seed)
        lines = (json.dumps(qa_line(r, extra), ensure_ascii=False, allow_nan=False) for r in taken)
        write_text(directory / f"{name}_qa.jsonl", "".join(line + "\n" for line in lines))
    summary: dict[str, JsonValue] = {"seed": seed, **extra, "datasets": datasets}
    write_json(directory / "qa_summary.json", summary)
    return summary


def qa_line(r: Record, extra: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """One line of a QA log (contract 7); `extra` as in `write_qa_logs`."""
    found = {"form": r.form, "rule": r.rule, "other": r.other} if r.rule else {}
    line: dict[str, JsonValue] = finite(
        {
            "dataset": r.dataset,
            "problem_id": r.problem_id,
            "prompt": r.prompt,
            "response": r.completion,
            "accepted": r.accepted,
            "pass_ratio": r.pass_ratio,
            "error_type": r.error_type,
            "judge_time": r.judge_time,
            "gen_time": r.gen_time,
            "gen_tokens": r.gen_tokens,
            "extra": {
                **{k: extra.get(k) for k in ORIGIN},
                "finish_reason": r.finish_reason,
                "first_failed_case": r.first_failed_case,
                **found,
            },
        }
    )
    return line
