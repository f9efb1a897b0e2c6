"""phase1.checkpoints.find: nothing that is damaged or half written is taken for a whole checkpoint."""

from pathlib import Path

import pytest

from phase1.checkpoints.find import find_checkpoints
from phase1.files import write_json
from tests.checkpoints.made import cut, make_checkpoint
from tests.tiny_model import tiny_shapes, write_float32


def make_shards(model: Path, present: int) -> None:
    """Two files with their index; of the second one only where `present` is 2."""
    shapes = tiny_shapes()
    (model / "model.safetensors").unlink()
    homes = {name: f"m-{1 + (i > 3)}.safetensors" for i, name in enumerate(shapes)}
    write_json(model / "model.safetensors.index.json", {"weight_map": homes})
    for i in range(1, present + 1):
        file = f"m-{i}.safetensors"
        write_float32(model / file, {name: shapes[name] for name in shapes if homes[name] == file})


def rename(model: Path, old: str, new: str) -> None:
    """Every tensor whose name begins with `old` begins with `new`."""
    shapes = {new + n.removeprefix(old) if n.startswith(old) else n: shape for n, shape in tiny_shapes().items()}
    write_float32(model / "model.safetensors", shapes)


def lose(model: Path, name: str) -> None:
    write_float32(model / "model.safetensors", {n: shape for n, shape in tiny_shapes().items() if n != name})


DAMAGE = {
    "none": (lambda m: None, ""),
    "two shards": (lambda m: make_shards(m, 2), ""),
    "one of two shards": (lambda m: make_shards(m, 1), "no whole safetensors"),
    "torn weights": (lambda m: cut(m / "model.safetensors"), "no whole safetensors"),
    "empty weights": (lambda m: (m / "model.safetensors").write_bytes(b""), "no whole safetensors"),
    "garbled weights": (lambda m: (m / "model.safetensors").write_bytes(b"\xff" * 100), "no whole safetensors"),
    "no weights": (
        lambda m: (m / "model.safetensors").unlink(),
        "no weights in huggingface/ and nothing to convert",
    ),
    "torn config": (lambda m: (m / "config.json").write_text('{"a": '), "huggingface/config.json is not readable"),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "huggingface/tokenizer.json is missing"),
    "another tokenizer": (lambda m: (m / "tokenizer.json").rename(m / "vocab.json"), ""),
    "no tokenizer config": (
        lambda m: (m / "tokenizer_config.json").unlink(),
        "huggingface/tokenizer_config.json is missing",
    ),
    "another model's names": (lambda m: rename(m, "", "_orig_mod."), "a wrapper's prefix '_orig_mod.'"),
    "a tensor lost": (lambda m: lose(m, "model.norm.weight"), "lacks model.norm.weight"),
    "no head": (lambda m: lose(m, "lm_head.weight"), "lacks lm_head.weight"),
    "adapters within": (lambda m: rename(m, "lm_head.", "lm_head.base_layer."), "holds LoRA adapters (lm_head.base"),
    "an adapter beside": (lambda m: (m / "adapter_config.json").write_text("{}"), "json: a LoRA adapter"),
    "no config": (lambda m: (m / "config.json").unlink(), "huggingface/config.json is missing"),
    "no huggingface": (lambda m: m.rename(m.with_name("hf")), "nothing to convert"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_not_whole_is_said(tmp_path, name):
    damage, problem = DAMAGE[name]
    damage(make_checkpoint(tmp_path, 5))
    [checkpoint] = find_checkpoints(tmp_path)
    assert problem in checkpoint.problem and bool(checkpoint.problem) == checkpoint.damaged == bool(problem)
    assert not checkpoint.convert


def test_a_step_that_verl_has_not_marked_as_finished_is_still_being_written(tmp_path):
    make_checkpoint(tmp_path, 5)
    make_checkpoint(tmp_path, 10, latest=5)
    (tmp_path / "global_step_x").mkdir()
    assert [(c.step, c.problem) for c in find_checkpoints(tmp_path)] == [(5, ""), (10, "still being written")]


def test_without_verls_tracker_nothing_is_taken(tmp_path):
    make_checkpoint(tmp_path, 5)
    (tmp_path / "latest_checkpointed_iteration.txt").unlink()
    [checkpoint] = find_checkpoints(tmp_path)
    assert "latest_checkpointed_iteration.txt" in checkpoint.problem and not checkpoint.damaged
