"""What a training run logged: the one reader of verl's console lines and of train_metrics.jsonl.

A console line is `step:12 - train/loss:0.81 - train/grad_norm:1.2`, as verl's LocalLogger prints it
(verl/utils/logger/aggregate_logger.py). Metrics are named here as the engine trainer names them, whichever trainer
printed them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from phase1.files import BadInput, write_text
from phase1.train.verl_version import SPELLINGS, Spelling

COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# A progress bar, another step or another process's words may stand before a step on its line, without a space.
STEP = re.compile(r"(?<![A-Za-z_/])step:(\d+) - ")
NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf)"
METRIC = re.compile(rf"([^\s:]+):(?:np\.\w+\()?({NUMBER})")  # numpy 2 prints its scalars as np.float64(0.81)
NO_METRICS = ("step", "time")  # numbers of a line of train_metrics.jsonl that say when, not how well
MOST_POINTS = 1500  # of a drawn curve: more points than pixels only make the file large


@dataclass(frozen=True)
class Step:
    """Metrics of one step, of its training or of its validation.

    Attributes:
        number: counted from 1 over all epochs.
        values: by name; NaN where the trainer had no finite number and JSON therefore null.
        run: name of the run's checkpoint folder, where the line says it.
    """

    number: int
    values: dict[str, float] = field(default_factory=dict)
    run: str | None = None


class Point(NamedTuple):
    """A metric's value at a step."""

    step: int
    value: float


Series = dict[str, list[Point]]  # by metric, in the order of the steps


# ----------------------------------------------------------------------------------------------------------- a line
def console_steps(line: str) -> list[Step]:
    """The steps on a line of the console, none where it is no such line."""
    parts = STEP.split(COLOUR.sub("", line))
    found = []
    for number, text in zip(parts[1::2], parts[2::2], strict=True):
        values = {}
        for pair in text.split(" - "):
            if metric := METRIC.match(pair):
                spelling = SPELLINGS.get(metric[1], Spelling(metric[1], 1.0))
                values[spelling.name] = float(metric[2]) * spelling.factor
        if values:
            found.append(Step(int(number), values))
    return found


def json_step(line: str) -> Step | None:
    """The step on a line of train_metrics.jsonl, None where the line is none: a crash or a full disk tore it."""
    try:
        row = json.loads(line)
        values: dict[str, float] = {}
        for name, value in row.items():
            if name in NO_METRICS or isinstance(value, bool) or not isinstance(value, int | float | None):
                continue
            spelling = SPELLINGS.get(name, Spelling(name, 1.0))
            values[spelling.name] = math.nan if value is None else float(value) * spelling.factor
        return Step(int(row["step"]), values, row.get("run"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


# ----------------------------------------------------------------------------------------------------------- a file
def read_steps(path: Path, run: str | None = None) -> Iterator[Step]:
    """The steps of a console log or of train_metrics.jsonl, in the order of their lines.

    Args:
        path: the file.
        run: only the lines of this run, which a console log does not name.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            step = json_step(line) if line.startswith("{") else None
            steps = [step] if step else console_steps(line)
            yield from (s for s in steps if run in (None, s.run))


def steps_of_run(metrics: Path, run: str) -> list[Step]:
    """What train_metrics.jsonl holds of one run, nothing where there is no such file yet."""
    return list(read_steps(metrics, run)) if metrics.exists() else []


def drop_later_steps(metrics: Path, run: str, from_step: int) -> None:
    """Take out of train_metrics.jsonl what `run` did after the checkpoint it goes on from, and torn lines."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        step = json_step(line)
        if step and (step.run != run or step.number <= from_step):
            kept.append(f"{line}\n")
    write_text(metrics, "".join(kept))


# --------------------------------------------------------------------------------------------------------- a curve
def read_train_log(paths: Sequence[Path], *, run: str | None = None, skip_empty: bool = False) -> Series:
    """Each metric over the steps, from console logs or train_metrics.jsonl.

    A step that was logged twice, because a resumed run did it again, counts with its last value.

    Args:
        paths: the files, the oldest first.
        run: only the lines of this run, in train_metrics.jsonl.
        skip_empty: pass over a file that is missing or holds no step, such as the log of a run that has just begun.

    Raises:
        BadInput: a file is missing or holds no step, unless `skip_empty`.
    """
    series: dict[str, dict[int, float]] = {}
    for path in paths:
        steps = 0
        try:
            for step in read_steps(path, run):
                steps += 1
                for key, value in step.values.items():
                    series.setdefault(key, {})[step.number] = value
        except OSError as e:
            if not skip_empty:
                raise BadInput(f"{path}: {e.strerror}; give the log of the training run") from None
        if not steps and not skip_empty:
            raise BadInput(
                f"{path}: no line of the form `step:10 - train/loss:1.23`; give verl's console log or "
                "train_metrics.jsonl"
            )
    return {key: [Point(*point) for point in sorted(by_step.items())] for key, by_step in series.items()}


def drawable(series: Series, key: str, *, log_scale: bool = False) -> list[Point]:
    """A metric's points that can be drawn: finite, on a logarithmic scale above 0, at most about MOST_POINTS."""
    points = [p for p in series.get(key, []) if math.isfinite(p.value) and (p.value > 0 or not log_scale)]
    return points[:: max(1, len(points) // MOST_POINTS)]
