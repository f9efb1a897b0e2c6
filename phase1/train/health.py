"""What the trainer's own log says about a run's health while it trains: one line for each thing that goes wrong."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WINDOW = 20  # steps that a new one is held against
SPIKE = 1.5  # times the window's median loss; and
SPIKE_NATS, SPIKE_SCATTER = (
    0.1,
    8.0,
)  # so far above it, and so many times the window's median distance from it: small batches scatter
COLLAPSE = 3.0  # times slower than the window's median, for as many steps in a row
GRAD_NORM_LIMIT = 100.0  # contract 3: healthy is 0.1 to 10
OF_VALIDATION = {"val_nan", "val_rising"}  # kinds that only a line with val/loss can tell; all others need train/loss


def metric_rows(path: Path, run: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of train_metrics.jsonl, of one run or of all. A line that a crash or a full disk tore is passed over: it
    must not hold up a training."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row and run in (None, row.get("run")):
            yield row


@dataclass
class Health:
    """Fed with the metrics of each step; keeps the warnings. Each kind is said once until it was well again."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    speeds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    validation: list[float] = field(default_factory=list)
    slow: int = 0
    step: int = 0
    tokens: float = 0.0
    standing: set[str] = field(default_factory=set)
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def update(self, step: int, values: dict[str, float]) -> list[str]:
        """New warnings after this step's metrics, a line each."""
        self.step = step
        self.tokens += values.get("train/global_tokens") or 0
        found = dict(self.look(values))
        fresh = [kind for kind in found if kind not in self.standing]
        told = {k for k in self.standing if ("val/loss" if k in OF_VALIDATION else "train/loss") in values}
        self.standing = self.standing - told | set(found)
        self.warnings += [{"step": step, "kind": kind, "message": found[kind]} for kind in fresh]
        return [f"step {step}: {found[kind]}" for kind in fresh]

    def look(self, values: dict[str, float]) -> list[tuple[str, str]]:
        found = []
        if "val/loss" in values:
            self.validation.append(values["val/loss"])
            last = self.validation[-3:]
            if not math.isfinite(last[-1]):
                found.append(
                    (
                        "val_nan",
                        f"val/loss is {last[-1]}: the validation set is smaller than a batch, or the model is broken",
                    )
                )
            elif len(last) == 3 and last[0] < last[1] < last[2]:
                found.append(
                    (
                        "val_rising",
                        (
                            f"val/loss rose twice, {last[0]:.4f} to {last[1]:.4f} to {last[2]:.4f}: the best "
                            "checkpoint may lie behind"
                        ),
                    )
                )
        if "train/loss" not in values:
            return found
        loss, norm, speed = (
            values["train/loss"],
            values.get("train/grad_norm"),
            values.get("tokens_per_s") or values.get("steps_per_s"),
        )
        if not math.isfinite(loss):
            found.append(
                (
                    "nan",
                    f"train/loss is {loss}: nothing is learned from here on; lower LR, look at the rows of this step",
                )
            )
        elif len(self.losses) >= 10 and self.spikes(loss):
            found.append(
                (
                    "spike",
                    (
                        f"train/loss {loss:.4f} against a median of {statistics.median(self.losses):.4f} over the "
                        f"last {len(self.losses)} steps"
                    ),
                )
            )
        if norm is not None and not (0 < norm <= GRAD_NORM_LIMIT):
            why = (
                "no answer token in this batch, or frozen weights"
                if norm == 0
                else f"healthy is 0.1 to 10, above {GRAD_NORM_LIMIT:g} the steps are noise"
            )
            found.append(("grad_norm", f"train/grad_norm is {norm:g}: {why}"))
        if speed:
            self.slow = (
                self.slow + 1 if len(self.speeds) >= 5 and speed * COLLAPSE < statistics.median(self.speeds) else 0
            )
            if self.slow >= COLLAPSE:
                found.append(
                    (
                        "slow",
                        (
                            f"{COLLAPSE:g} times slower than before for {self.slow} steps: another job on these "
                            "GPUs, a full disk, throttling?"
                        ),
                    )
                )
            else:
                self.speeds.append(speed)
        if math.isfinite(loss):
            self.losses.append(loss)
        return found

    def spikes(self, loss: float) -> bool:
        middle = statistics.median(self.losses)
        scatter = statistics.median(abs(x - middle) for x in self.losses)
        return loss > SPIKE * middle and loss - middle > max(SPIKE_NATS, SPIKE_SCATTER * scatter)

    def report(self, expected_steps: int | None) -> dict[str, Any]:
        """What train_health.json holds."""
        return {
            "status": "warned" if self.warnings else "healthy",
            "step": self.step,
            "expected_steps": expected_steps,
            "tokens_this_session": int(self.tokens),
            "median_tokens_per_s": round(statistics.median(self.speeds)) if self.speeds and self.tokens else None,
            "last_val_loss": self.validation[-1] if self.validation else None,
            "warnings": self.warnings,
        }
