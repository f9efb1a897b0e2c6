"""Checkpoints of the tests: running the conversion on them, comparing weights, and damaging shards."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.tensor  # for the DTensors of shards that are edited; the modules under test do without it
from safetensors.torch import load_file

import convert_fsdp_to_hf

State = dict[str, torch.Tensor]


def run(monkeypatch, *args) -> int:
    """convert_fsdp_to_hf.py in this process: its exit code."""
    monkeypatch.setattr(sys, "argv", ["convert_fsdp_to_hf.py", *map(str, args)])
    return convert_fsdp_to_hf.main()


def weights(folder: Path) -> State:
    """The tensors of all safetensors files of a folder."""
    return {k: v for p in sorted(folder.glob("*.safetensors")) for k, v in load_file(p).items()}


def same(a: State, b: State) -> bool:
    """Whether both hold the same tensors, bit for bit."""
    return set(a) == set(b) and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a
    )


def copy(saved: Path, tmp_path: Path, name: str = "w2_untied") -> Path:
    """A copy of a saved checkpoint, to be damaged."""
    return Path(shutil.copytree(saved / name / "global_step_5", tmp_path / "ckpt/global_step_5"))


def shard(step: Path, rank: int) -> Path:
    """The model shard of a rank."""
    return next(step.glob(f"model_world_size_*_rank_{rank}.pt"))


def edit(path: Path, change: Callable[[State], object]) -> None:
    """Load a shard as torch saved it, change the dict, save it again."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def swap(step: Path) -> None:
    """Give the shards of ranks 0 and 1 each the name of the other."""
    a, b = shard(step, 0), shard(step, 1)
    a.rename(step / "x")
    b.rename(a)
    (step / "x").rename(b)


def other_step(step: Path) -> None:
    """Make rank 1's training state one of step 4."""
    path = step / "extra_state_world_size_2_rank_1.pt"
    state = torch.load(path, weights_only=False)
    state["lr_scheduler"]["last_epoch"] = 4
    torch.save(state, path)
