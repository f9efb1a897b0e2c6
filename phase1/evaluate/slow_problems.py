"""Which problems are expected to run into their time limit: those that did in the last evaluation.

A hint alone: it says which programs are judged first, never what comes out.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from phase1.contract.records import read_records
from phase1.evaluate.finished import finished_evaluations
from phase1.files import BadInput


class SlowProblem(NamedTuple):
    """A problem whose program ran into its time limit."""

    dataset: str
    problem_id: str


def slow_problems(output_dir: Path) -> set[SlowProblem]:
    """The problems that timed out before: in the verdicts that were set aside in `output_dir`, else in the newest
    finished evaluation beside it; empty where there is none that can be read."""
    aside = sorted(output_dir.glob("results_before_rejudge_*"), key=lambda folder: int(folder.name.rpartition("_")[2]))
    others = [e for e in finished_evaluations(output_dir.parent).by_step.values() if e.folder != output_dir]
    newest = max(others, key=lambda e: e.run.finished or "", default=None)
    folder = aside[-1] if aside else newest.folder / "results" if newest else None
    found: set[SlowProblem] = set()
    for path in sorted(folder.glob("*.jsonl")) if folder else []:
        try:
            found |= {SlowProblem(r.dataset, r.problem_id) for r in read_records(path) if "timeout" in r.test_verdicts}
        except (BadInput, OSError):
            continue
    return found
