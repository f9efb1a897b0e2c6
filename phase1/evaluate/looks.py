"""Looks at the test-only sets (contract 4): each evaluation of one is written down, and the report says how many there
were.

Who looks at codecontests_test or humaneval before the checkpoint is chosen selects on them, and they are then no test
any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from phase1.contract.problems import EVAL_SETS
from phase1.files import append_line, read_jsonl


def uses_file(evaluation: Path) -> Path:
    """The log of looks, beside the folder of an evaluation: outputs/test_set_uses.jsonl."""
    return evaluation.absolute().parent / "test_set_uses.jsonl"


def note_looks(evaluation: Path, datasets: Iterable[str], step: int | None, model: Path, limit: int | None) -> None:
    """Append a line for each test-only set among `datasets`."""
    for dataset in (d for d in datasets if EVAL_SETS[d].test_only):
        append_line(
            uses_file(evaluation),
            {"dataset": dataset, "step": step, "model": str(model), "output_dir": str(evaluation), "limit": limit},
        )


def looks(evaluations: Iterable[Path], datasets: Iterable[str]) -> tuple[list[str], list[str]]:
    """(notes, warnings): how often the test-only sets among `datasets` were looked at, by the logs beside
    `evaluations`.

    A line is a start, so an evaluation that was resumed or judged again has several; it counts once. More than one
    training step is a warning: then the step may have been chosen by what it shows.
    """
    wanted = [d for d in datasets if d in EVAL_SETS and EVAL_SETS[d].test_only]
    files = dict.fromkeys(uses_file(e) for e in evaluations)
    uses = [(file, use) for file in files if file.exists() for _, use in read_jsonl(file)]
    notes, warnings = [], []
    for dataset in wanted:
        seen = {
            (file, Path(str(use.get("output_dir"))).name, use.get("step"), str(use.get("model")))
            for file, use in uses
            if use.get("dataset") == dataset
        }
        evaluated = {(file, folder, model if step is None else f"step {step}") for file, folder, step, model in seen}
        if not evaluated:
            notes.append(
                f"{dataset}: how often it was looked at is not known, no test_set_uses.jsonl beside the "
                "evaluations says so"
            )
            continue
        times = sorted(Counter(model for _, _, model in evaluated).items())
        models = ", ".join(f"{model} {n} times" if n > 1 else model for model, n in times)
        notes.append(
            f"{dataset}: looked at in {len(evaluated)} evaluation{'s' if len(evaluated) > 1 else ''}: {models}"
        )
        steps = {step for _, _, step, _ in seen if step is not None}
        if len(steps) > 1:
            warnings.append(
                f"{dataset} is test-only, but {len(steps)} checkpoints were evaluated on it ({models}); if one "
                "was chosen by it, it is no test any more"
            )
    return notes, warnings
