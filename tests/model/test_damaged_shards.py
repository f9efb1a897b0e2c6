"""Shards that are torn, mixed up or foreign: the file is named, and nothing is written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from phase1.files import BadInput
from tests.model.fsdp_shards import State, copy, edit, other_step, run, shard, swap, truncate


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch ran",)


def foreign_config(step: Path, **changes: object) -> None:
    path = step / "huggingface/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(path: Path, old: str, new: str) -> None:
    """The first `old` in every name becomes `new`."""

    def change(state: State) -> None:
        for name in list(state):
            state[name.replace(old, new, 1)] = state.pop(name)

    edit(path, change)


def flip_head(state: State) -> None:
    state["lm_head.weight"].to_local()[0, 0] += 1.0


# kind -> (damage to the folder, given the folder of all checkpoints too; a piece of the message)
DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "truncated": (lambda s, saved: truncate(shard(s, 1)), "model_world_size_2_rank_1.pt: not a whole shard"),
    "empty": (lambda s, saved: shard(s, 0).write_bytes(b""), "model_world_size_2_rank_0.pt: not a whole shard"),
    "garbage": (lambda s, saved: shard(s, 1).write_bytes(os.urandom(5000)), "rank_1.pt: not a whole shard"),
    "missing": (lambda s, saved: shard(s, 1).unlink(), "model_world_size_2_rank_1.pt: missing, with 1 of 2 shards"),
    "other world size": (
        lambda s, saved: shutil.copy(shard(saved / "w4_tied/global_step_5", 3), s),
        "world sizes 2 and 4",
    ),
    "rank too high": (
        lambda s, saved: shutil.copy(shard(s, 0), s / "model_world_size_2_rank_2.pt"),
        "rank 2 of a world of 2",
    ),
    "ranks swapped": (lambda s, saved: swap(s), "rank_0.pt: was written by rank 1"),
    "one rank twice": (lambda s, saved: shutil.copy(shard(s, 0), shard(s, 1)), "rank_1.pt: was written by rank 0"),
    "from another world size": (
        lambda s, saved: shutil.copy(shard(saved / "w4_untied/global_step_5", 1), shard(s, 1)),
        "model_world_size_2_rank_",
    ),
    "mixed steps": (lambda s, saved: other_step(s), "of step 5, others are of step 4"),
    "folder of another step": (
        lambda s, saved: (
            other_step(s)
            or shutil.copy(s / "extra_state_world_size_2_rank_1.pt", s / "extra_state_world_size_2_rank_0.pt")
        ),
        "of step 4 in a folder named global_step_5",
    ),
    "not a dict": (lambda s, saved: torch.save([1, 2], shard(s, 0)), "rank_0.pt: not a model's state dict"),
    "an optimizer's": (
        lambda s, saved: torch.save({"state": {}, "param_groups": []}, shard(s, 1)),
        "rank_1.pt: not a model's state dict",
    ),
    "lacks a tensor": (
        lambda s, saved: edit(shard(s, 1), lambda d: d.pop("model.norm.weight")),
        "rank_1.pt: lacks model.norm.weight",
    ),
    "tensor of another dtype": (
        lambda s, saved: edit(
            shard(s, 1), lambda d: d.update({"model.norm.weight": d["model.norm.weight"].bfloat16()})
        ),
        "rank_1.pt: model.norm.weight is torch.bfloat16",
    ),
    "plain tensor among DTensors": (
        lambda s, saved: edit(shard(s, 1), lambda d: d.update({"model.norm.weight": torch.ones(24)})),
        "rank_1.pt: model.norm.weight is (24,)",
    ),
    "lora": (
        lambda s, saved: [edit(shard(s, r), lambda d: d.update({"x.lora_A.weight": torch.ones(2)})) for r in (0, 1)],
        "holds LoRA adapters",
    ),
    "a layer that PEFT wrapped": (
        lambda s, saved: [rename(shard(s, r), "self_attn.q_proj", "self_attn.q_proj.base_layer") for r in (0, 1)],
        "merge it with PEFT",
    ),
    "compiled": (
        lambda s, saved: [rename(shard(s, r), "model.", "_orig_mod.model.") for r in (0, 1)],
        "a wrapper's prefix '_orig_mod.'",
    ),
    "another model's config": (
        lambda s, saved: foreign_config(s, vocab_size=2000),
        "says (2000, 48); its weights are another model's",
    ),
    "deeper config": (
        lambda s, saved: foreign_config(s, num_hidden_layers=3, layer_types=["full_attention"] * 3),
        "lacks model.layers.2.",
    ),
    "shallower config": (
        lambda s, saved: foreign_config(s, num_hidden_layers=1, layer_types=["full_attention"]),
        "holds model.layers.1.",
    ),
    "unknown architecture": (lambda s, saved: foreign_config(s, model_type="nonesuch"), "transformers cannot build"),
    "tied by name only": (
        lambda s, saved: foreign_config(s, tie_word_embeddings=True) or edit(shard(s, 0), flip_head),
        "were trained apart",
    ),
    "config no object": (
        lambda s, saved: (s / "huggingface/config.json").write_text("[]"),
        "config.json: a JSON list, not an object",
    ),
    "config without sizes": (
        lambda s, saved: foreign_config(s, vocab_size="many"),
        "config.json: transformers cannot build",
    ),
    "no config": (
        lambda s, saved: (s / "huggingface/config.json").unlink(),
        "config.json: no such file; give --base_model",
    ),
    "no huggingface": (
        lambda s, saved: shutil.rmtree(s / "huggingface"),
        "config.json: no such file; give --base_model",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_shards_are_named_and_nothing_is_written(saved, tmp_path, monkeypatch, kind):
    step = copy(saved, tmp_path)
    harm, message = DAMAGE[kind]
    harm(step, saved)
    with pytest.raises(BadInput) as e:
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "out/hf")
    assert message in str(e.value) and "\n" not in str(e.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_mixed_steps_are_seen_in_checkpoints_of_another_numpy_too(saved_latest, tmp_path, monkeypatch):
    step = copy(saved_latest, tmp_path)
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf") == 0
    other_step(step)
    with pytest.raises(BadInput, match="of step 5, others are of step 4"):
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf2")


def test_a_shard_that_would_run_code_is_refused_unrun(saved, tmp_path, monkeypatch):
    step = copy(saved, tmp_path)
    torch.save({"model.norm.weight": torch.ones(2), "x": RunsCode()}, shard(step, 1))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="rank_1.pt: holds posix.system beside tensors"):
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf")
    assert not (tmp_path / "ran").exists()
