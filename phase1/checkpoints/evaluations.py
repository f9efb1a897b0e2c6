"""The finished evaluations of a run's checkpoints, read from the outputs/eval_step_N folders."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pydantic import JsonValue

from phase1.contract.problems import manifest_path, read_manifest
from phase1.contract.state import evaluation_run
from phase1.contract.state.base import StateFile
from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.contract.state.tracker import step_folders
from phase1.files import BadInput, sha256_file


class Summary(StateFile):
    """summary.json of an evaluation: the metrics of each data set by name (contract 7)."""

    datasets: dict[str, JsonValue]


@dataclass(frozen=True)
class EvaluatedStep:
    """A complete evaluation of one step: how it was made, and its metrics by data set."""

    step: int
    run: EvaluationRun
    metrics: dict[str, dict[str, JsonValue]]

    def number(self, dataset: str, metric: str) -> float | None:
        """One metric of one data set; None where it is missing or is not a finite number."""
        value = self.metrics.get(dataset, {}).get(metric)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            return None
        return value

    def covers(self, datasets: list[str], manifest_dir: Path) -> bool:
        """Whether it holds every one of these sets, over all problems of the present manifests."""
        for name in datasets:
            done = self.run.datasets.get(name)
            if (
                done is None
                or done.manifest_sha256 != sha256_file(manifest_path(manifest_dir, name))
                or done.problems != len(read_manifest(manifest_dir, name))
            ):
                return False
        return True


def evaluated_steps(output_dir: Path) -> dict[int, EvaluatedStep]:
    """All complete evaluations under `output_dir`, by step.

    A folder with damaged files is named on stderr and left out: it must not hide the others.
    """
    found = {}
    for step, folder in sorted(step_folders(output_dir, "eval_step_").items()):
        if not (folder / evaluation_run.NAME).exists():
            continue
        try:
            run = EvaluationRun.read(folder / evaluation_run.NAME)
            if not run.complete:
                continue
            summary = Summary.read(folder / "summary.json")
        except BadInput as e:
            print(f"warning: {folder}: left out, not a whole evaluation ({e})", file=sys.stderr)
            continue
        metrics = {name: entry for name, entry in summary.datasets.items() if isinstance(entry, dict)}
        found[step] = EvaluatedStep(step, run, metrics)
    return found
