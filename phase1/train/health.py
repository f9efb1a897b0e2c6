"""What the trainer's own log says about a run's health while it trains: one line for each thing that goes wrong."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from phase1.train.step_log import Step
from phase1.train.verl_version import GRAD_NORM, LOSS, TOKENS, VAL_LOSS

WINDOW = 20  # steps that a new one is compared with
# A spike is a loss above SPIKE times the window's median, and above it by SPIKE_NATS and by SPIKE_SCATTER times the
# window's median distance from its median: losses of small batches scatter.
SPIKE, SPIKE_NATS, SPIKE_SCATTER = 1.5, 0.1, 8.0
COLLAPSE = 3.0  # times slower than the window's median, for as many steps in a row
GRAD_NORM_LIMIT = 100.0  # contract 3: healthy is 0.1 to 10
OF_VALIDATION = {"val_nan", "val_rising"}  # kinds that are seen in a line with val/loss; all others need train/loss


class Finding(NamedTuple):
    """Something that is wrong at a step."""

    kind: str
    message: str


@dataclass(frozen=True)
class Warned:
    """A warning that was given, as train_health.json holds it."""

    step: int
    kind: str
    message: str


@dataclass
class Health:
    """What is known of a run's health. It is given the metrics of each step and keeps the warnings.

    A kind of warning is given once, and again only after the run was well in between.
    """

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    speeds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    validation: list[float] = field(default_factory=list)
    slow: int = 0  # steps in a row that were too slow
    step: int = 0
    tokens: float = 0.0
    standing: set[str] = field(default_factory=set)  # kinds that were wrong when last looked at
    warnings: list[Warned] = field(default_factory=list)

    def update(self, step: Step) -> list[str]:
        """New warnings after this step's metrics, a line each."""
        self.step = step.number
        self.tokens += step.values.get(TOKENS) or 0
        found = self._look_at_validation(step.values) + self._look_at_training(step.values)
        fresh = [f for f in found if f.kind not in self.standing]
        looked_at = {k for k in self.standing if (VAL_LOSS if k in OF_VALIDATION else LOSS) in step.values}
        self.standing = self.standing - looked_at | {f.kind for f in found}
        self.warnings += [Warned(step.number, f.kind, f.message) for f in fresh]
        return [f"step {step.number}: {f.message}" for f in fresh]

    def _look_at_validation(self, values: dict[str, float]) -> list[Finding]:
        if VAL_LOSS not in values:
            return []
        self.validation.append(values[VAL_LOSS])
        last = self.validation[-3:]
        if not math.isfinite(last[-1]):
            why = "the validation set is smaller than a batch, or the model is broken"
            return [Finding("val_nan", f"val/loss is {last[-1]}: {why}")]
        if len(last) == 3 and last[0] < last[1] < last[2]:
            said = f"{last[0]:.4f} to {last[1]:.4f} to {last[2]:.4f}"
            return [Finding("val_rising", f"val/loss rose twice, {said}: an earlier checkpoint may be the best")]
        return []

    def _look_at_training(self, values: dict[str, float]) -> list[Finding]:
        if LOSS not in values:
            return []
        found = []
        loss, norm = values[LOSS], values.get(GRAD_NORM)
        if not math.isfinite(loss):
            advice = "nothing is learned from here on; set LR lower, look at the rows of this step"
            found.append(Finding("nan", f"train/loss is {loss}: {advice}"))
        elif len(self.losses) >= 10 and self._spikes(loss):
            before = f"a median of {statistics.median(self.losses):.4f} over the last {len(self.losses)} steps"
            found.append(Finding("spike", f"train/loss is {loss:.4f} after {before}"))
        if norm is not None and not 0 < norm <= GRAD_NORM_LIMIT:
            why = f"healthy is 0.1 to 10, above {GRAD_NORM_LIMIT:g} the steps are noise"
            if norm == 0:
                why = "no answer token in this batch, or frozen weights"
            found.append(Finding("grad_norm", f"train/grad_norm is {norm:g}: {why}"))
        speed = values.get("tokens_per_s") or values.get("steps_per_s")
        if speed and self._too_slow(speed):
            causes = "another job on these GPUs, a full disk, throttling?"
            found.append(Finding("slow", f"{COLLAPSE:g} times slower than before for {self.slow} steps: {causes}"))
        if math.isfinite(loss):
            self.losses.append(loss)
        return found

    def _spikes(self, loss: float) -> bool:
        median = statistics.median(self.losses)
        scatter = statistics.median(abs(x - median) for x in self.losses)
        return loss > SPIKE * median and loss - median > max(SPIKE_NATS, SPIKE_SCATTER * scatter)

    def _too_slow(self, speed: float) -> bool:
        """Count this step's speed; whether the run has been too slow for long enough to say so."""
        slow = len(self.speeds) >= 5 and speed * COLLAPSE < statistics.median(self.speeds)
        self.slow = self.slow + 1 if slow else 0
        if self.slow >= COLLAPSE:
            return True
        self.speeds.append(speed)
        return False

    def report(self, expected_steps: int) -> dict[str, object]:
        """What train_health.json holds."""
        return {
            "status": "warned" if self.warnings else "healthy",
            "step": self.step,
            "expected_steps": expected_steps,
            "tokens_this_session": int(self.tokens),
            "median_tokens_per_s": round(statistics.median(self.speeds)) if self.speeds and self.tokens else None,
            "last_val_loss": self.validation[-1] if self.validation else None,
            "warnings": [asdict(w) for w in self.warnings],
        }
