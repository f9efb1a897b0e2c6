"""Progress of an evaluation's two stages: bars where there is a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from phase1.contract.records import Completion, Record


class Display:
    """What both stages have done, what they are at, how fast, and how long it may still take.

    Counted against `total` answers; `generated` and `judged` are those of earlier sessions. Rates are of this session,
    from its first request or verdict on. `tick()` wants to be called about once a second.
    """

    def __init__(self, total: int, generated: int, judged: int, every: float = 15.0):
        self.total, self.every = total, every
        self.done = {"generated": generated, "judged": judged}
        self.before = dict(self.done)
        self.running = Counter({"generated": 0, "judged": 0})  # requests sent, programs with the judge
        self.began: dict[str, float] = {}  # stage -> when it first had something to do
        self.tokens = self.tests = 0
        self.verdicts: Counter[str] = Counter()
        self.printed = time.monotonic()
        self.console = Console(
            file=sys.stdout, force_terminal=sys.stdout.isatty()
        )  # FORCE_COLOR would make a log file a terminal
        self.bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self.tasks = {k: self.bars.add_task(k, total=total, completed=n, note="") for k, n in self.done.items()}

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(self, *_) -> None:
        if self.console.is_terminal:
            self.tick()
            self.bars.stop()
        else:
            self.say(self.line())

    # ----------------------------------------------------------------------------------------------- what is reported
    def say(self, text: str) -> None:
        """A line of its own, above the bars where there are any."""
        if self.console.is_terminal:
            self.bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def start(self, stage: str, n: int = 1) -> None:
        """`n` requests sent, or programs given to the judge; negative for those that came to nothing."""
        self.running[stage] += n
        self.began.setdefault(stage, time.monotonic())

    def generated(self, completion: Completion) -> None:
        self.tokens += completion.gen_tokens
        self._finish("generated")

    def judged(self, record: Record) -> None:
        self.tests += record.tests_run
        self.verdicts[record.error_type] += 1
        self._finish("judged")

    def _finish(self, stage: str) -> None:
        self.done[stage] += 1
        self.running[stage] = max(0, self.running[stage] - 1)

    # ------------------------------------------------------------------------------------------------- what is shown
    def tick(self) -> None:
        """Bring the bars up to date, or print a line when `every` seconds have passed since the last."""
        if self.console.is_terminal:
            for stage, task in self.tasks.items():
                self.bars.update(task, completed=self.done[stage], note=self.note(stage))
        elif time.monotonic() - self.printed >= self.every and self.began:
            self.printed = time.monotonic()
            self.say(self.line())

    def line(self) -> str:
        return "  ".join(f"{stage} {n}/{self.total} {self.note(stage)}".rstrip() for stage, n in self.done.items())

    def note(self, stage: str) -> str:
        """(running, rate), for the judge also its verdicts and the time left of whichever stage needs longer."""
        rate = (
            f"{self.rate(self.tokens, stage):,.0f} tokens/s"
            if stage == "generated"
            else f"{self.rate(self.tests, stage):,.0f} tests/s"
        )
        notes = [f"({self.running[stage]} running, {rate})"]
        if stage == "judged":
            notes += [f"{k} {n}" for k, n in sorted(self.verdicts.items())]
            if left := self.seconds_left():
                notes.append(f"{left // 60:.0f} min {left % 60:.0f} s left")
        return "  ".join(notes)

    def rate(self, amount: float, stage: str) -> float:
        return amount / max(1e-3, time.monotonic() - self.began[stage]) if stage in self.began else 0.0

    def seconds_left(self) -> float | None:
        """The longer of the two stages at its rate so far; None before both have finished something, 0 at the end."""
        left = []
        for stage, n in self.done.items():
            if n < self.total:
                rate = self.rate(n - self.before[stage], stage)
                if not rate:
                    return None
                left.append((self.total - n) / rate)
        return max(left, default=0.0)
