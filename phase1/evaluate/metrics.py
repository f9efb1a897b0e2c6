"""The metrics of an evaluation: METRICS is the one table of them, and metrics.json and summary.json follow from it.

So do the report's values, tests and formats. Everything derives from `results/{dataset}.jsonl` and can be derived again
without GPU or sandbox. The denominator of every rate is all problems of the set, as contract 7 fixes it: the rates of
success, of the four errors of the model, of api_error and of unknown_error add up to one. What the model is not to
blame for stays visible beside them: `error_counts` has every error type, `not_judged_count` the problems without a
verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import comb
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from phase1.contract.records import (
    EXEC_SUCCESS,
    MODEL_ERRORS,
    OTHER_ERRORS,
    Record,
    does_nothing,
    prints_nothing,
    reads_nothing,
)
from phase1.evaluate.answer_forms import extraction_summary
from phase1.evaluate.comparisons import comparison_summary
from phase1.files import finite, write_json

NOT_JUDGED = ("api_error", "sandbox_error")  # no verdict on the model: generation or the judge itself failed
NAMED = ("success", "syntax_error", "runtime_error", "timeout", "wrong_answer", "api_error")  # with a rate of their own
PASS_AT = (1, 2, 5, 10, 20, 50, 100, 200)  # k of pass@k, as far as there are samples


# ----------------------------------------------------------------------------------------------------- units, pooling
@dataclass(frozen=True)
class Unit:
    """How a value is written: times `scale`, rounded to `digits`, with `suffix`; a change has `change_suffix`."""

    name: str
    digits: int
    suffix: str = ""
    change_suffix: str = ""
    scale: int = 1

    def show(self, value: float) -> str:
        """A value: `65.8%`, `0.143`, `7.69 s`."""
        return f"{self.scale * value:.{self.digits}f}{self.suffix}"

    def show_change(self, change: float) -> str:
        """A difference of two values, always signed: `+1.2 pp`, `-0.30 s`."""
        change = change or 0.0  # no -0.0
        return f"{self.scale * change:+.{self.digits}f}{self.change_suffix}"


RATE = Unit("rate", 1, "%", " pp", scale=100)  # a share of the problems, 0 to 1
RATIO = Unit("ratio", 3)  # 0 to 1, of tests passed
TOKENS = Unit("tokens", 1)
SECONDS = Unit("s", 2, " s", " s")
PER_SECOND = Unit("prob/s", 2, " prob/s", " prob/s")  # problems per second
COUNT = Unit("problems", 0)
UNITS = {unit.name: unit for unit in (RATE, RATIO, TOKENS, SECONDS, PER_SECOND, COUNT)}

Value = Callable[[Record], float]  # what one record says of a metric; True counts 1


@dataclass(frozen=True)
class Mean:
    """The mean over all problems; of a yes-or-no value that is a rate."""

    value: Value

    def pool(self, records: Sequence[Record]) -> float | None:
        """The metric of these records; None where there is none."""
        return ratio(sum(map(self.value, records)), len(records))


@dataclass(frozen=True)
class Total:
    """The sum over all problems; of a yes-or-no value that is a count."""

    value: Value

    def pool(self, records: Sequence[Record]) -> float | None:
        """The metric of these records."""
        return sum(map(self.value, records))


@dataclass(frozen=True)
class Percentile:
    """The q-th percentile (0-100) over all problems, by numpy's linear interpolation."""

    value: Value
    q: float

    def pool(self, records: Sequence[Record]) -> float | None:
        """The metric of these records; None where there is none."""
        values = [self.value(r) for r in records]
        return float(np.percentile(values, self.q)) if values else None


@dataclass(frozen=True)
class PerSolved:
    """The sum over all problems, divided by the number of solved ones."""

    value: Value

    def pool(self, records: Sequence[Record]) -> float | None:
        """The metric of these records; None where no problem was solved."""
        return ratio(sum(map(self.value, records)), sum(r.accepted for r in records))


@dataclass(frozen=True)
class OfTheRun:
    """One figure of all records together: no record has a share in it, so two runs cannot be tested on it."""

    pool: Callable[[Sequence[Record]], float | None]


Pooling = Mean | Total | Percentile | PerSolved | OfTheRun


# ---------------------------------------------------------------------------------------------------------- the table
@dataclass(frozen=True)
class Metric:
    """One metric of a data set.

    Attributes:
        name: its key in the files.
        pooling: how it is made of the records.
        unit: what it is measured in and how it is written.
        better: +1 where more is better, -1 where less is, 0 where neither.
        label: its name in the report's table of all data sets; None: it does not stand there.
        in_metrics: whether metrics.json holds it.
        in_summary: whether summary.json holds it for each data set.
        in_overall: whether summary.json holds it for all problems together.
    """

    name: str
    pooling: Pooling
    unit: Unit
    better: int
    label: str | None
    in_metrics: bool = True
    in_summary: bool = True
    in_overall: bool = False


def _accepted(r: Record) -> bool:
    return r.accepted


def _ran_to_its_end(r: Record) -> bool:
    return r.error_type in EXEC_SUCCESS


def _ended_as(error_type: str) -> Value:
    return lambda r: r.error_type == error_type


def _ended_otherwise(r: Record) -> bool:
    return r.error_type not in NAMED


def _pass_ratio(r: Record) -> float:
    return r.pass_ratio


def _gen_tokens(r: Record) -> int:
    return r.gen_tokens


def _gen_time(r: Record) -> float:
    return r.gen_time


def _judge_time(r: Record) -> float:
    return r.judge_time


def _cut_off(r: Record) -> bool:
    return r.finish_reason == "length"


def _cut_off_and_wrong(r: Record) -> bool:
    return r.finish_reason == "length" and r.error_type == "wrong_answer"


def _not_judged(r: Record) -> bool:
    return r.error_type in NOT_JUDGED


def _silent_count(records: Sequence[Record]) -> float | None:
    """None where the tests are asserts, or a record is too old to say."""
    silent = [prints_nothing(r) for r in records]
    if None in silent or all(r.tests_silent is None for r in records):
        return None
    return sum(map(bool, silent))


def _silent_rate(records: Sequence[Record]) -> float | None:
    count = _silent_count(records)
    return None if count is None else ratio(count, len(records))


def _unread_count(records: Sequence[Record]) -> float | None:
    """As `_silent_count`, of programs that read nothing."""
    unread = [reads_nothing(r) for r in records]
    if None in unread or all(r.tests_unread is None for r in records):
        return None
    return sum(map(bool, unread))


def _unread_rate(records: Sequence[Record]) -> float | None:
    count = _unread_count(records)
    return None if count is None else ratio(count, len(records))


def _idle_count(records: Sequence[Record]) -> float | None:
    """As `_silent_count`, of programs that were wrong and printed nothing or read nothing."""
    idle = [does_nothing(r) for r in records]
    if None in idle or all(r.tests_silent is None for r in records):
        return None
    return sum(map(bool, idle))


def _idle_rate(records: Sequence[Record]) -> float | None:
    count = _idle_count(records)
    return None if count is None else ratio(count, len(records))


def _throughput(records: Sequence[Record]) -> float | None:
    return ratio(len(records), wall_clock(records))


def wall_clock(records: Sequence[Record]) -> float:
    """Seconds from the first request to the last verdict of each session, summed over the sessions.

    A resumed evaluation does not count the night between two sessions.
    """
    spans: dict[int, tuple[float, float]] = {}
    for r in records:
        first, last = spans.get(r.session, (r.started, r.started))
        spans[r.session] = min(first, r.started), max(last, r.finished)
    return sum(last - first for first, last in spans.values())


# In the order of metrics.json. Rates are 0 to 1, times seconds; a value is null where nothing could be measured.
METRICS = (
    Metric("total_problems", OfTheRun(len), COUNT, 0, None, in_overall=True),
    Metric("accepted_at_1", Mean(_accepted), RATE, +1, "accepted@1", in_overall=True),
    Metric("pass_ratio_mean", Mean(_pass_ratio), RATIO, +1, "pass_ratio", in_overall=True),
    Metric("pass_ratio_p50", Percentile(_pass_ratio, 50), RATIO, +1, None, in_overall=True),
    Metric("pass_ratio_p90", Percentile(_pass_ratio, 90), RATIO, +1, None, in_overall=True),
    Metric("exec_success_rate", Mean(_ran_to_its_end), RATE, +1, "exec_success", in_metrics=False),
    Metric("syntax_error_rate", Mean(_ended_as("syntax_error")), RATE, -1, "syntax", in_metrics=False),
    Metric("runtime_error_rate", Mean(_ended_as("runtime_error")), RATE, -1, "runtime", in_metrics=False),
    Metric("wrong_answer_rate", Mean(_ended_as("wrong_answer")), RATE, 0, "wrong answer", in_metrics=False),
    Metric("api_error_rate", Mean(_ended_as("api_error")), RATE, -1, "api error", in_metrics=False),
    # Everything that has no rate of its own: empty_output, sandbox_error; `error_counts` tells them apart.
    Metric("unknown_error_rate", Mean(_ended_otherwise), RATE, -1, "unknown", in_metrics=False),
    Metric("total_gen_tokens", Total(_gen_tokens), TOKENS, 0, None),
    Metric("avg_gen_tokens", Mean(_gen_tokens), TOKENS, 0, "tokens"),
    Metric("total_gen_time", Total(_gen_time), SECONDS, 0, None, in_summary=False),
    Metric("avg_gen_time", Mean(_gen_time), SECONDS, 0, None, in_summary=False),
    Metric("total_judge_time", Total(_judge_time), SECONDS, -1, None, in_overall=True),
    Metric("avg_judge_time", Mean(_judge_time), SECONDS, -1, "judge time"),
    Metric("p50_judge_time", Percentile(_judge_time, 50), SECONDS, -1, None, in_metrics=False),
    Metric("p95_judge_time", Percentile(_judge_time, 95), SECONDS, -1, None, in_metrics=False),
    Metric("wall_clock_time", OfTheRun(wall_clock), SECONDS, -1, None, in_summary=False),
    Metric("throughput", OfTheRun(_throughput), PER_SECOND, +1, "throughput"),
    Metric("cost_per_solved_tokens", PerSolved(_gen_tokens), TOKENS, -1, "tokens a solved one"),
    Metric("cost_per_solved_judge_time", PerSolved(_judge_time), SECONDS, -1, "judge time a solved one"),
    Metric("truncation_count", Total(_cut_off), COUNT, -1, None, in_summary=False),
    Metric("truncation_rate", Mean(_cut_off), RATE, -1, "truncated"),
    Metric("wrong_answer_truncated_count", Total(_cut_off_and_wrong), COUNT, -1, None),
    Metric("timeout_count", Total(_ended_as("timeout")), COUNT, -1, None, in_summary=False),
    Metric("timeout_rate", Mean(_ended_as("timeout")), RATE, -1, "timeout"),
    Metric("accepted_count", Total(_accepted), COUNT, +1, None),
    Metric("not_judged_count", Total(_not_judged), COUNT, -1, None),
    # Programs that run to their end on every test and print nothing: exec_success_rate counts them.
    Metric("silent_count", OfTheRun(_silent_count), COUNT, -1, None),
    Metric("silent_rate", OfTheRun(_silent_rate), RATE, -1, "prints nothing"),
    Metric("unread_count", OfTheRun(_unread_count), COUNT, -1, None),
    Metric("unread_rate", OfTheRun(_unread_rate), RATE, -1, "reads nothing"),
    # Those of the silent that are known, and wrong ones that read nothing of their input: a constant solves nothing.
    Metric("idle_count", OfTheRun(_idle_count), COUNT, -1, None),
    Metric("idle_rate", OfTheRun(_idle_rate), RATE, -1, "does nothing"),
)

# The order of summary.json begins as contract 7 lists it; other metrics follow in the order of METRICS.
SUMMARY_ORDER = (
    "total_problems",
    "accepted_at_1",
    "pass_ratio_mean",
    "pass_ratio_p50",
    "pass_ratio_p90",
    "exec_success_rate",
    "syntax_error_rate",
    "runtime_error_rate",
    "timeout_rate",
    "wrong_answer_rate",
    "api_error_rate",
    "unknown_error_rate",
    "avg_judge_time",
    "total_judge_time",
    "p50_judge_time",
    "p95_judge_time",
    "avg_gen_tokens",
    "total_gen_tokens",
)


def metric(name: str) -> Metric:
    """The metric of this name.

    Raises:
        KeyError: METRICS has none.
    """
    for m in METRICS:
        if m.name == name:
            return m
    raise KeyError(name)


def is_share(name: str) -> bool:
    """Whether values of a metric, known here or only by its name, lie between 0 and 1."""
    known = any(m.name == name and m.unit in (RATE, RATIO) for m in METRICS)
    return known or name.startswith("pass_ratio_") or name.endswith("_rate")


def in_order(first: Sequence[str]) -> list[Metric]:
    """All metrics: those named in `first` in its order, then the rest in the order of METRICS."""
    return [*map(metric, first), *(m for m in METRICS if m.name not in first)]


# ---------------------------------------------------------------------------------------------------------- the files
def dataset_metrics(records: Sequence[Record]) -> dict[str, JsonValue]:
    """The entry of one data set in metrics.json: the metrics, `error_counts` and, with several samples, `pass_at_k`.

    All but `pass_at_k` count the first sample of each problem alone (EVAL@1).
    """
    first = eval_at_1(records)
    return {**_pooled((m for m in METRICS if m.in_metrics), first), **_by_kind(records)}


def dataset_summary(records: Sequence[Record]) -> dict[str, JsonValue]:
    """The entry of one data set in summary.json (contract 7): as `dataset_metrics`, and where recorded `extraction` and
    `comparison`."""
    first = eval_at_1(records)
    found = {**_pooled((m for m in in_order(SUMMARY_ORDER) if m.in_summary), first), **_by_kind(records)}
    if extraction := extraction_summary(first):
        found["extraction"] = extraction
    if comparison := comparison_summary(first):
        found["comparison"] = comparison
    return found


def overall_summary(records: Mapping[str, Sequence[Record]]) -> dict[str, JsonValue]:
    """The entry `overall` of summary.json: the problems of all data sets in one pool."""
    first = eval_at_1(chain.from_iterable(records.values()))
    return _pooled((m for m in METRICS if m.in_overall), first)


def write_metrics(output_dir: str | Path, records: Mapping[str, Sequence[Record]]) -> dict[str, JsonValue]:
    """Write metrics.json and summary.json of an evaluation from its records by data set; returns the summary."""
    datasets: dict[str, JsonValue] = {name: dataset_summary(rows) for name, rows in records.items()}
    summary: dict[str, JsonValue] = {"datasets": datasets, "overall": overall_summary(records)}
    write_json(Path(output_dir) / "metrics.json", {name: dataset_metrics(rows) for name, rows in records.items()})
    write_json(Path(output_dir) / "summary.json", summary)
    return summary


def _pooled(metrics: Iterable[Metric], records: Sequence[Record]) -> dict[str, JsonValue]:
    values: dict[str, JsonValue] = finite({m.name: m.pooling.pool(records) for m in metrics})
    return values


def _by_kind(records: Sequence[Record]) -> dict[str, JsonValue]:
    """What is not one number: how many problems ended in each way, and pass@k."""
    counts = Counter(r.error_type for r in eval_at_1(records))
    kinds = dict.fromkeys([*MODEL_ERRORS, *OTHER_ERRORS, *sorted(counts)])
    found: dict[str, JsonValue] = {"error_counts": {kind: counts[kind] for kind in kinds}}
    if sampled := pass_at_k(records):
        found["pass_at_k"] = dict(sampled)
    return found


def eval_at_1(records: Iterable[Record]) -> list[Record]:
    """The records that EVAL@1 counts: the first sample of each problem."""
    return [r for r in records if r.sample == 0]


def pass_at_k(records: Sequence[Record]) -> dict[str, float]:
    """The unbiased estimator of pass@k by k, averaged over the problems; empty where one has a single sample.

    1 - C(n-c, k) / C(n, k) for a problem with n samples of which c were accepted (Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", section 2.1). k is one of PASS_AT, or the number of samples that every problem
    has.
    """
    accepted: dict[str, list[bool]] = {}
    for r in records:
        accepted.setdefault(r.problem_id, []).append(r.accepted)
    most = min(map(len, accepted.values()), default=0)
    if most < 2:
        return {}
    found = {}
    for k in sorted({*(k for k in PASS_AT if k <= most), most}):
        missed = (comb(len(a) - sum(a), k) / comb(len(a), k) for a in accepted.values())
        found[str(k)] = sum(1 - share for share in missed) / len(accepted)
    return found


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient; None for a denominator of 0."""
    return numerator / denominator if denominator else None
