"""phase1.checkpoints.evaluate_one: whose fault a failed attempt is, and what it leaves behind."""

import asyncio
import errno
import os
from pathlib import Path

import pytest
import torch

from phase1.checkpoints import evaluate_one as module
from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.evaluate_one import GoneError, evaluate_one, hold, trained_from
from phase1.checkpoints.find import find_checkpoints, settled
from phase1.checkpoints.settings import Settings
from phase1.files import write_json
from tests.checkpoints.made import MANIFESTS, make_checkpoint
from tests.tiny_model import write_tiny_model


def leave_shards_alone(model: Path) -> None:
    """As with save_contents that leave out hf_model: the weights are in the FSDP shards."""
    (model / "model.safetensors").unlink()
    write_json(model.parent / "fsdp_config.json", {"world_size": 1})
    for name in ("model_world_size_1_rank_0.pt", "data.pt"):
        torch.save({}, model.parent / name)


class OneTry:
    """A checkpoint, and attempts at it with scripts that do what `child` does."""

    def __init__(self, folder: Path, monkeypatch, child, convert: bool = False):
        model = make_checkpoint(folder, 5)
        if convert:
            leave_shards_alone(model)

        async def run_child(script, *_):
            return child(script)

        monkeypatch.setattr(module, "run_child", run_child)
        self.path, self.attempts = model.parent, Attempts(folder / "out")
        self.settings = Settings(folder, folder / "out", MANIFESTS, keep_best=0)

    def __call__(self) -> bool:
        [c] = settled(find_checkpoints(self.path.parent), 0)
        return asyncio.run(evaluate_one(c, self.settings, self.attempts, {}))


def test_killed_conversions_are_counted_and_leave_nothing_behind(tmp_path, monkeypatch):
    """Each leaves a temporary folder as large as the model, under a new name."""

    def killed(script):
        half = tries.path / f".huggingface.{len(tries.attempts.rows)}.tmp"
        half.mkdir()
        (half / "model.safetensors").write_bytes(b"0" * 1000)
        return f"{script}: killed by SIGKILL"

    tries = OneTry(tmp_path, monkeypatch, killed, convert=True)
    (tries.path / ".huggingface.0.tmp").mkdir()  # of a night in which the machine went down
    assert [tries() for _ in range(3)] == [False] * 3
    [c] = find_checkpoints(tmp_path)
    assert len(tries.attempts.failures(c)) == 3 and not list(tries.path.glob(".*"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
def test_a_full_disk_gives_no_checkpoint_up_however_often_it_ends_an_attempt(tmp_path, monkeypatch, capsys, number):
    why = f"exit code 2, error: file system: {os.strerror(number)}; make room, then start the same command again"
    tries = OneTry(tmp_path, monkeypatch, lambda script: f"{script}: {why}")
    assert [tries() for _ in range(3)] == [False] * 3
    [c] = find_checkpoints(tmp_path)
    assert not tries.attempts.failures(c) and all(why in row.error for row in tries.attempts.rows)
    assert capsys.readouterr().err.count("step 5: an attempt failed: phase1_eval.py: exit code 2") == 3


@pytest.mark.parametrize("convert", [False, True], ids=["evaluating", "converting"])
def test_an_attempt_that_fails_because_rotation_has_begun_is_no_failure_of_the_checkpoint(
    tmp_path, monkeypatch, convert
):
    def half_deleted(script):
        (tries.path / ("data.pt" if convert else "huggingface/tokenizer.json")).unlink()
        return f"{script}: exit code 1"

    tries = OneTry(tmp_path, monkeypatch, half_deleted, convert)
    assert tries()
    [row] = tries.attempts.rows
    assert (row.error, row.exit_code) == ("gone while it was looked at", 0)


def test_a_model_that_changes_between_two_looks_while_it_is_linked_is_left_for_later(tmp_path, monkeypatch):
    make_checkpoint(tmp_path, 5)
    [c] = settled(find_checkpoints(tmp_path), 0)
    prints = iter("ab")
    monkeypatch.setattr("phase1.checkpoints.keep.fingerprint", lambda _: next(prints))
    with pytest.raises(GoneError):
        hold(c, tmp_path / "out")
    assert not list((tmp_path / "out" / "kept").iterdir())


@pytest.mark.parametrize("name", [None, "huggingface/chat_template.jinja", "huggingface/tokenizer.json", "data.pt"])
def test_a_converted_model_that_rotation_began_to_delete_is_not_held(tmp_path, name):
    """Nobody saw it settle; a model loads without its chat template."""
    model = make_checkpoint(tmp_path, 5)
    leave_shards_alone(model)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    [c] = settled(find_checkpoints(tmp_path), 0)
    assert c.convert
    write_tiny_model(model)  # the conversion
    if name is None:
        assert hold(c, tmp_path / "out")
        return
    (c.path / name).unlink()
    with pytest.raises(GoneError):
        hold(c, tmp_path / "out")
    assert not list((tmp_path / "out" / "kept").iterdir())


@pytest.mark.parametrize(
    ("text", "base"), [(None, None), ("torn", None), ("[]", None)], ids=["missing", "torn", "another form"]
)
def test_without_a_whole_train_run_json_no_base_model_is_known(tmp_path, text, base):
    if text is not None:
        (tmp_path / "train_run.json").write_text(text)
    assert trained_from(tmp_path) is base
