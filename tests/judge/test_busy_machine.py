"""A busy machine changes no verdict: what waits for a processor does not use up its limits."""

import asyncio
import contextlib
import subprocess
import sys

import pytest

from phase1.judge import sandbox
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
from tests.judge.running_judge import stdin

ALONE = """
import time
while time.process_time() < 0.3:
    pass
print(input())
"""
WITH_CHILDREN = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        begun = time.process_time()
        while time.process_time() - begun < 0.1:
            pass
        os._exit(0)
    os.wait()
print(input())
"""


@contextlib.contextmanager
def busy_loops(count):
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "loops", "program"),
    [
        *((workers, 0, ALONE) for workers in (1, 2, 8, 40)),
        (12, 8, ALONE),
        (2, 0, WITH_CHILDREN),
        (12, 8, WITH_CHILDREN),
    ],
)
def test_programs_at_85_percent_of_their_limit_pass_however_many_run(monkeypatch, program, workers, loops):
    """The wall limit is as near here as no judge has it: 1 s, while the last programs take many."""
    monkeypatch.setattr(sandbox, "WALL_FACTOR", 1)
    monkeypatch.setattr(sandbox, "WALL_MORE", 0.65)
    many = max(6, workers)

    async def judged():
        async with open_judge(JudgeConfig(workers=workers)) as judge:
            cases = [stdin((f"{i}\n", f"{i}\n"), time_limit=0.35) for i in range(many)]
            verdicts = await asyncio.gather(*(judge.judge(f"{program}# {i}", case) for i, case in enumerate(cases)))
            return [v.error_type for v in verdicts], judge.info["lost_sandboxes"]

    with busy_loops(loops):
        verdicts, lost = asyncio.run(judged())
    assert verdicts == ["success"] * many
    assert lost == 0
