"""The judge's workers: how many sandboxes run at a time, who gets the next free one, and what an idle one does.

A program's tests run one after another. While workers idle, tests of a program that has proved slow run side by side
with the one it is at. The verdict is the same: what ran ahead is taken in the tests' order, each in a sandbox of its
own as after any test that ended one, and what the serial way would not have run is thrown away and counted nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field

from phase1.judge.outcomes import MAX_TIMEOUTS, Running, Task, TestRun

CONTINUES, SLOW, ANY = range(3)  # who gets a worker first: a program that has begun, one expected to be slow
TICK = 0.05  # seconds between two looks for idle workers
PATIENCE = 1.0  # seconds of one test after which a program counts as slow; a thirtieth of a shorter limit's CPU time
SHARE = 30
HELD = 64 << 20  # bytes of output that may wait for the tests before them


@dataclass
class RunAhead:
    """Tests that run, or have run, before their turn; `needed` when the serial way is sure to run them."""

    first: int
    work: asyncio.Task[list[TestRun]]
    needed: bool
    started: int


@dataclass
class Course:
    """A program on its way through its tests.

    Attributes:
        done: tests whose outcome is told.
        late: timeouts one after another just before.
        since: loop time at which the test it is at began; None while it waits for a worker or compiles.
        careful: it has lost a sandbox.
    """

    task: Task
    done: int = 0
    late: int = 0
    since: float | None = None
    careful: bool = False
    ahead: dict[int, RunAhead] = field(default_factory=dict)

    def compiled(self, now: float) -> None:
        """Its first test begins."""
        self.since = now if self.since is None else self.since

    def told(self, run: TestRun, now: float) -> None:
        """Count a test's outcome. What ran ahead of it, if that was not taken, is ended."""
        if stale := self.ahead.pop(self.done, None):
            stale.work.cancel()
        self.done += 1
        self.late = self.late + 1 if run.verdict == "timeout" else 0
        self.since = now

    def wants(self, now: float, workers: int) -> int | None:
        """The next test that an idle worker should run ahead; None where there is none."""
        patience = 0.0 if self.task.slow else min(PATIENCE, self.task.limit / SHARE)
        if self.since is None or now - self.since < patience:
            return None
        if sum(len(run.output) for a in self.ahead.values() if _ran(a.work) for run in a.work.result()) > HELD:
            return None
        behind = range(self.done + 1, min(self.task.count, self.done + 1 + workers))
        return next((number for number in behind if number not in self.ahead), None)

    def needs(self, number: int) -> bool:
        """Whether the serial way is sure to run this test in a sandbox that begins with it: there is no room for three
        timeouts before it. Asserts share a process, which the test before may end or not."""
        return self.task.kind == "stdin" and number - self.done < MAX_TIMEOUTS - self.late


class Workers:
    """The workers of one sandbox.

    Attributes:
        count: sandboxes at a time.
        run_ahead: runs a course's tests from a number on in a sandbox of their own; None where nothing may run ahead.
    """

    def __init__(self, count: int):
        self.count, self.free = count, count
        self.run_ahead: Callable[[Course, int], Coroutine[None, None, list[TestRun]]] | None = None
        self.courses: list[Course] = []
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._ticker: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------------------- a worker
    @contextlib.asynccontextmanager
    async def taken(self, rank: int) -> AsyncIterator[None]:
        """Wait for a worker and hold it."""
        if self.free:
            self.free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._queue, (rank, next(self._numbers), turn))
            self._give_way()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it came all the same
                    self._release()
                raise
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        while self._queue:
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def _give_way(self) -> None:
        """End the youngest run that may be for nothing: somebody waits."""
        unsure = [(a, c) for c in self.courses for a in c.ahead.values() if not a.needed and not a.work.done()]
        if unsure:
            youngest, course = max(unsure, key=lambda found: found[0].started)
            del course.ahead[youngest.first]
            youngest.work.cancel()

    # ----------------------------------------------------------------------------------------------------- side by side
    @contextlib.asynccontextmanager
    async def course(self, task: Task) -> AsyncIterator[Course]:
        """A program's way through its tests; what ran ahead for nothing is ended on leaving."""
        course = Course(task)
        self.courses.append(course)
        if self._ticker is None and self.run_ahead:
            self._ticker = asyncio.create_task(self._tick())
        try:
            yield course
        finally:
            self.courses.remove(course)
            works = [a.work for a in course.ahead.values()]
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            if not self.courses and self._ticker:
                self._ticker.cancel()
                self._ticker = None

    async def ran_ahead(self, course: Course) -> list[TestRun] | None:
        """What ran ahead of the test that a course is at; None where nothing did, or it failed and is to run again."""
        ahead = course.ahead.get(course.done)
        if ahead is None:
            return None
        ahead.needed = True
        await asyncio.wait([ahead.work])
        del course.ahead[ahead.first]
        return ahead.work.result() if _ran(ahead.work) else None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._use_idle()

    def _use_idle(self) -> None:
        """Give idle workers tests to run ahead: first those that are sure to be needed, then those next in turn."""
        now = asyncio.get_running_loop().time()
        while self.run_ahead and self.free and not self._queue:
            wanted = [(c, number) for c in self.courses if (number := c.wants(now, self.count)) is not None]
            if not wanted:
                return
            course, number = min(wanted, key=lambda w: (not w[0].needs(w[1]), w[1] - w[0].done))
            self.free -= 1
            work = asyncio.create_task(self.run_ahead(course, number))
            work.add_done_callback(self._worked)
            course.ahead[number] = RunAhead(number, work, course.needs(number), next(self._numbers))

    def _worked(self, work: asyncio.Task[list[TestRun]]) -> None:
        """Free its worker, and look at what it raised, so that nobody is told of an error that nobody asks for."""
        _ran(work)
        self._release()

    # ---------------------------------------------------------------------------------------------------- what is shown
    def running(self) -> list[Running]:
        """The programs that have a worker, the one that has been longest at its test first."""
        now = asyncio.get_running_loop().time()
        found = []
        for c in self.courses:
            if c.since is not None and c.done < c.task.count:
                tests = (
                    1 if c.task.kind == "stdin" else c.task.count - c.done
                )  # which of its asserts it is at, none says
                found.append(Running(c.done + 1, c.task.count, now - c.since, tests * c.task.limit))
        return sorted(found, key=lambda r: -r.seconds)


def _ran(work: asyncio.Task[list[TestRun]]) -> bool:
    """Whether it came to its end."""
    return work.done() and not work.cancelled() and work.exception() is None
