"""Looks at the test-only sets (contract 4): each evaluation of one is written down, and the report counts them.

Who looks at codecontests_test or humaneval before the checkpoint is chosen selects on them, and they no longer test
anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from phase1.contract.problems import EVAL_SETS, EvalSet
from phase1.files import read_jsonl
from phase1.line_log import append_line


class Looks(NamedTuple):
    """What the report says of the looks at the test-only sets."""

    notes: list[str]
    warnings: list[str]


class _Look(NamedTuple):
    """One evaluation of a set; started again, it writes the same look once more."""

    file: Path
    folder: str
    step: int | None
    model: str


def uses_file(evaluation: Path) -> Path:
    """The log of looks, beside the folder of an evaluation: outputs/test_set_uses.jsonl."""
    return evaluation.absolute().parent / "test_set_uses.jsonl"


def note_looks(
    evaluation: Path,
    datasets: Iterable[str],
    step: int | None,
    model: Path,
    limit: int | None,
    sets: Mapping[str, EvalSet] = EVAL_SETS,
) -> None:
    """Append a line for each test-only set among `datasets`.

    Args:
        evaluation: the folder of the evaluation that begins.
        step: of training; None for a model that is no checkpoint.
        limit: how many problems of each set are asked; None for all.
        sets: all sets by name.
    """
    for dataset in datasets:
        if dataset in sets and sets[dataset].test_only:  # a stored evaluation may hold a set that is gone
            look = {
                "dataset": dataset,
                "step": step,
                "model": str(model),
                "output_dir": str(evaluation),
                "limit": limit,
            }
            append_line(uses_file(evaluation), look)


def looks(evaluations: Iterable[Path], datasets: Iterable[str]) -> Looks:
    """How often the test-only sets among `datasets` were looked at, by the logs beside `evaluations`.

    A line is a start, so an evaluation that was resumed or judged again has several; it counts once. More than one
    training step is a warning: the step may have been chosen by what the set shows.
    """
    files = dict.fromkeys(uses_file(e) for e in evaluations)
    seen: dict[str, set[_Look]] = {}
    for file in files:
        for _, use in read_jsonl(file) if file.exists() else ():
            look = _Look(file, Path(str(use.get("output_dir"))).name, use.get("step"), str(use.get("model")))
            seen.setdefault(str(use.get("dataset")), set()).add(look)
    said = [
        _said_of(dataset, seen.get(dataset, set()))
        for dataset in datasets
        if dataset in seen or (dataset in EVAL_SETS and EVAL_SETS[dataset].test_only)  # a set of one's own is logged
    ]
    return Looks([note for one in said for note in one.notes], [warning for one in said for warning in one.warnings])


def _said_of(dataset: str, seen: set[_Look]) -> Looks:
    """What is to be said of one set."""
    if not seen:
        note = "how often it was looked at is not known, no test_set_uses.jsonl beside the evaluations says so"
        return Looks([f"{dataset}: {note}"], [])
    evaluated = {(look.file, look.folder, look.model if look.step is None else f"step {look.step}") for look in seen}
    times = sorted(Counter(model for _, _, model in evaluated).items())
    models = ", ".join(f"{model} {n} times" if n > 1 else model for model, n in times)
    plural = "s" if len(evaluated) > 1 else ""
    note = f"{dataset}: looked at in {len(evaluated)} evaluation{plural}: {models}"
    steps = {look.step for look in seen if look.step is not None}
    if len(steps) < 2:
        return Looks([note], [])
    warning = (
        f"{dataset} is test-only, but {len(steps)} checkpoints were evaluated on it ({models}); if one was chosen by "
        "it, it is no test any more"
    )
    return Looks([note], [warning])
