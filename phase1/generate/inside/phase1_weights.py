"""Inside vLLM's worker processes: take the weights of another checkpoint, and tell whether they are what answers.

vLLM mixes this class into its worker (--worker-extension-cls), and `/collective_rpc` calls it. It imports what vLLM's
environment has, and nothing of ours.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import Any

# What vLLM keeps in one parameter, and the model's files in several, in this order.
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
TIED = {"lm_head.weight": "model.embed_tokens.weight"}  # read from the second where the files have no first
COLUMNS = 512  # of a packed matrix that are looked at together


class Weights:
    """The methods that the worker gets."""

    def take_weights(self) -> None:
        """Read the model's files again, into the parameters that are there."""
        self.reload_weights()  # type: ignore[attr-defined]
        for module in self._modules().values():
            # vLLM 0.32 on the CPU multiplies by packed copies, and makes a new one of what it has read: a tied output
            # layer reads nothing, and would keep the old weights.
            if hasattr(module, "cpu_linear") and module.weight.numel():
                module.quant_method.process_weights_after_loading(module)

    def differing_weights(self, path: str) -> dict[str, Any]:
        """Compare every weight that answers, element by element, with the safetensors files in `path`.

        Returns:
            `differ`: names of those that hold something else; `compared`: how many were compared; `unknown`: names of
            those that could not be, since vLLM keeps them in a form of its own.
        """
        from safetensors import safe_open

        files: dict[str, Any] = {}
        for file in sorted(glob.glob(os.path.join(glob.escape(path), "*.safetensors"))):
            opened = safe_open(file, framework="pt")
            files |= dict.fromkeys(opened.keys(), opened)
        ranks = self.parallel_config.tensor_parallel_size  # type: ignore[attr-defined]
        compared, differ, unknown = 0, [], []
        for name, held in self._weights():
            same = equals_files(name, held, files, self.rank % ranks, ranks)  # type: ignore[attr-defined]
            compared += same is not None
            if same is None:
                unknown.append(name)
            elif not same:
                differ.append(name)
        return {"compared": compared, "differ": differ, "unknown": unknown}

    def _modules(self) -> dict[str, Any]:
        return dict(self.model_runner.get_model().named_modules())  # type: ignore[attr-defined]

    def _weights(self) -> Iterator[tuple[str, Any]]:
        """Every weight by name; a packed one as the matrix by which it multiplies."""
        for name, parameter in self.model_runner.get_model().named_parameters():  # type: ignore[attr-defined]
            if parameter.numel():
                yield name, parameter.data
        for name, module in self._modules().items():
            if hasattr(module, "cpu_linear"):
                yield f"{name}.weight", unpacked(module)


def unpacked(module: Any) -> Any:
    """The matrix by which a CPU layer multiplies: its products with unit vectors, which are exact."""
    import torch

    weight = module.weight
    size = weight.shape[1] if weight.numel() else module.input_size_per_partition
    unit = torch.eye(size, dtype=weight.dtype)
    parts = [module.cpu_linear(unit[n : n + COLUMNS], weight, None) for n in range(0, size, COLUMNS)]
    return torch.cat(parts).t()


def equals_files(name: str, held: Any, files: dict[str, Any], rank: int, ranks: int) -> bool | None:
    """Whether a weight equals what the files say, in its dtype; None where the two cannot be laid side by side."""
    import torch

    sources = sources_of(name)
    if name not in files and TIED.get(name) in files:
        sources = [TIED[name]]
    start, same = 0, True
    for source in sources:
        wanted = None
        if source in files:
            wanted = shard(files[source].get_tensor(source), held, rank, ranks, alone=len(sources) == 1)
        if wanted is None or start + len(wanted) > len(held):
            return None
        mine = held[start : start + len(wanted)]
        same = same and torch.equal(mine, wanted.to(device=held.device, dtype=held.dtype))
        start += len(wanted)
    return None if len(sources) > 1 and start != len(held) else same


def sources_of(name: str) -> list[str]:
    """The tensors of the files that make up a parameter."""
    for fused, parts in FUSED.items():
        if f".{fused}." in name:
            return [name.replace(f".{fused}.", f".{part}.") for part in parts]
    return [name]


def shard(wanted: Any, held: Any, rank: int, ranks: int, alone: bool) -> Any:
    """The part of a file's tensor that this rank holds; None where its form is another one.

    Args:
        alone: the parameter is made of this tensor alone; with one rank it may be padded with rows.
    """
    if wanted.dim() != held.dim():
        return None
    if alone and wanted.shape == held.shape:  # whole on every rank
        return wanted
    if alone and wanted.dim() == 2 and wanted.shape == (held.shape[0], ranks * held.shape[1]):
        return wanted.chunk(ranks, 1)[rank]
    if wanted.shape[1:] != held.shape[1:]:
        return None
    if ranks == 1:
        return wanted if len(wanted) <= len(held) else None
    if len(wanted) % ranks or (alone and len(wanted) != ranks * len(held)):
        return None
    return wanted.chunk(ranks, 0)[rank]
