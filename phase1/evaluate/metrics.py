"""Records of an evaluation -> metrics.json, summary.json (contract 7) and the QA sample (seed 2.4).

Everything here is derived from `results/{dataset}.jsonl` and can be derived again without GPU or sandbox. Every rate's
denominator is all problems of the set, as the contract fixes it, so the rates of success, the four model errors,
api_error and unknown_error add up to one. What was not the model's doing stays visible beside them: `error_counts` has
every error type, `not_judged_count` the problems that got no verdict (api_error, sandbox_error).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from phase1.contract.problems import EVAL_SETS, EvalSet
from phase1.contract.records import EXEC_SUCCESS, MODEL_ERRORS, OTHER_ERRORS, Record
from phase1.evaluate.forms import extraction_summary
from phase1.files import finite, write_json, write_text

NOT_JUDGED = ("api_error", "sandbox_error")  # no verdict on the model: generation or the judge itself failed
RATES = ("syntax_error", "runtime_error", "timeout", "wrong_answer", "api_error", "unknown_error")
QA_STRATA = ("success", "wrong_answer", "syntax_error", "runtime_error", "timeout")


# ---------------------------------------------------------------------------------------------------------- metrics
def dataset_metrics(records: Sequence[Record]) -> dict[str, Any]:
    """The metrics.json entry of one data set. Times in seconds, rates 0-1; null where nothing could be measured.

    Only sample 0 of each problem counts (EVAL@1), except in `pass_at_k`, which is there where problems have more than
    one sample. `wall_clock_time` is the time from the first request to the last
    verdict within each session, summed over sessions: a resumed evaluation does not count the night in between.
    """
    sampled = pass_at_k(records)
    records = eval_at_1(records)
    n = len(records)
    solved = sum(r.accepted for r in records)
    tokens = sum(r.gen_tokens for r in records)
    gen_time = sum(r.gen_time for r in records)
    judge_time = sum(r.judge_time for r in records)
    wall = wall_clock(records)
    truncated = sum(r.finish_reason == "length" for r in records)
    timeouts = sum(r.error_type == "timeout" for r in records)
    ratios = [r.pass_ratio for r in records]
    counts = Counter(r.error_type for r in records)
    return finite(
        {
            "total_problems": n,
            "accepted_at_1": _ratio(solved, n),
            "pass_ratio_mean": _ratio(sum(ratios), n),
            "pass_ratio_p50": percentile(ratios, 50),
            "pass_ratio_p90": percentile(ratios, 90),
            "total_gen_tokens": tokens,
            "avg_gen_tokens": _ratio(tokens, n),
            "total_gen_time": gen_time,
            "avg_gen_time": _ratio(gen_time, n),
            "total_judge_time": judge_time,
            "avg_judge_time": _ratio(judge_time, n),
            "wall_clock_time": wall,
            "throughput": _ratio(n, wall),
            "cost_per_solved_tokens": _ratio(tokens, solved),
            "cost_per_solved_judge_time": _ratio(judge_time, solved),
            "truncation_count": truncated,
            "truncation_rate": _ratio(truncated, n),
            "wrong_answer_truncated_count": sum(
                r.finish_reason == "length" and r.error_type == "wrong_answer" for r in records
            ),
            "timeout_count": timeouts,
            "timeout_rate": _ratio(timeouts, n),
            "accepted_count": solved,
            "not_judged_count": sum(counts[e] for e in NOT_JUDGED),
            "error_counts": {e: counts[e] for e in dict.fromkeys([*MODEL_ERRORS, *OTHER_ERRORS, *sorted(counts)])},
            **({"pass_at_k": sampled} if sampled else {}),
        }
    )


def dataset_summary(records: Sequence[Record]) -> dict[str, Any]:
    """The summary.json entry of one data set: quality, exec_success_rate, error rates, cost (contract 7).

    `unknown_error_rate` is the share of everything that is neither success nor one of the other five rates
    (empty_output, sandbox_error), whose own counts stand in `error_counts`.
    """
    m = dataset_metrics(records)
    records = eval_at_1(records)
    n = len(records)
    named = [r.error_type if r.error_type in (*RATES, "success") else "unknown_error" for r in records]
    judge_times = [r.judge_time for r in records]
    quality = ("total_problems", "accepted_at_1", "pass_ratio_mean", "pass_ratio_p50", "pass_ratio_p90")
    cost = ("avg_gen_tokens", "total_gen_tokens", "throughput", "cost_per_solved_tokens", "cost_per_solved_judge_time")
    counts = (
        "truncation_rate",
        "wrong_answer_truncated_count",
        "accepted_count",
        "not_judged_count",
        "error_counts",
        "pass_at_k",
    )
    return finite(
        {
            **{k: m[k] for k in quality},
            "exec_success_rate": _ratio(sum(r.error_type in EXEC_SUCCESS for r in records), n),
            **{f"{e}_rate": _ratio(named.count(e), n) for e in RATES},
            "avg_judge_time": m["avg_judge_time"],
            "total_judge_time": m["total_judge_time"],
            "p50_judge_time": percentile(judge_times, 50),
            "p95_judge_time": percentile(judge_times, 95),
            **{k: m[k] for k in cost},
            **{k: m[k] for k in counts if k in m},
            **({"extraction": found} if (found := extraction_summary(records)) else {}),
        }
    )


def overall_summary(records: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """The summary.json `overall` entry: all problems of all sets in one pool."""
    pool = dataset_metrics(list(chain.from_iterable(records.values())))
    keys = (
        "total_problems",
        "accepted_at_1",
        "pass_ratio_mean",
        "pass_ratio_p50",
        "pass_ratio_p90",
        "total_judge_time",
    )
    return {k: pool[k] for k in keys}


def write_metrics(output_dir: str | Path, records: dict[str, list[Record]]) -> dict[str, Any]:
    """Write metrics.json and summary.json of an evaluation (data set -> its records); returns the summary."""
    summary = {
        "datasets": {name: dataset_summary(rows) for name, rows in records.items()},
        "overall": overall_summary(records),
    }
    write_json(Path(output_dir) / "metrics.json", {name: dataset_metrics(rows) for name, rows in records.items()})
    write_json(Path(output_dir) / "summary.json", summary)
    return summary


def eval_at_1(records: Sequence[Record]) -> list[Record]:
    """The records that EVAL@1 counts: the first sample of each problem."""
    return [r for r in records if r.sample == 0]


def pass_at_k(records: Sequence[Record]) -> dict[str, float]:
    """The unbiased estimator of pass@k, 1 - C(n-c, k) / C(n, k) averaged over problems (Chen et al. 2021, section 2.1),
    for n samples a problem of which c were accepted; k as far as every problem has as many. Empty with one sample
    each."""
    accepted: dict[str, list[bool]] = {}
    for r in records:
        accepted.setdefault(r.problem_id, []).append(r.accepted)
    n = min(map(len, accepted.values()), default=0)
    if n < 2:
        return {}
    at = sorted({k for k in (1, 2, 5, 10, 20, 50, 100, 200) if k <= n} | {n})
    return {
        str(k): sum(1 - comb(len(a) - sum(a), k) / comb(len(a), k) for a in accepted.values()) / len(accepted)
        for k in at
    }


def wall_clock(records: Sequence[Record]) -> float:
    """Seconds from the first request to the last verdict of each session, summed over sessions."""
    sessions: dict[int, list[float]] = {}
    for r in records:
        first, last = sessions.setdefault(r.session, [r.started, r.started])
        sessions[r.session] = [min(first, r.started), max(last, r.finished)]
    return sum(last - first for first, last in sessions.values())


def percentile(values: Sequence[float], q: float) -> float | None:
    """numpy's linear percentile; None for no values."""
    return float(np.percentile(values, q)) if len(values) else None


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


# --------------------------------------------------------------------------------------------------------------- QA
def qa_sample(records: Sequence[Record], eval_set: EvalSet, seed: int = 42) -> tuple[list[Record], dict[str, Any]]:
    """A stratified sample of one data set and what was wanted, available and taken of each stratum.

    `qa_per_stratum` of each of QA_STRATA; a stratum with too few gives its places to the others, in turn; what is left
    up to `qa_size` is drawn at random from everything not yet taken. Failures come first in the result.
    """
    rng = random.Random(f"{seed}:{eval_set.name}")
    pools: dict[str, list[Record]] = {s: [] for s in (*QA_STRATA, "other")}
    for r in sorted(eval_at_1(records), key=lambda r: r.problem_id):  # the order of finishing must not matter
        pools[r.error_type if r.error_type in QA_STRATA else "other"].append(r)
    available = {s: len(pool) for s, pool in pools.items()}
    for pool in pools.values():
        rng.shuffle(pool)

    taken: list[Record] = []
    for s in QA_STRATA:
        taken += pools[s][: eval_set.qa_per_stratum]
        del pools[s][: eval_set.qa_per_stratum]
    refill = eval_set.qa_per_stratum * len(QA_STRATA) - len(taken)
    while refill and any(pools.values()):
        for s in (*QA_STRATA, "other"):
            if refill and pools[s]:
                taken.append(pools[s].pop(0))
                refill -= 1
    rest = sorted(chain.from_iterable(pools.values()), key=lambda r: r.problem_id)
    at_random = max(0, min(len(rest), eval_set.qa_size - len(taken)))
    taken += rng.sample(rest, at_random)

    taken.sort(key=lambda r: (r.error_type == "success", r.error_type, r.problem_id))
    counts = Counter(r.error_type if r.error_type in QA_STRATA else "other" for r in taken)
    wanted = dict.fromkeys(QA_STRATA, eval_set.qa_per_stratum)
    return taken, {
        "wanted": eval_set.qa_size,
        "available": sum(available.values()),
        "taken": len(taken),
        "taken_at_random": at_random,
        "forms": dict(Counter(r.form for r in taken if r.rule).most_common()),
        "rules": dict(Counter(r.rule for r in taken if r.rule).most_common()),
        "strata": {s: {"wanted": wanted.get(s, 0), "available": available[s], "taken": counts[s]} for s in pools},
    }


def write_qa_logs(
    output_dir: str | Path, records: dict[str, list[Record]], seed: int = 42, extra: dict | None = None
) -> dict:
    """Write qa_logs/{dataset}_qa.jsonl and qa_logs/qa_summary.json; returns the latter.

    `extra` is {step, checkpoint, model} of the evaluation; each line adds finish_reason and first_failed_case to it.
    A data set outside the registry is sampled like codecontests_valid.
    """
    directory = Path(output_dir) / "qa_logs"
    summary: dict[str, Any] = {"seed": seed, **(extra or {}), "datasets": {}}
    for name, rows in records.items():
        eval_set = EVAL_SETS.get(name) or EvalSet(
            name, len(rows), test_only=False, tier=1, qa_size=30, qa_per_stratum=5
        )
        taken, summary["datasets"][name] = qa_sample(rows, eval_set, seed)
        lines = (json.dumps(qa_line(r, extra or {}), ensure_ascii=False, allow_nan=False) for r in taken)
        write_text(directory / f"{name}_qa.jsonl", "".join(line + "\n" for line in lines))
    write_json(directory / "qa_summary.json", summary)
    return summary


def qa_line(r: Record, extra: dict[str, Any]) -> dict[str, Any]:
    """One line of a QA log (contract 7)."""
    return finite(
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
                **{k: extra.get(k) for k in ("step", "checkpoint", "model")},
                "finish_reason": r.finish_reason,
                "first_failed_case": r.first_failed_case,
                **({"form": r.form, "rule": r.rule, "other": r.other} if r.rule else {}),
            },
        }
    )
