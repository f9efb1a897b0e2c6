"""Programs that print nothing or read nothing: exec_success_rate counts them, as the contract defines it, and they
solve nothing.

A model that learns to write bare definitions, which nobody calls, or to print a constant raises that rate and passes no
test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from phase1.report.inputs import Side, value_of

MADE_UP = 0.5  # share of a rise, from which on it is one of silent programs
SILENT, IDLE = "print nothing", "print nothing or read nothing of their input"  # kinds of such programs, in words
RATES = {SILENT: "silent_rate", IDLE: "idle_rate"}
MUCH = 0.2  # share of the programs that count as executed, from which on silent ones need a warning


@dataclass(frozen=True)
class SilentRise:
    """A rise of exec_success_rate on a data set that programs of one `kind` (of RATES) make up. Rates are 0 to 1.

    `silent_before` is None where Phase 0 does not say which of its programs are of it: the rise may be one of them.
    """

    dataset: str
    before: float
    now: float
    silent_before: float | None
    silent_now: float
    kind: str = SILENT

    @property
    def spoken_before(self) -> float | None:
        """Phase 0's exec_success_rate without silent programs; None where it is not known."""
        return None if self.silent_before is None else self.before - self.silent_before

    @property
    def spoken_now(self) -> float:
        """Phase 1's exec_success_rate without silent programs."""
        return self.now - self.silent_now

    def words(self, name: str = "exec_success_rate") -> str:
        """The rise, called `name`, and what is left of it."""
        known = self.silent_before is not None
        return (
            f"{name} {self.before:.1%} → {self.now:.1%} {'is' if known else 'may be'} a rise of programs that "
            f"{self.kind}, without them {_rate(self.spoken_before)} → {_rate(self.spoken_now)}"
        )


def _rate(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"


def silent_rises(phase0: Side, phase1: Side) -> list[SilentRise]:
    """The data sets on which programs that print nothing, or those and others that read nothing, make up the rise of
    exec_success_rate, as far as is known."""
    rises = (_rise(phase0, phase1, name, SILENT) or _rise(phase0, phase1, name, IDLE) for name in phase1.datasets)
    return [rise for rise in rises if rise is not None]


def of_dataset(rises: Iterable[SilentRise], dataset: str) -> SilentRise | None:
    """The one of this data set."""
    return next((rise for rise in rises if rise.dataset == dataset), None)


def _rise(phase0: Side, phase1: Side, name: str, kind: str) -> SilentRise | None:
    a, b = phase0.datasets.get(name), phase1.datasets.get(name)
    before, now = value_of(a, "exec_success_rate"), value_of(b, "exec_success_rate")
    silent_before, silent_now = value_of(a, RATES[kind]), value_of(b, RATES[kind])
    if before is None or now is None or silent_now is None or now <= before:
        return None
    if silent_before is None:
        seen = silent_now >= max(now - before, MUCH * now)
    else:
        seen = silent_now - silent_before > MADE_UP * (now - before)
    return SilentRise(name, before, now, silent_before, silent_now, kind) if seen else None
