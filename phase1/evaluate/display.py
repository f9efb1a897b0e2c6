"""Progress of an evaluation's two stages: bars where there is a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Literal, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from phase1.contract.records import Completion, Record
from phase1.judge.outcomes import Running

Stage = Literal["generated", "judged"]
STAGES: tuple[Stage, ...] = ("generated", "judged")
TICK = 1.0  # seconds between two updates


class Display:
    """What both stages have done, how much each is working on, how fast, and how long it may still take.

    Rates are of this session, from its first request or verdict on. It is the `Progress` that a backend reports to.
    """

    def __init__(self, total: int, generated: int, judged: int, every: float = 15.0):
        """Nothing is shown before the display is entered.

        Args:
            total: answers of the whole evaluation.
            generated, judged: those that earlier sessions have done.
            every: seconds between two lines where there is no terminal.
        """
        self.total, self.every = total, every
        self.done: dict[Stage, int] = {"generated": generated, "judged": judged}
        self.before = dict(self.done)
        self.running: dict[Stage, int] = {"generated": 0, "judged": 0}
        self.began: dict[Stage, float] = {}  # when a stage first had something to do
        self.first: dict[Stage, float] = {}  # when it first finished something
        self.last: dict[Stage, float] = {}  # when it last did
        self.programs: Callable[[], list[Running]] = list  # what the judge runs now
        self.tokens = self.tests = 0
        self.verdicts: Counter[str] = Counter()
        self.printed = time.monotonic()
        # Said outright, since FORCE_COLOR would make a terminal of a log file.
        self.console = Console(file=sys.stdout, force_terminal=sys.stdout.isatty())
        self.bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self.tasks = {
            stage: self.bars.add_task(stage, total=total, completed=n, note="") for stage, n in self.done.items()
        }

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.tick()
            self.bars.stop()
        else:
            self.say(self.line())

    @contextlib.asynccontextmanager
    async def ticking(self) -> AsyncIterator[None]:
        """Keep the display moving, also while nothing finishes."""

        async def tick() -> None:
            while True:
                await asyncio.sleep(TICK)
                self.tick()

        task = asyncio.create_task(tick())
        try:
            yield
        finally:
            task.cancel()

    # ----------------------------------------------------------------------------------------------- what is reported
    def say(self, text: str) -> None:
        """Show a line of its own, above the bars where there are any."""
        if self.console.is_terminal:
            self.bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def start(self, stage: Stage, n: int = 1) -> None:
        """Count `n` requests sent, or programs given to the judge; negative for those that came to nothing."""
        self.running[stage] += n
        self.began.setdefault(stage, time.monotonic())

    def requests_sent(self, n: int = 1) -> None:
        """Count `n` requests as being worked on; negative for those that are given back unanswered."""
        self.start("generated", n)

    def generated(self, completion: Completion) -> None:
        """Count a finished completion."""
        self.tokens += completion.gen_tokens
        self._finish("generated")

    def judged(self, record: Record) -> None:
        """Count a finished verdict."""
        self.tests += record.tests_run
        self.verdicts[record.error_type] += 1
        self._finish("judged")

    def _finish(self, stage: Stage) -> None:
        self.done[stage] += 1
        self.last[stage] = time.monotonic()
        self.first.setdefault(stage, self.last[stage])
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
        """Both stages in one line."""
        parts = [f"{stage} {n}/{self.total} {self.note(stage)}" for stage, n in self.done.items()]
        return "  ".join(part.rstrip() for part in parts)

    def note(self, stage: Stage) -> str:
        """What is running and how fast; for the judge also its verdicts and the time left of the slower stage."""
        amount, unit = (self.tokens, "tokens/s") if stage == "generated" else (self.tests, "tests/s")
        notes = [f"({self.running[stage]} running, {self.rate(amount, stage):,.0f} {unit})"]
        if stage == "judged":
            notes += [f"{verdict} {n}" for verdict, n in sorted(self.verdicts.items())]
            if self.done["generated"] >= self.total and (programs := self.programs()):
                notes.append(tail(programs))
            elif left := self.seconds_left():
                notes.append(f"{left // 60:.0f} min {left % 60:.0f} s left")
        return "  ".join(notes)

    def rate(self, amount: float, stage: Stage) -> float:
        """`amount` a second from the stage's beginning until now, or until its last one was finished; 0 before."""
        if stage not in self.began:
            return 0.0
        ended = self.last.get(stage) if self.done[stage] >= self.total else None
        return amount / max(1e-3, (ended or time.monotonic()) - self.began[stage])

    def seconds(self, since: float) -> dict[str, float]:
        """How long the stages took, by the names of phase1.evaluate.timing; `since`: when the session began."""
        took: dict[str, float] = {}
        if "generated" in self.last:
            took["first_answer"] = self.first["generated"] - since
            if "generated" in self.began:  # not where every prompt is too long to be asked
                took["generation"] = self.last["generated"] - self.began["generated"]
        if "judged" in self.last:
            took["judging"] = self.last["judged"] - self.began["judged"]
            if "generated" in self.last:
                took["tail"] = max(0.0, self.last["judged"] - self.last["generated"])
        return took

    def seconds_left(self) -> float | None:
        """The longer of the two stages at its rate so far; None before both have finished something, 0 at the end."""
        left = [0.0]
        for stage in STAGES:
            missing = self.total - self.done[stage]
            if missing <= 0:
                continue
            rate = self.rate(self.done[stage] - self.before[stage], stage)
            if not rate:
                return None
            left.append(missing / rate)
        return max(left)


def tail(programs: list[Running]) -> str:
    """What still runs once all is generated. How many tests a program will take is not known, how long one may is."""
    p = programs[0]
    return (
        f"{len(programs)} still run, the longest at test {p.test} of {p.tests} for {p.seconds:.0f} s, which may take "
        f"{p.limit:g} s of CPU time"
    )
