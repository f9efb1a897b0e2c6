"""Any number of evaluations against one base: seeds, learning rates, checkpoints, Phase 0 of several models.

Each run is compared with the base as two phases are, by the same tests on the same problems; then Holm's correction
runs over all rows of all runs together, since all of them are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phase1.files import BadInput
from phase1.report import stats
from phase1.report.comparability import MISMATCH, comparability
from phase1.report.inputs import Side, read_side, refuse_same_file
from phase1.report.more_rows import more_rows
from phase1.report.silent import silent_rises
from phase1.report.tables import NONE, Row, decide, fill_rows

NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class Named:
    """One `NAME=metrics.json` of the command line."""

    name: str
    path: Path


@dataclass
class Run:
    """An evaluation with its rows against the base, by label; the base itself has none. `mismatches`: what was measured
    otherwise than in the base."""

    name: str
    side: Side
    rows: dict[str, Row] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)

    @property
    def step(self) -> int | None:
        """The checkpoint's step, where run.json names it."""
        steps = {d.run.model.step for d in self.side.datasets.values() if d.run and d.run.model.step is not None}
        return steps.pop() if len(steps) == 1 else None


@dataclass(frozen=True)
class Runs:
    """All runs in the order given, the base among them; `labels` of all rows that any of them has; `best`: the names of
    the runs with the best value of a row, of those that are comparable."""

    base: Run
    runs: list[Run]
    labels: list[str]
    best: dict[str, list[str]]
    family: int  # rows that were asked together

    @property
    def comparable(self) -> bool:
        """Whether every run was measured as the base was."""
        return not any(r.mismatches for r in self.runs)

    def value(self, run: Run, label: str) -> float | None:
        """A row's value in a run, None where it was not measured."""
        if run is not self.base:
            return run.rows[label].phase1 if label in run.rows else None
        return next((r.rows[label].phase0 for r in self.runs if label in r.rows), None)

    def row(self, label: str) -> Row:
        """A row of this label, for its unit and direction."""
        return next(r.rows[label] for r in self.runs if label in r.rows)

    def as_json(self) -> dict[str, Any]:
        """The field of runs.json."""
        return {
            "base": self.base.name,
            "family": self.family,
            "runs": [
                {
                    "name": r.name,
                    "step": r.step,
                    "sources": r.side.sources(),
                    "mismatches": r.mismatches,
                    "rows": [row.as_json() for row in r.rows.values()],
                }
                for r in self.runs
            ],
            "best": self.best,
        }


def parse_named(texts: Sequence[str]) -> list[Named]:
    """The runs of a command line.

    Raises:
        BadInput: one has no name or no file, or two have the same name.
    """
    found: list[Named] = []
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise BadInput(
                f"--runs {text}: expected NAME=metrics.json, such as step_200=outputs/eval_step_200/metrics.json"
            )
        if any(name == other.name for other in found):
            raise BadInput(f"--runs {text}: another run is named {name}; give each its own name")
        found.append(Named(name, Path(path)))
    if len(found) < 2:
        raise BadInput("--runs: one run is nothing to compare; give two or more")
    return found


def read_runs(named: Sequence[Named], base: str | None, seed: int, resamples: int) -> Runs:
    """Read the runs and compare each with the base, the first where none is named.

    Raises:
        BadInput: a file cannot be read, or no run is named `base`.
    """
    names = [n.name for n in named]
    if base is not None and base not in names:
        raise BadInput(f"--base {base}: no run has this name; there are {', '.join(names)}")
    runs = [Run(n.name, read_side(n.name, [n.path])) for n in named]
    first = runs[0 if base is None else names.index(base)]
    for run in runs:
        if run is not first:
            refuse_same_file(first.side, run.side)
            run.mismatches = [f.text for f in comparability(first.side, run.side) if f.kind == MISMATCH]
            seeds = [r for r in fill_rows(first.side, run.side, seed, resamples) if r.spec.headline]
            rows = [*seeds, *more_rows(first.side, run.side, seed, resamples)]
            run.rows = {r.spec.label: r for r in rows if r.phase1 is not None}
    asked = [r for run in runs if not run.mismatches for r in run.rows.values()]
    stats.holm([r.comparison for r in asked])
    for run in runs:
        _answer(run, first)
    labels = list(dict.fromkeys(label for run in runs for label in run.rows))
    family = sum(r.comparison is not None and r.comparison.p is not None for r in asked)
    found = Runs(first, runs, labels, {}, family)
    for label in labels:
        found.best[label] = _best(found, label)
    return found


def _answer(run: Run, base: Run) -> None:
    """Each row's answer under the correction over all runs."""
    rows = list(run.rows.values())
    if run.mismatches:
        for r in rows:
            r.answer = NOT_COMPARABLE
            if r.comparison:
                r.comparison.p_holm = r.comparison.family = None
        return
    for r in rows:
        r.answer = NONE
    decide(rows, silent_rises(base.side, run.side))
    for r in rows:
        if r.silent and r.answer == stats.IMPROVED:
            r.answer = stats.ROSE


def _best(runs: Runs, label: str) -> list[str]:
    better = runs.row(label).spec.better
    values = [(r.name, runs.value(r, label)) for r in runs.runs if not r.mismatches]
    known = [(name, better * value) for name, value in values if value is not None]
    top = max((value for _, value in known), default=0.0)
    return [name for name, value in known if value >= top - 1e-12] if better else []
