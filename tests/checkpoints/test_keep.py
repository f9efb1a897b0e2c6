"""phase1.checkpoints.keep: what is kept outlives its checkpoint, and is never taken for something else."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phase1.checkpoints import keep as keep_module
from phase1.checkpoints.keep import kept_model, point_best_model, release
from phase1.files import BadInput
from phase1.handoff.export import export_model
from tests.checkpoints.made import make_checkpoint


def keep(model: Path, output_dir: Path, step: int) -> Path:
    return keep_module.keep(model, output_dir, step, is_whole=lambda _: True)


def test_what_is_kept_is_hard_links_and_the_best_model_moves_by_one_rename(tmp_path):
    best, outputs = tmp_path / "out" / "best_model", tmp_path / "out"
    models = {s: make_checkpoint(tmp_path / "ck", s) for s in (5, 10, 15)}
    for s, m in models.items():
        (m / "config.json").write_text(f'{{"step": {s}}}')
        point_best_model(outputs, keep(m, outputs, s))
    assert all((best / p.name).samefile(p) for p in models[15].iterdir())
    assert not Path(os.readlink(best)).is_absolute()  # outputs/ can be moved
    release(outputs, {10, 15})
    assert [bool(kept_model(outputs, s)) for s in (5, 10, 15)] == [False, True, True]


def test_of_a_model_that_is_links_to_files_elsewhere_the_files_are_kept(tmp_path):
    """As in a hub cache: a hard link to a relative link would lead nowhere."""
    model = make_checkpoint(tmp_path / "ck", 5)
    (model / "config.json").rename(tmp_path / "blob")
    (model / "config.json").symlink_to("../../../blob")
    assert (keep(model, tmp_path / "out", 5) / "config.json").samefile(tmp_path / "blob")
    exported = export_model(model, tmp_path / "deep" / "er" / "model")
    assert (exported / "config.json").samefile(tmp_path / "blob")


def test_a_kept_model_that_was_written_into_is_not_taken_for_the_kept_one(tmp_path):
    """verl writes in place when the same step is trained again, into the very file that is kept."""
    model = make_checkpoint(tmp_path / "ck", 5)
    assert keep(model, tmp_path / "out", 5)
    save_file({"a": torch.ones(8)}, model / "model.safetensors")
    with open(model / "config.json", "r+") as f:
        f.write("[]")
    assert kept_model(tmp_path / "out", 5) is None
    assert keep(model, tmp_path / "out", 5) and kept_model(tmp_path / "out", 5)


def test_a_folder_of_the_users_at_best_model_is_left_alone(tmp_path):
    (tmp_path / "out" / "best_model").mkdir(parents=True)
    with pytest.raises(BadInput, match="is no link of this script"):
        point_best_model(tmp_path / "out", make_checkpoint(tmp_path / "ck", 5))


def test_a_model_that_is_not_whole_takes_no_place_of_the_one_that_is_kept(tmp_path):
    """The checkpoint is deleted while its evaluation is tried again: it can still be done from what was kept first."""
    model = make_checkpoint(tmp_path / "ck", 5)
    kept = keep(model, tmp_path / "out", 5)
    (model / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match="changed while it was being kept"):
        keep_module.keep(model, tmp_path / "out", 5, is_whole=lambda held: (held / "tokenizer.json").exists())
    assert kept_model(tmp_path / "out", 5) == kept and (kept / "tokenizer.json").exists()
    assert [p.name for p in (tmp_path / "out" / "kept").iterdir()] == ["global_step_5"]
