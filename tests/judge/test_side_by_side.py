"""Tests of one program side by side while workers idle: the verdict is the serial one, in every field that is told."""

import asyncio
from dataclasses import asdict, dataclass

import pytest

from phase1.judge import outcomes
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
from phase1.judge.outcomes import Task
from phase1.judge.verdict import Verdict
from phase1.judge.workers import ANY, CONTINUES, SLOW, Workers
from tests.judge.running_judge import asserts, stdin

ENDLESS = "if int(input()) in {late}:\n    while True: pass\nprint('ok')"
COUNTS_IN_A_FILE = (
    "import os\nn = int(input())\nseen = os.path.exists('/tmp/seen')\nopen('/tmp/seen', 'w').close()\n"
    "if n in (1, 2):\n    while True: pass\nprint('seen' if seen else 'ok')"
)
ALL = [(str(n), "ok") for n in range(9)]
LIMIT = 0.1  # s of CPU time a test


def some_late(*late):
    return ENDLESS.format(late=set(late) or "()"), stdin(*ALL, time_limit=LIMIT)


CASES = {
    "none": some_late(),
    "three in order": some_late(0, 1, 2, 7),
    "three behind others": some_late(2, 3, 4, 5, 6),
    "never three in order": some_late(0, 1, 3, 4, 6, 7),
    "the last": some_late(8),
    "a wrong answer, then three": (
        ENDLESS.format(late={2, 3, 4}),
        stdin(("0", "no"), *ALL[1:], time_limit=LIMIT),
    ),
    "it ends while another runs": (
        "n = int(input())\nif n == 0:\n    while True: pass\nif n == 1:\n    raise SystemExit(4)\nprint('ok')",
        stdin(*ALL, time_limit=LIMIT),
    ),
    "files of one test are not the next one's": (COUNTS_IN_A_FILE, stdin(*ALL, time_limit=LIMIT)),
    "over its memory": (
        "n = int(input())\nif n == 0:\n    while True: pass\nif n == 1:\n    x = bytearray(1 << 30)\nprint('ok')",
        stdin(*ALL, time_limit=LIMIT),
    ),
    "asserts: the first is endless": (
        "def f(x):\n    while x == 0: pass\n    return x",
        asserts("assert f(0) == 0", "assert f(1) == 1", "assert f(0) == 0", "assert f(2) == 3") | {"time_limit": LIMIT},
    ),
    "asserts: a later one sees what the first left": (
        "seen = []\ndef f(x):\n    seen.append(x)\n    for _ in range(3_000_000): pass\n    return len(seen)",
        asserts("assert f(0) == 1", "assert f(0) == 2", "assert f(0) == 3") | {"time_limit": 5.0},
    ),
}


@dataclass
class Way:
    """Verdicts of one way of judging, and the tests that were begun before their turn."""

    verdicts: list[Verdict]
    began: list[int]


async def judge_each(judge, side_by_side, slow=False):
    """Every case, one after another, so that workers idle."""
    pool, began = judge.backend.pool, []
    run_ahead = pool.run_ahead
    assert run_ahead, "there is no bubblewrap"

    def noted(course, first):
        began.append(first)
        return run_ahead(course, first)

    pool.run_ahead = noted if side_by_side else None
    judge.judged.clear()
    verdicts = [await judge.judge(program, cases, slow) for program, cases in CASES.values()]
    await asyncio.sleep(0)  # what was ended last gives its worker back
    assert pool.free == pool.count and not pool.courses
    pool.run_ahead = run_ahead
    return Way(verdicts, began)


@pytest.fixture(scope="module")
def ways():
    async def all_three():
        async with open_judge(JudgeConfig(workers=4, memory_limit_mb=256)) as judge:
            return {
                "serial": await judge_each(judge, side_by_side=False),
                "found to be slow": await judge_each(judge, side_by_side=True),
                "expected to be slow": await judge_each(judge, side_by_side=True, slow=True),
            }

    return asyncio.run(all_three())


def told(verdict):
    """A verdict without its measured times and bytes."""
    fields = asdict(verdict) | {"judge_time": 0}
    if case := fields["first_failed_case"]:
        case |= {"cpu": 0, "wall": 0, "peak_rss": 0}
    return fields


@pytest.mark.slow
@pytest.mark.parametrize("way", ["found to be slow", "expected to be slow"])
def test_verdicts_are_the_serial_ones(ways, way):
    serial, beside = ways["serial"], ways[way]
    assert not serial.began and len(beside.began) > len(CASES)
    for name, one, other in zip(CASES, serial.verdicts, beside.verdicts, strict=True):
        assert told(one) == told(other), name
    # The rule of three, held against numbers by hand and not against the other way alone.
    assert [v.tests_run for v in beside.verdicts][:5] == [9, 3, 5, 9, 9]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["found to be slow", "expected to be slow"])
def test_what_ran_for_nothing_is_not_counted(ways, way):
    """Idle workers begin tests behind the third timeout; the verdict holds three, and their time."""
    verdict = ways[way].verdicts[list(CASES).index("three in order")]
    assert verdict.test_verdicts == ["timeout"] * 3 + ["not_run"] * 6
    assert 3 in ways[way].began, "none ran ahead of the third timeout"
    own = ways["serial"].verdicts[list(CASES).index("three in order")].judge_time
    assert 3 * LIMIT <= verdict.judge_time < 3 * own


# ---------------------------------------------------------------------------------------------------- who gets a worker
def test_a_worker_goes_to_what_has_begun_then_to_what_is_slow_then_in_turn():
    async def order():
        workers, got = Workers(1), []

        async def work(name, rank):
            async with workers.taken(rank):
                got.append(name)
                await asyncio.sleep(0.01)

        async with workers.taken(ANY):
            asked = [("any", ANY), ("slow", SLOW), ("other", ANY), ("begun", CONTINUES)]
            waiting = [asyncio.create_task(work(*a)) for a in asked]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert workers.free == 1
        return got

    assert asyncio.run(order()) == ["begun", "slow", "any", "other"]


def test_a_cancelled_wait_gives_its_worker_back():
    async def cancelled(when):
        workers = Workers(1)

        async def work():
            async with workers.taken(ANY):
                await asyncio.sleep(10)

        async with workers.taken(ANY):
            waiting = asyncio.create_task(work())
            await asyncio.sleep(0)
            if when == "while it waits":
                waiting.cancel()
        waiting.cancel()  # in the same turn in which the worker came
        await asyncio.gather(waiting, return_exceptions=True)
        return workers.free

    assert [asyncio.run(cancelled(when)) for when in ("while it waits", "as it comes")] == [1, 1]


def test_a_run_that_may_be_for_nothing_gives_way_to_a_program_and_a_needed_one_does_not():
    """Four workers, one endless program: beside it run the two tests that are sure to be needed, and one more."""

    async def went():
        workers, ended = Workers(4), []

        async def run_ahead(course, first):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                ended.append(first)
                raise
            return [outcomes.TestRun("timeout", "", 0.0, 0.0, 0)]

        workers.run_ahead = run_ahead
        task = Task("", "stdin", count=20, limit=1.0, memory=1, inputs=[""] * 20, slow=True)
        async with workers.course(task) as course, workers.taken(SLOW):
            course.compiled(0.0)
            while workers.free:
                await asyncio.sleep(0.01)
            assert {first: a.needed for first, a in course.ahead.items()} == {1: True, 2: True, 3: False}
            await asyncio.sleep(0)
            async with workers.taken(ANY):
                assert ended == [3]
        assert workers.free == 4
        return ended

    assert sorted(asyncio.run(went())) == [1, 2, 3]
