"""Checkpoints that are copied in and deleted while they are looked at: a half one is never taken.

Nothing here runs beside the evaluator, so no outcome depends on how busy the machine is. Whoever writes and deletes is
a generator that makes one small step at a time, where the evaluator lets time pass: while it waits for a checkpoint to
settle, before it reads a model and between the files that it links or copies. The tests promise what the settling rests
on: while a checkpoint grows or vanishes, at least one step falls into each wait.
"""

import errno
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from phase1.checkpoints import find
from phase1.checkpoints import keep as keep_module
from phase1.checkpoints.evaluate_one import GoneError, hold
from phase1.checkpoints.find import Checkpoint, find_checkpoints, look_again, settled
from phase1.checkpoints.keep import keep, kept_model, remove
from phase1.files import BadInput, fingerprint
from tests.checkpoints.made import make_checkpoint

PIECE = 500  # bytes that are written at once
NOT_NEEDED = ("chat_template.jinja", "generation_config.json", "merges.txt")  # a model loads without them


@pytest.fixture
def model(tmp_path) -> Path:
    """A whole model of small files, some of several pieces."""
    path = make_checkpoint(tmp_path / "whole", 1)
    for name in NOT_NEEDED:
        (path / name).write_text(json.dumps({"file": f"{name} " * 60}))
    return path


class Life:
    """A checkpoint that is written piece by piece, rests, is deleted file by file, and comes again."""

    def __init__(self, model: Path, checkpoint: Path, seed: int):
        self.model, self.checkpoint, self.rng, self.clock = model, checkpoint, random.Random(seed), 0
        self.steps = self._steps()

    def advance(self, least: int, most: int) -> None:
        """Make some number of steps, within these bounds."""
        for _ in range(self.rng.randint(least, most)):
            next(self.steps)

    def moment(self) -> None:
        """A short time in which a step falls now and then."""
        if self.rng.random() < 0.3:
            next(self.steps)

    def _steps(self) -> Iterator[None]:
        target = self.checkpoint / "huggingface"
        while True:
            target.mkdir(parents=True)
            for name in reversed(self._names()):
                data = (self.model / name).read_bytes()
                for at in range(0, len(data), PIECE):
                    with open(target / name, "ab") as f:
                        f.write(data[at : at + PIECE])
                    self.clock += 1  # no two writes at the same time, however coarse the file system's clock
                    os.utime(target / name, (self.clock, self.clock))
                    yield
            for _ in range(self.rng.randint(3, 20)):  # whole and at rest
                yield
            for name in self._names():
                (target / name).unlink()
                yield
            shutil.rmtree(self.checkpoint)
            yield

    def _names(self) -> list[str]:
        """The model's files in any order, often what it loads without first: that is the hardest to notice."""
        names = sorted(p.name for p in self.model.iterdir())
        self.rng.shuffle(names)
        if self.rng.random() < 0.7:
            names.sort(key=lambda name: name not in NOT_NEEDED)
        return names


@pytest.fixture(params=range(4))
def life(request, tmp_path, model, monkeypatch) -> Life:
    """The checkpoint of step 5, which lives on while the evaluator waits, links and copies."""
    life = Life(model, tmp_path / "run" / "global_step_5", request.param)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").write_text("9")
    link, copy, read = os.link, shutil.copy2, keep_module.fingerprint

    def slow_link(*args: object) -> None:
        life.moment()
        link(*args)

    def slow_copy(*args: object) -> None:
        life.moment()
        copy(*args)

    def slow_read(folder: Path) -> str:
        life.moment()
        return read(folder)

    monkeypatch.setattr(keep_module, "fingerprint", slow_read)
    monkeypatch.setattr(keep_module, "run_stamp", lambda _: {})  # asks git each time
    monkeypatch.setattr(find, "time", SimpleNamespace(sleep=lambda _: life.advance(1, 5)))
    monkeypatch.setattr(keep_module.os, "link", slow_link)
    monkeypatch.setattr(keep_module.shutil, "copy2", slow_copy)
    return life


def looks(life: Life, seen: set[str], count: int = 150) -> Iterator[Checkpoint]:
    """What is taken for a whole checkpoint in so many passes; why the rest is not goes into `seen`."""
    for _ in range(count):
        for c in settled(find_checkpoints(life.checkpoint.parent), 1):
            life.moment()  # other checkpoints are evaluated before it
            c = look_again(c)
            seen.add(c.problem.split(":")[0])
            if not c.problem:
                life.advance(0, 4)  # the attempt is written down, the checkpoint converted
                yield c


def test_what_is_held_is_the_whole_model(life, model, tmp_path):
    held, gone, seen = 0, 0, set()
    for c in looks(life, seen):
        try:
            assert fingerprint(hold(c, tmp_path / "out")) == fingerprint(model)
            held += 1
            remove(tmp_path / "out" / "kept" / "global_step_5")
        except GoneError:
            gone += 1
            assert not list((tmp_path / "out" / "kept").iterdir())
    assert held >= 3 and gone >= 3 and "still growing" in seen


def test_what_is_held_stays_whole_when_the_same_checkpoint_is_held_again(life, model, tmp_path):
    """An evaluation that failed is tried again, and finds its model held already."""
    held, gone = 0, 0
    for c in looks(life, set()):
        try:
            hold(c, tmp_path / "out")
            held += 1
        except GoneError:
            gone += 1
        if held:
            assert fingerprint(kept_model(tmp_path / "out", 5)) == fingerprint(model)
    assert held >= 3 and gone >= 1


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_what_is_kept_is_the_model_that_was_evaluated(life, model, tmp_path, monkeypatch, links):
    evaluated, kept, refused = fingerprint(model), 0, 0
    if not links:

        def no_link(*_: object) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(keep_module.os, "link", no_link)
    for c in looks(life, set()):
        try:
            where = keep(c.model_path, tmp_path / "out", 5, lambda copy: fingerprint(copy) == evaluated)
            assert fingerprint(where) == evaluated
            kept += 1
            remove(tmp_path / "out" / "kept" / "global_step_5")
        except (BadInput, FileNotFoundError):
            refused += 1
            assert not list((tmp_path / "out" / "kept").iterdir())
    assert kept >= 3 and refused >= 3


@pytest.mark.parametrize("name", ["generation_config.json", "model.safetensors"])
def test_a_deletion_that_begins_after_the_look_is_noticed_before_and_after_the_model_is_held(tmp_path, model, name):
    [c] = settled(find_checkpoints(tmp_path / "whole"), 0)
    assert look_again(c).problem == "" and hold(c, tmp_path / "out")
    remove(tmp_path / "out" / "kept" / "global_step_1")
    (model / name).unlink()
    assert look_again(c).problem == "changed since this pass looked first" and not look_again(c).damaged
    with pytest.raises(GoneError):
        hold(c, tmp_path / "out")
    assert not (tmp_path / "out" / "kept" / "global_step_1").exists()
