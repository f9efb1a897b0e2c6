"""The finished evaluations of a training run: every complete `eval_step_N` folder of an output directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.contract.records import read_records
from phase1.contract.state import evaluation_run
from phase1.contract.state.base import StateFile
from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.contract.state.tracker import step_folders
from phase1.evaluate.recount import first_difference
from phase1.files import BadInput

PREFIX = "eval_step_"


class Summary(StateFile):
    """summary.json of an evaluation: the metrics of each data set, and of all problems together."""

    datasets: dict[str, JsonValue]
    overall: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class FinishedEvaluation:
    """A complete evaluation of one checkpoint.

    Attributes:
        step: the training step of the checkpoint.
        folder: the evaluation's folder.
        run: its run.json.
        datasets: the data sets' entries in its summary.json, by name.
    """

    step: int
    folder: Path
    run: EvaluationRun
    datasets: dict[str, dict[str, JsonValue]] = field(default_factory=dict)

    def metric(self, dataset: str, name: str) -> float | None:
        """A metric of a data set, None where summary.json does not hold it as a finite number."""
        return number(self.datasets.get(dataset, {}).get(name))


class FinishedEvaluations(NamedTuple):
    """What `finished_evaluations` found."""

    by_step: dict[int, FinishedEvaluation]  # in the order of the steps
    damaged: list[str]  # a line for each folder that cannot be read, naming the file


def finished_evaluations(output_dir: Path) -> FinishedEvaluations:
    """All complete `eval_step_N` folders of `output_dir`.

    A folder without run.json, or whose run.json is not complete, is passed over. A folder with damaged files is
    named and left out, so that it does not hide the others.
    """
    found: dict[int, FinishedEvaluation] = {}
    damaged = []
    for step, folder in sorted(step_folders(output_dir, PREFIX).items()):
        if not (folder / evaluation_run.NAME).exists():
            continue
        try:
            run = EvaluationRun.read(folder / evaluation_run.NAME)
            if run.complete:
                summary = Summary.read(folder / "summary.json")
                datasets = {name: entry for name, entry in summary.datasets.items() if isinstance(entry, dict)}
                _refuse_other_figures(folder, datasets)
                found[step] = FinishedEvaluation(step, folder, run, datasets)
        except BadInput as e:
            damaged.append(str(e))
    return FinishedEvaluations(found, damaged)


def _refuse_other_figures(folder: Path, datasets: Mapping[str, Mapping[str, JsonValue]]) -> None:
    """Refuse a summary.json whose figures do not follow from the records beside it; without records it is believed.

    Raises:
        BadInput: names the figure.
    """
    for name, figures in datasets.items():
        records = list(read_records(folder / "results" / f"{name}.jsonl"))
        if records and (difference := first_difference(figures, records)):
            raise BadInput(
                f"{folder / 'summary.json'}: {name}: says {difference}; phase1_eval.py --recompute --output_dir "
                f"{folder} derives it anew"
            )


def number(value: JsonValue) -> float | None:
    """`value` where it is a finite number, else None: true and false are no numbers."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and isfinite(value) else None
