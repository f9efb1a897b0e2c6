"""phase1.checkpoints.evaluate_all: when the next evaluation of a pass begins, and what a failure does to others."""

import asyncio
import os

import pytest

from phase1.checkpoints import evaluate_all as module
from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.child import WrongFlagsError
from phase1.checkpoints.find import find_checkpoints
from phase1.checkpoints.settings import Settings
from phase1.files import BadInput
from phase1.generate.kept_servers import TURN
from tests.checkpoints.made import MANIFESTS, make_checkpoint

STEPS = (1, 2, 3, 4)


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """A pass over four checkpoints, each evaluated by a coroutine; returns how it ended."""

    def run(of_one, **settings):
        async def evaluate_one(c, settings, attempts, environment):
            return await of_one(c.step, lambda: os.write(int(environment[TURN]), b"1"))

        for step in STEPS:
            make_checkpoint(tmp_path / "checkpoints", step)
        monkeypatch.setattr(module, "evaluate_one", evaluate_one)
        (tmp_path / "out").mkdir()
        asked = Settings(tmp_path / "checkpoints", tmp_path / "out", MANIFESTS, settle=0, **settings)
        return module.evaluate_all(find_checkpoints(asked.checkpoint_dir), asked, Attempts(asked.output_dir))

    return run


@pytest.mark.parametrize("turns", [True, False])
def test_the_next_begins_with_the_turn_of_the_one_before_and_without_turns_at_its_end(evaluate, turns):
    alive, seen = set(), []

    async def of_one(step, take_turn):
        alive.add(step)
        seen.append(set(alive))
        await asyncio.sleep(0.05)
        assert max(alive) == step, "the next began before the turn"
        if turns:
            take_turn()
        await asyncio.sleep(0.3)
        alive.remove(step)
        return True

    done = evaluate(of_one)
    assert done == module.Evaluated(failed=False, stopped=None)
    assert [max(s) for s in seen] == list(STEPS)
    assert seen[1] == ({1, 2} if turns else {2}) and max(map(len, seen)) == (2 if turns else 1)


def test_one_that_fails_or_ends_before_its_turn_keeps_none_of_the_others(evaluate):
    ended = []

    async def of_one(step, take_turn):
        if step != 2:
            take_turn()
            await asyncio.sleep(0.05)
        ended.append(step)
        return step != 2

    assert evaluate(of_one) == module.Evaluated(failed=True, stopped=None)
    assert sorted(ended) == list(STEPS)


def test_a_refused_flag_ends_the_pass_once_the_evaluation_beside_it_has_ended(evaluate):
    ended = []

    async def of_one(step, take_turn):
        if step == 2:
            raise WrongFlagsError("no such flag")
        take_turn()
        await asyncio.sleep(0.1)
        ended.append(step)
        return True

    done = evaluate(of_one)
    assert str(done.stopped) == "no such flag" and ended == [1]


def test_no_room_on_the_disk_ends_the_pass_and_not_what_has_begun(evaluate, monkeypatch):
    ended, looks = [], []

    async def wait_for_space(_):
        looks.append(1)
        if len(looks) == 2:
            raise BadInput("no room")

    async def of_one(step, take_turn):
        take_turn()
        await asyncio.sleep(0.1)
        ended.append(step)
        return True

    monkeypatch.setattr(module, "wait_for_space", wait_for_space)
    done = evaluate(of_one)
    assert str(done.stopped) == "no room" and ended == [1]


def test_a_signal_cancels_both_and_is_passed_on(evaluate):
    ended = []

    async def of_one(step, take_turn):
        take_turn()
        try:
            await asyncio.sleep(0.3 if step == 2 else 60)
            raise SystemExit(143)  # as the handler of SIGTERM, in whatever runs then
        except asyncio.CancelledError:
            ended.append(step)
            raise

    with pytest.raises(SystemExit):
        evaluate(of_one)
    assert ended == [1]
