"""What a checkpoint holds, to the last bit, so that two of them can be compared."""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file

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
    """Every file of a checkpoint: its bytes, or the tensors in it."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".pt":
            found[name] = plain(torch.load(path, weights_only=False))
        elif path.suffix == ".safetensors":  # the order of tensors in the file is the writer's own
            found[name] = plain(load_file(path))
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
