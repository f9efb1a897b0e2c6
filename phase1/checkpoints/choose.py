"""Which evaluated checkpoint is the best, and whether its lead is more than noise. Another rule is another `rank`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from phase1.checkpoints.rates import ACCEPTED, EXEC_SUCCESS_RATE, IDLE, SELECTION_SET, SILENT, paired_test
from phase1.contract.records import Record, read_records
from phase1.contract.state.best_checkpoint import BestCheckpoint, Rates, RunnerUp, WithoutSilent
from phase1.contract.state.evaluation_run import Behaviour, EvaluatedSet, EvaluationRun
from phase1.evaluate.finished import PREFIX, FinishedEvaluation
from phase1.report import silent as silence
from phase1.report import stats

SELECTION_METRIC = f"summary.datasets.{EXEC_SUCCESS_RATE.dataset}.{EXEC_SUCCESS_RATE.metric}"


# ------------------------------------------------------------------------------------------------------------- the rule
@dataclass(frozen=True)
class Measured:
    """How an evaluation came to its rates on codecontests_valid: evaluations that differ in it are not comparable."""

    problems: EvaluatedSet | None
    prompts_sha256: str | None
    sampling: dict[str, JsonValue]
    judge: dict[str, JsonValue]
    behaviour: Behaviour | None  # None, not known, is another than any that is

    @classmethod
    def of(cls, run: EvaluationRun) -> Measured:
        """What a run.json records of it."""
        return cls(run.datasets.get(SELECTION_SET), run.prompts_sha256, run.sampling, run.judge_settings, run.behaviour)


@dataclass(frozen=True)
class Candidate:
    """What the rule looks at in one evaluation. Rates are shares of the problems, 0 to 1."""

    step: int
    exec_success_rate: float
    accepted_at_1: float | None
    problems: int
    not_judged: int | None  # failures that are not the model's, counted against it in the rates
    measured: Measured
    model_path: str | None
    silent_rate: float | None = None  # programs that ran and printed nothing; None where the evaluation does not say
    idle_rate: float | None = None  # these, and wrong ones that read nothing of their input

    @property
    def spoken(self) -> float:
        """exec_success_rate without the programs that are known to print nothing."""
        return self.exec_success_rate - (self.silent_rate or 0.0)


@dataclass(frozen=True)
class Ranking:
    """The candidates, best first, and the steps that were left out because they were measured otherwise."""

    best_first: list[Candidate] = field(default_factory=list)
    not_comparable: list[int] = field(default_factory=list)

    def top(self, count: int) -> list[int]:
        """The steps of the `count` best."""
        return [c.step for c in self.best_first[:count]]


def rank(evaluations: Iterable[FinishedEvaluation]) -> Ranking:
    """The rule by which the best checkpoint is chosen.

    1. Only an evaluation with exec_success_rate on codecontests_valid is a candidate.
    2. Only evaluations that were measured alike are ranked: those over the most problems, of these the largest group.
    3. The highest exec_success_rate is the best; of equal ones the higher accepted_at_1, then the earlier step.
    """
    candidates = [c for c in map(_candidate, evaluations) if c is not None]
    if not candidates:
        return Ranking()
    alike = max(_measured_alike(candidates), key=lambda group: (max(c.problems for c in group), len(group)))
    best_first = sorted(alike, key=lambda c: (-c.exec_success_rate, -(c.accepted_at_1 or 0.0), c.step))
    return Ranking(best_first, sorted(c.step for c in candidates if c not in alike))


def _candidate(e: FinishedEvaluation) -> Candidate | None:
    rate = e.metric(EXEC_SUCCESS_RATE.dataset, EXEC_SUCCESS_RATE.metric)
    if rate is None:
        return None
    not_judged = e.metric(SELECTION_SET, "not_judged_count")
    return Candidate(
        step=e.step,
        exec_success_rate=rate,
        accepted_at_1=e.metric(ACCEPTED.dataset, ACCEPTED.metric),
        problems=int(e.metric(SELECTION_SET, "total_problems") or 0),
        not_judged=None if not_judged is None else int(not_judged),
        measured=Measured.of(e.run),
        model_path=e.run.model.path,
        silent_rate=e.metric(SILENT.dataset, SILENT.metric),
        idle_rate=e.metric(IDLE.dataset, IDLE.metric),
    )


def _measured_alike(candidates: list[Candidate]) -> list[list[Candidate]]:
    groups: list[list[Candidate]] = []
    for c in candidates:
        for group in groups:
            if group[0].measured == c.measured:
                group.append(c)
                break
        else:
            groups.append([c])
    return groups


# ----------------------------------------------------------------------------------------------------------- the result
def choose_best(ranking: Ranking) -> BestCheckpoint | None:
    """best_checkpoint.json of a ranking, None of an empty one; without the runner-up, and not yet kept."""
    if not ranking.best_first:
        return None
    best = ranking.best_first[0]
    by_step = sorted(ranking.best_first, key=lambda c: c.step)
    without = _without_silent(ranking)
    warning = _warning(best, without)
    return BestCheckpoint(
        **({"warning": warning} if warning else {}),
        best_step=best.step,
        best_exec_success_rate=best.exec_success_rate,
        best_accepted_at_1=best.accepted_at_1,
        without_silent=without,
        model_path=best.model_path,
        selection_metric=SELECTION_METRIC,
        all_checkpoints={
            str(c.step): Rates(
                exec_success_rate=c.exec_success_rate, accepted_at_1=c.accepted_at_1, silent_rate=c.silent_rate
            )
            for c in by_step
        },
        problems=best.problems,
        interval=stats.wilson(round(best.exec_success_rate * best.problems), best.problems),
        not_judged=best.not_judged,
        not_comparable=ranking.not_comparable,
    )


def _without_silent(ranking: Ranking) -> WithoutSilent | None:
    """The same rule without the programs that print nothing; None where a candidate does not say which do."""
    if any(c.silent_rate is None for c in ranking.best_first):
        return None
    first = min(ranking.best_first, key=lambda c: (-c.spoken, -(c.accepted_at_1 or 0.0), c.step))
    return WithoutSilent(best_step=first.step, exec_success_rate=first.spoken)


def _warning(best: Candidate, without: WithoutSilent | None) -> str:
    """What to know before the best is believed to be one; "" where few of its programs print or read nothing."""
    found = []
    for rate, kind in ((best.silent_rate, silence.SILENT), (best.idle_rate, silence.IDLE)):
        if rate and rate >= silence.MUCH * best.exec_success_rate:
            ran = round(best.exec_success_rate * best.problems)
            found.append(
                f"{round(rate * best.problems)} of the {ran} programs that count as executed at step {best.step} "
                f"{kind}: without them its exec_success_rate is {best.exec_success_rate - rate:.1%}"
            )
            break
    if without and without.best_step != best.step:
        found.append(
            f"without programs that print nothing step {without.best_step} would be chosen, with an exec_success_rate "
            f"of {without.exec_success_rate:.1%}"
        )
    return "; ".join(found)


def against_runner_up(output_dir: Path, ranking: Ranking) -> RunnerUp | None:
    """The second best, and McNemar's test of the best against it on the same problems; None without a second.

    `beyond_noise` is whether p < 0.05.
    """
    if len(ranking.best_first) < 2:
        return None
    best, second = ranking.best_first[:2]
    before, after = (_records(output_dir / f"{PREFIX}{c.step}") for c in (second, best))
    test = paired_test(EXEC_SUCCESS_RATE, before, after)
    if test is None:
        return RunnerUp(
            step=second.step,
            exec_success_rate=second.exec_success_rate,
            accepted_at_1=second.accepted_at_1,
            p=None,
            beyond_noise=None,
        )
    return RunnerUp(
        step=second.step,
        exec_success_rate=second.exec_success_rate,
        accepted_at_1=second.accepted_at_1,
        method=test.method,
        problems=test.n,
        change=test.change,
        interval=(test.low, test.high),
        **test.detail,
        p=test.p,
        beyond_noise=None if test.p is None else test.p < stats.ALPHA,
    )


def _records(folder: Path) -> dict[str, Record]:
    """The last record of each problem, first samples only."""
    path = folder / "results" / f"{SELECTION_SET}.jsonl"
    return {r.problem_id: r for r in read_records(path) if r.sample == 0}
