"""What a checkpoint holds, to the last bit, so that two of them can be compared."""

import logging
from pathlib import Path

import torch

logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)  # warns of each tensor of a rank's part


def plain(value: object) -> object:
    """What torch saved, to the last bit; a rank's own part of a tensor."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "rng"}  # Python's and numpy's are seeded by no run
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, torch.Tensor):
        local = value.to_local() if hasattr(value, "to_local") else value
        return (local.dtype, local.shape, local.numpy().tobytes())
    return value


def contents(folder: Path) -> dict[str, object]:
    """Every file of a checkpoint: its bytes, or what torch saved in it."""
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {
        name: plain(torch.load(p, weights_only=False)) if p.suffix == ".pt" else p.read_bytes()
        for name, p in files.items()
    }
