"""The early warning: compare each new evaluation with Phase 0, and say once when a checkpoint is worse.

outputs/regressions.json         each evaluation's comparison with Phase 0, by step
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from phase1.checkpoints.attempts import print_error
from phase1.checkpoints.rates import EXEC_SUCCESS_RATE, MBPP_ACCEPTED, PASS_RATIO, Rate, paired_test
from phase1.evaluate.finished import FinishedEvaluation
from phase1.files import BadInput, now, read_json, sha256_file, write_json
from phase1.report import stats
from phase1.report.comparability import MISMATCH, comparability
from phase1.report.inputs import Side, read_side
from phase1.report.silent import of_dataset, silent_rises

REGRESSIONS = "regressions.json"
WATCHED = (EXEC_SUCCESS_RATE, PASS_RATIO, MBPP_ACCEPTED)


class Regression(BaseModel):
    """One entry of regressions.json: what the comparison of one evaluation with Phase 0 said, in lines.

    `phase0_sha256` and `finished` (of the evaluation's run.json) tell whether the same two were compared before.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    phase0_sha256: str
    finished: str | None
    worse: list[str]
    not_compared: list[str]
    phase0_metrics: str
    time: str


_BY_STEP = TypeAdapter(dict[int, Regression])


def read_regressions(path: Path) -> dict[int, Regression]:
    """What earlier passes said, by step; empty where the file is missing or damaged.

    It only keeps things from being said twice.
    """
    try:
        found: dict[int, Regression] = _BY_STEP.validate_python(read_json(path))
        return found
    except (BadInput, ValidationError):
        return {}


def warn_early(evaluations: Iterable[FinishedEvaluation], phase0_metrics: Path, output_dir: Path) -> None:
    """Compare every evaluation that has not been compared yet with Phase 0, and write regressions.json.

    Args:
        evaluations: the complete ones.
        phase0_metrics: metrics.json of the base model.
        output_dir: the folder of regressions.json.

    Raises:
        BadInput: a checkpoint is worse, with the numbers; or an evaluation cannot be read.
    """
    path = output_dir / REGRESSIONS
    said = read_regressions(path)
    news, failures = [], []
    phase0_sha256 = sha256_file(phase0_metrics)
    for e in evaluations:
        before = said.get(e.step)
        if before and (before.phase0_sha256, before.finished) == (phase0_sha256, e.run.finished):
            continue
        try:
            found = against_phase0(phase0_metrics, e.folder)
        except (OSError, BadInput) as error:  # one that cannot be read must not silence the others
            failures.append(f"step {e.step}: {error}")
            continue
        for line in found.not_compared:
            print_error(f"step {e.step}: not compared with Phase 0: {line}")
        if found.worse:
            news.append(f"step {e.step} is worse than Phase 0: {'; '.join(found.worse)}")
        said[e.step] = Regression(
            phase0_sha256=phase0_sha256,
            finished=e.run.finished,
            worse=found.worse,
            not_compared=found.not_compared,
            phase0_metrics=str(phase0_metrics),
            time=now(),
        )
        write_json(path, {str(step): entry.model_dump() for step, entry in said.items()})
    if news or failures:
        raise BadInput("\n".join(news + failures))


@dataclass(frozen=True)
class AgainstPhase0:
    """What is significantly worse than Phase 0 or rose by silent programs, what could not be compared: a line each."""

    worse: list[str]
    not_compared: list[str]


def against_phase0(phase0_metrics: Path, folder: Path) -> AgainstPhase0:
    """Compare the watched rates of an evaluation folder with Phase 0, Holm-corrected over them.

    The test is paired where Phase 0 has its records, and goes by the counts where it is the original project's
    metrics.json and summary.json; the mean of the pass ratios then counts as a rate, which has the largest variance
    that such a mean can have. Two models that do not differ give a warning at one checkpoint in forty, since only the
    worse half of a two-sided 5% counts. A rise of exec_success_rate by programs that print nothing is worse, too.

    Raises:
        BadInput: a file of either evaluation is missing or damaged.
    """
    base, current = read_side("Phase 0", [phase0_metrics]), read_side(folder.name, [folder / "metrics.json"])
    tests: dict[Rate, _Test] = {}
    not_compared = []
    for rate in WATCHED:
        found = _test(rate, base, current)
        if isinstance(found, str):
            not_compared.append(found)
        else:
            tests[rate] = found
    stats.holm([t.comparison for t in tests.values()])
    worse = [
        _in_words(rate, test) for rate, test in tests.items() if stats.answer(test.comparison, better=+1) == stats.WORSE
    ]
    if EXEC_SUCCESS_RATE in tests:
        rise = of_dataset(silent_rises(base, current), EXEC_SUCCESS_RATE.dataset)
        worse += [f"{rise.dataset}: {rise.words()}"] if rise else []
    return AgainstPhase0(worse, not_compared)


@dataclass(frozen=True)
class _Test:
    """The comparison of one rate, with its value in Phase 0 and in the evaluation."""

    comparison: stats.Comparison
    was: float
    is_now: float


def _test(rate: Rate, base: Side, current: Side) -> _Test | str:
    """The test of one rate, or in words why there is none."""
    a, b = base.datasets.get(rate.dataset), current.datasets.get(rate.dataset)
    was = a.values.get(rate.metric) if a else None
    is_now = b.values.get(rate.metric) if b else None
    if a is None or b is None or was is None or is_now is None:
        return f"{rate.dataset}: {rate.metric} is missing in {base.label if was is None else current.label}"
    findings = comparability(replace(base, datasets={rate.dataset: a}), replace(current, datasets={rate.dataset: b}))
    for finding in findings:
        if finding.kind == MISMATCH:
            return finding.text
    comparison = paired_test(rate, a.records, b.records)
    if comparison is None and a.n and b.n:
        comparison = stats.unpaired_rate(round(was * a.n), a.n, round(is_now * b.n), b.n)
    if comparison is None:
        return f"{rate.dataset}: {rate.metric} has neither records nor a number of problems on both sides"
    return _Test(comparison, was, is_now)


def _in_words(rate: Rate, test: _Test) -> str:
    c = test.comparison
    low, high = ("-" if bound is None else f"{bound * 100:+.1f}" for bound in (c.low, c.high))
    return (
        f"{rate.dataset}: {rate.metric} {test.was:.1%} in Phase 0, {test.is_now:.1%} now ({c.change * 100:+.1f} pp, "
        f"95% interval {low} to {high}, p {c.p_holm:.2g}, {c.method}, {c.n} problems)"
    )
