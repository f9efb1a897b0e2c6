"""The final evaluation against the earlier one of the very same weights: how far a figure moves between two runs.

Training's passes evaluate each checkpoint (tiers 1 and 2), and the phase's end evaluates the best of them again.
Whatever differs between the two is noise, since the weights do not: greedy answers depend on the batch that they were
made in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from phase1.contract.records import EXEC_SUCCESS, Record
from phase1.evaluate.finished import FinishedEvaluation
from phase1.files import BadInput
from phase1.report.comparability import MISMATCH, comparability
from phase1.report.inputs import DatasetResult, Side, read_side, value_of

COMPARED = ("exec_success_rate", "accepted_at_1")
Z = 1.96  # of a 95% interval
HEADING = "The same weights, evaluated twice"
REMEDY = "evaluate both phases with --batch_invariant, which takes away what the batch does to an answer"


@dataclass(frozen=True)
class Repeated:
    """One rate of one data set in two evaluations of the same weights. Rates are shares of the problems, 0 to 1.

    Attributes:
        folder: of the earlier evaluation.
        problems: that both have.
        gained, lost: problems that count now and did not, and the reverse.
        other_answers: problems with another answer, whatever it counts.
        noise: how far apart two runs of these weights may lie (95%): each flip goes either way with equal chance.
        gain: of Phase 1 over Phase 0; None where that is not known.
    """

    dataset: str
    metric: str
    step: int
    folder: str
    problems: int
    earlier: float
    final: float
    gained: int
    lost: int
    other_answers: int
    noise: float
    gain: float | None

    @property
    def hides_the_gain(self) -> bool:
        """Whether two runs of the same weights may differ as much as the two phases do."""
        return self.gain is not None and bool(self.gained or self.lost) and self.noise >= abs(self.gain)

    def sentence(self) -> str:
        """What the row says."""
        moved = self.gained + self.lost
        text = (
            f"{self.dataset}, {self.metric}: the same weights (step {self.step}) gave {self.earlier:.1%} before and "
            f"{self.final:.1%} now, {moved} of {self.problems} problems flipped, {self.other_answers} have another "
            "answer"
        )
        if not moved:
            return text
        text += f": two runs lie up to {100 * self.noise:.1f} pp apart"
        if self.hides_the_gain:
            text += f", and the change from Phase 0, {100 * (self.gain or 0):+.1f} pp, is no larger; {REMEDY}"
        return text

    def as_json(self) -> dict[str, Any]:
        """The row in comparison_data.json."""
        return {**asdict(self), "hides_the_gain": self.hides_the_gain, "sentence": self.sentence()}


@dataclass(frozen=True)
class SameWeights:
    """What the earlier evaluations of Phase 1's weights show, and a line for each that cannot be held against it."""

    rows: list[Repeated]
    left_out: list[str]


def same_weights(phase0: Side, phase1: Side, earlier: Iterable[FinishedEvaluation]) -> SameWeights:
    """Phase 1 against every earlier evaluation of the same weights, by their fingerprint; one that cannot be read is
    named."""
    rows: list[Repeated] = []
    left_out = []
    for evaluation in earlier:
        shared = {name: d for name, d in phase1.datasets.items() if _same(evaluation, d, name)}
        if not shared:
            continue
        try:
            before = read_side(evaluation.folder.name, [evaluation.folder / "metrics.json"])
        except BadInput as e:
            left_out.append(f"{evaluation.folder.name} evaluated the same weights, but cannot be read: {e}")
            continue
        for name, now in shared.items():
            was = before.datasets.get(name)
            if was is None or not was.records or not now.records:
                left_out.append(
                    f"{evaluation.folder.name}, {name}: has no records to hold against the final evaluation's"
                )
                continue
            sides = (Side(before.label, {name: was}), Side(phase1.label, {name: now}))
            if other := [f.text for f in comparability(*sides) if f.kind == MISMATCH]:
                left_out.append(f"{evaluation.folder.name} evaluated the same weights, but otherwise: {other[0]}")
                continue
            rows += [_repeated(metric, evaluation, was, now, phase0.datasets.get(name)) for metric in COMPARED]
    return SameWeights(rows, left_out)


def _same(evaluation: FinishedEvaluation, now: DatasetResult, dataset: str) -> bool:
    """Whether another evaluation is of the same weights and has the data set."""
    known = evaluation.run.model.fingerprint
    elsewhere = evaluation.folder.resolve() != Path(now.source).parent.resolve()
    return bool(
        known and now.run and now.run.model.fingerprint == known and elsewhere and dataset in evaluation.datasets
    )


def _repeated(
    metric: str, evaluation: FinishedEvaluation, was: DatasetResult, now: DatasetResult, base: DatasetResult | None
) -> Repeated:
    common = sorted(was.records.keys() & now.records.keys())
    pairs = [(was.records[i], now.records[i]) for i in common]
    gained = sum(_counts(metric, y) and not _counts(metric, x) for x, y in pairs)
    lost = sum(_counts(metric, x) and not _counts(metric, y) for x, y in pairs)
    earlier, final = (sum(_counts(metric, r) for r in side) / len(pairs) for side in zip(*pairs, strict=True))
    value = value_of(base, metric)
    return Repeated(
        dataset=now.dataset,
        metric=metric,
        step=evaluation.step,
        folder=evaluation.folder.name,
        problems=len(pairs),
        earlier=earlier,
        final=final,
        gained=gained,
        lost=lost,
        other_answers=sum(x.completion != y.completion for x, y in pairs),
        noise=max(abs(final - earlier), Z * sqrt(gained + lost) / len(pairs)),
        gain=None if value is None else final - value,
    )


def _counts(metric: str, record: Record) -> bool:
    return record.error_type in EXEC_SUCCESS if metric == "exec_success_rate" else record.accepted


def markdown_same_weights(rows: Iterable[dict[str, Any]]) -> str:
    """The table, and what each row says below it."""
    lines = ["| Data set | Metric | Earlier | Final | Flips | Change from Phase 0 |", "|---|---|---|---|---|---|"]
    said = []
    for r in rows:
        gain = "-" if r["gain"] is None else f"{100 * r['gain']:+.1f} pp"
        flips = f"{r['gained']} up, {r['lost']} down of {r['problems']}"
        figures = f"{r['earlier']:.1%} (step {r['step']}) | {r['final']:.1%}"
        lines.append(f"| {r['dataset']} | {r['metric']} | {figures} | {flips} | {gain} |")
        said.append(f"- {r['sentence']}")
    return "\n".join([*lines, "", *said])
