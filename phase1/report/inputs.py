"""What the report compares: the evaluations of both phases, as far as they can be read.

Phase 0 may be as the original project wrote it (metrics.json with summary.json beside it, nothing else) or an
evaluation of this toolkit (run.json and results/{dataset}.jsonl too); what is there decides what can be said.
"""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from phase1.contract.problems import EVAL_SETS
from phase1.contract.records import EXEC_SUCCESS, Record, read_records
from phase1.contract.state import evaluation_run
from phase1.contract.state.evaluation_run import EvaluatedModel, EvaluationRun
from phase1.evaluate.metrics import is_share
from phase1.files import BadInput, read_json
from phase1.report.escaping import shown

NUMBER, TEXT = ((int, float), "a number"), (str, "a text")
RECORD_FIELDS: dict[str, tuple[Any, str]] = {  # shown or counted; verdicts are checked where they are read
    "problem_id": TEXT,
    "prompt": TEXT,
    "prompt_sha256": TEXT,
    "completion": TEXT,
    "code": TEXT,
    "detail": TEXT,
    "gen_tokens": NUMBER,
    "judge_time": NUMBER,
    "gen_time": NUMBER,
    "started": NUMBER,
    "finished": NUMBER,
    "first_failed_case": ((dict, type(None)), "an object or null"),
    "form": TEXT,
    "rule": TEXT,
    "other": ((dict, type(None)), "an object or null"),
    "compared_by": TEXT,
    "accepted_under": ((dict, type(None)), "an object or null"),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one of several answers to a problem."""

    accepted: bool
    executed: bool  # the program ran to its end on every test
    pass_ratio: float


@dataclass
class DatasetResult:
    """One data set of one phase. `values`: summary.json overlaid with metrics.json; `records`, the first answers, by
    problem id, or empty; `samples`: all answers by problem id and number, empty where there is one a problem."""

    dataset: str
    source: Path
    values: dict[str, float | None]
    records: dict[str, Record] = field(default_factory=dict)
    run: EvaluationRun | None = None
    samples: dict[str, dict[int, Outcome]] = field(default_factory=dict)

    @property
    def n(self) -> int | None:
        total = self.values.get("total_problems")
        return int(total) if total else (len(self.records) or None)


def value_of(result: DatasetResult | None, metric: str) -> float | None:
    return result.values.get(metric) if result else None


@dataclass
class Side:
    """One phase: its data sets, and what had to be decided while reading."""

    label: str
    datasets: dict[str, DatasetResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def sources(self) -> list[str]:
        """One line a file that was read: its data sets, and the model and step where run.json says them."""
        lines: dict[Path, tuple[str, list[str]]] = {}
        for name, d in self.datasets.items():
            model = d.run.model if d.run else EvaluatedModel()
            step = f", step {model.step}" if model.step is not None else ""
            what = f"model {model.path}{step}" if model.path else "model not recorded"
            lines.setdefault(d.source, (what, []))[1].append(name)
        return [f"{self.label}: {source} ({what}): {', '.join(names)}" for source, (what, names) in lines.items()]

    def fingerprints(self) -> list[str]:
        """Of the models whose answers were read, each once, as far as their run.json says."""
        models = [d.run.model.fingerprint for d in self.datasets.values() if d.run]
        return sorted({fingerprint for fingerprint in models if fingerprint})


# ---------------------------------------------------------------------------------------------------------- reading
def read_side(label: str, files: Sequence[str | Path]) -> Side:
    """Read the evaluations that `files` (metrics.json, or globs of them) stand for; the newest a data set wins.

    Raises:
        BadInput: a file cannot be read, or none holds a data set.
    """
    side = Side(label)
    for path in sorted(_expand(files), key=_age):
        run = _run(path.parent / evaluation_run.NAME)
        metrics = _object(path)
        if isinstance(metrics.get("datasets"), dict):  # the form of summary.json and run.json, beside it
            raise BadInput(f"{path}: is no metrics.json; give {path.parent / 'metrics.json'}")
        summary: dict[str, Any] = {}
        if (path.parent / "summary.json").exists():
            summary = _object(path.parent / "summary.json").get("datasets") or {}
            if not isinstance(summary, dict):
                raise BadInput(
                    f"{path.parent / 'summary.json'}: datasets is a JSON {type(summary).__name__}, expected an object"
                )
        else:
            side.notes.append(
                f"{label}: no summary.json beside {path}, so exec_success_rate and the error rates are missing"
            )
        for dataset in dict.fromkeys([*metrics, *summary]):
            if not _is_dataset(dataset, metrics.get(dataset), summary.get(dataset)):
                side.notes.append(f"{label}: {dataset} in {path} is no data set and left out")
                continue
            values = {
                **_values(path.parent / "summary.json", dataset, summary.get(dataset)),
                **_values(path, dataset, metrics.get(dataset)),
            }
            if not values:
                side.notes.append(f"{label}: {dataset} is empty in {path} and left out")
                continue
            if dataset in side.datasets:
                older = side.datasets[dataset].source
                side.notes.append(
                    f"{label}: {dataset} stands in several files; taken from {path}, the newest, not from {older}"
                )
            read = _records(path.parent / "results" / f"{dataset}.jsonl")
            side.datasets[dataset] = DatasetResult(
                dataset=dataset, source=path, values=values, records=read.first, run=run, samples=read.samples
            )
    if not side.datasets:
        raise BadInput(f"{', '.join(map(str, files))}: holds no data set; give the metrics.json of an evaluation")
    return side


def refuse_same_file(first: Side, second: Side) -> None:
    """Refuse to compare an evaluation with itself, whose answer could only be that nothing changed.

    Raises:
        BadInput: both sides took a data set from one file.
    """
    for name in first.datasets.keys() & second.datasets.keys():
        source = first.datasets[name].source
        if source.resolve() == second.datasets[name].source.resolve():
            raise BadInput(f"{source}: stands for both {first.label} and {second.label}; give each its own evaluation")


def _expand(files: Sequence[str | Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for f in files:
        matches = [str(f)] if Path(f).exists() else sorted(glob.glob(str(f)))
        if not matches:
            raise BadInput(f"{f}: no such file; give the metrics.json that an evaluation wrote")
        for m in matches:
            path = Path(m)
            found[path / "metrics.json" if path.is_dir() else path] = None
    return list(found)


def _age(path: Path) -> tuple[float, str]:
    """When an evaluation ended: by its run.json where there is one, else by the file's own time."""
    try:
        finished = json.loads((path.parent / "run.json").read_text())["finished"]
        return datetime.fromisoformat(finished).astimezone(UTC).timestamp(), str(path)
    except (OSError, ValueError, KeyError, TypeError):
        return (path.stat().st_mtime if path.exists() else 0.0), str(path)


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(
            f"{path}: a JSON {type(value).__name__}, expected an object; give the file that an evaluation wrote"
        )
    return value


def _run(path: Path) -> EvaluationRun | None:
    """The run.json at `path`; None where there is none."""
    return EvaluationRun.read(path) if path.exists() else None


def _is_dataset(name: str, *entries: Any) -> bool:
    """Whether a top-level entry is a data set: one of the contract's by name, or what has the metrics of one."""
    return (
        name in EVAL_SETS
        or all(e is None for e in entries)
        or any(isinstance(e, dict) and "accepted_at_1" in e for e in entries)
    )


def _values(path: Path, dataset: str, entry: Any) -> dict[str, float | None]:
    """The known numbers of one data set's entry; nulls and NaN are left out, other keys ignored."""
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise BadInput(f"{path}: {dataset} is a JSON {type(entry).__name__}, expected an object of metrics")
    values: dict[str, float | None] = {}
    for key, value in entry.items():
        if isinstance(value, int) and abs(value) > 1e15:
            raise BadInput(
                f"{path}: {dataset}.{key} has {len(str(abs(value)))} digits, expected a number that was measured"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            if isinstance(value, str) and (is_share(key) or key.startswith(("avg_", "total_", "cost_"))):
                raise BadInput(f"{path}: {dataset}.{key} is {value!r}, expected a number")
            continue
        if is_share(key) and math.isfinite(value) and not 0 <= value <= 1:
            raise BadInput(f"{path}: {dataset}.{key} is {value}, expected a share between 0 and 1 (0.872, not 87.2)")
        if math.isfinite(value):
            values[key] = value
    return values


class Read(NamedTuple):
    """What a file of results holds: the first answers whole, and of all answers what became of them."""

    first: dict[str, Record]
    samples: dict[str, dict[int, Outcome]]


def _records(path: Path) -> Read:
    """The last record of each problem and sample; BadInput for a first sample that cannot be compared."""
    read = Read({}, {})
    for r in read_records(path):
        if not isinstance(r, Record):
            continue
        outcome = Outcome(r.accepted, r.error_type in EXEC_SUCCESS, r.pass_ratio)
        read.samples.setdefault(r.problem_id, {})[r.sample] = outcome
        if r.sample != 0:
            continue
        for name, (kinds, what) in RECORD_FIELDS.items():
            value = getattr(r, name)
            if not isinstance(value, kinds) or (isinstance(value, float) and not math.isfinite(value)):
                raise BadInput(
                    f"{path}: record of {shown(r.problem_id, 80)}: {name} is {shown(repr(value), 80)}, "
                    f"expected {what}; delete its line and evaluate again"
                )
        read.first[r.problem_id] = r
    if all(len(answers) == 1 for answers in read.samples.values()):
        read.samples.clear()
    return read
