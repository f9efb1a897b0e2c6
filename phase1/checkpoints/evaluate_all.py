"""The evaluations of a pass, two at a time: while one generates and judges, the next prepares and awaits its servers.

Each has an attempt, a process, a log and a folder of its own; what they share is the vLLM servers, by turns
(phase1.generate.kept_servers). An evaluation with another backend has no turn: the next then starts at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.evaluate_one import evaluate_one
from phase1.checkpoints.find import Checkpoint, settled
from phase1.checkpoints.gpus import choose_gpus
from phase1.checkpoints.settings import Settings
from phase1.files import BadInput
from phase1.generate.kept_servers import Turn, held_servers

AT_ONCE = 2  # evaluations: each holds its problems' tests in memory
SPACE_CHECK = 30  # seconds between two looks at a disk that is too full


@dataclass(frozen=True)
class Evaluated:
    """How the evaluations of a pass went: whether one failed, and what ended them before the last one."""

    failed: bool
    stopped: BadInput | None


def evaluate_all(todo: Sequence[Checkpoint], settings: Settings, attempts: Attempts) -> Evaluated:
    """Evaluate the checkpoints once they have settled, each as soon as the one before has its servers."""
    if not todo:
        return Evaluated(failed=False, stopped=None)
    try:
        environment = {}
        if any(not c.damaged for c in todo):  # recording damage needs no GPU
            environment = choose_gpus(settings.gpus, settings.max_gpu_mem_used, settings.force, settings.passed_on)
    except BadInput as e:
        return Evaluated(failed=False, stopped=e)
    with held_servers(settings.output_dir / "servers") as kept:
        # Those that a kill cut short come last: one that takes the machine down must not keep the others waiting.
        order = sorted(settled(todo, settings.settle), key=lambda c: (attempts.cut_short(c.step), c.step))
        return asyncio.run(_overlapping(order, settings, attempts, {**environment, **kept}))


async def _overlapping(
    order: Sequence[Checkpoint], settings: Settings, attempts: Attempts, environment: Mapping[str, str]
) -> Evaluated:
    """Begin one evaluation after the other. What stops the pass lets those that have begun come to their end."""
    begun: list[asyncio.Task[bool]] = []
    for c in order:
        while len(at_work := [task for task in begun if not task.done()]) >= AT_ONCE:
            await asyncio.wait(at_work, return_when=asyncio.FIRST_COMPLETED)
        if any(task.done() and task.exception() for task in begun):
            break
        try:
            await wait_for_space(settings)
        except BadInput as e:
            return _ends(await asyncio.gather(*begun, return_exceptions=True), e)
        with contextlib.closing(Turn()) as turn:
            task = asyncio.create_task(evaluate_one(c, settings, attempts, {**environment, **turn.environment}))
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # said, whatever ends us first
            begun.append(task)
            await turn.begun(task)
    return _ends(await asyncio.gather(*begun, return_exceptions=True))


def _ends(ends: Sequence[bool | BaseException], stopped: BadInput | None = None) -> Evaluated:
    """What the evaluations came to, in the order in which they began.

    Raises:
        Exception: one that is nobody's input.
    """
    for end in ends:
        if isinstance(end, BadInput):
            stopped = stopped or end
        elif isinstance(end, BaseException):
            raise end
    return Evaluated(failed=any(end is False for end in ends), stopped=stopped)


async def wait_for_space(settings: Settings) -> None:
    """Wait until the output directory's disk has --min_free_gb.

    Raises:
        BadInput: it has not after --max_wait seconds.
    """
    deadline = time.monotonic() + settings.max_wait
    while (free := shutil.disk_usage(settings.output_dir).free / 1e9) < settings.min_free_gb:
        if time.monotonic() >= deadline:
            raise BadInput(
                f"{settings.output_dir}: {free:.2f} GB free after waiting {settings.max_wait:g} s, --min_free_gb asks "
                f"for {settings.min_free_gb:g}; make room there, or let --prune delete evaluated checkpoints"
            )
        print(
            f"waiting for disk space: {free:.2f} of {settings.min_free_gb:g} GB free in {settings.output_dir}",
            flush=True,
        )
        await asyncio.sleep(min(SPACE_CHECK, max(0.1, deadline - time.monotonic())))
