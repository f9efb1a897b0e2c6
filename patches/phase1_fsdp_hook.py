"""What verl 0.7.0's SFT trainer needs changed at run time, without a fork: CPU support, resuming at an epoch's end.

    PYTHONPATH=patches:. VERL_USE_EXTERNAL_MODULES=phase1_fsdp_hook \\
        python -m torch.distributed.run … -m verl.trainer.fsdp_sft_trainer …

verl imports the modules of VERL_USE_EXTERNAL_MODULES at the end of its own `__init__`, before
`verl/trainer/fsdp_sft_trainer.py` binds its names with `from … import …`: what is replaced here is what it then binds.
The trainer itself runs as `__main__`, so its class cannot be patched by importing it.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import Any

import torch
import torchdata.stateful_dataloader
import transformers
import verl.utils.device
from phase1_resume import COUNTED, ResumableDataLoader, die_with_the_launcher, stop_between_steps
from verl.utils.tracking import Tracking

from phase1.data.without_images import stand_in_for_qwen_vl_utils

ON_CPU = verl.utils.device.get_device_name() == "cpu"


def sdpa_without_flash_attention() -> None:
    """The trainer always asks for flash_attention_2; where flash-attn is missing, torch's own attention is taken."""
    if importlib.util.find_spec("flash_attn") is not None and not ON_CPU:
        return
    original = transformers.AutoModelForCausalLM.from_pretrained.__func__

    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attn_implementation") == "flash_attention_2":
            kwargs["attn_implementation"] = "sdpa"
        return original(cls, *args, **kwargs)

    transformers.AutoModelForCausalLM.from_pretrained = classmethod(from_pretrained)


def log_tokens() -> None:
    """`train/global_tokens` in each step's line, as the engine trainer has it: real tokens, padding left out."""
    original = Tracking.log

    def log(self: Tracking, data: dict[str, Any], step: int, *args: Any, **kwargs: Any) -> Any:
        if "train/loss" in data and "tokens" in COUNTED:
            data = data | {"train/global_tokens": COUNTED["tokens"]}
        return original(self, data, step, *args, **kwargs)

    Tracking.log = log


def collate_trimmed(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch cut to its longest row, fields of shape (rows, tokens).

    MultiTurnSFTDataset pads every row to max_length on the right, which neither attention nor loss looks at.
    """
    batch = torch.utils.data.default_collate(rows)
    longest = int(batch["attention_mask"].sum(dim=1).max())
    return {name: field[:, :longest] for name, field in batch.items()}


def cpu_process_group() -> None:
    """gloo instead of nccl, and the logged losses averaged over the ranks.

    The trainer reduces them for CUDA (ReduceOp.AVG, which gloo lacks) and for NPU (a sum, then a division), and on a
    CPU logs rank 0's share alone. Its NPU branch is what gloo needs; only those two `elif` read this name there.
    """
    verl.utils.device.get_nccl_backend = lambda: "gloo"
    import verl.utils.distributed as distributed

    distributed.get_nccl_backend = lambda: "gloo"
    original = distributed.initialize_global_process_group

    def initialize_global_process_group(*args: Any, **kwargs: Any) -> Any:
        trainer = sys.modules["__main__"]
        if hasattr(trainer, "FSDPSFTTrainer"):
            trainer.__dict__["is_npu_available"] = True
        return original(*args, **kwargs)

    distributed.initialize_global_process_group = initialize_global_process_group


def cpu_computes_in_fp32() -> None:
    """The trainer computes in bf16 (autocast and FSDP's parameters), which a CPU without AMX or AVX512-BF16 emulates.

    Two processes, 1.0M parameters, 32 rows x 256 tokens a step: 6.4 s in bf16 against 0.72 s in fp32 with AVX2 alone,
    0.56 s against 0.70 s with AMX. fp32 runs alike everywhere.
    """
    import verl.utils.fsdp_utils as fsdp_utils

    policy = fsdp_utils.MixedPrecisionPolicy

    def full_precision(param_dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        return policy(**kwargs)

    fsdp_utils.MixedPrecisionPolicy = full_precision

    class Autocast(torch.autocast):
        def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True, **kwargs: Any):
            super().__init__(device_type, dtype=dtype, enabled=enabled and device_type != "cpu", **kwargs)

    torch.autocast = Autocast


die_with_the_launcher()
stop_between_steps()
stand_in_for_qwen_vl_utils()
sdpa_without_flash_attention()
log_tokens()
torchdata.stateful_dataloader.StatefulDataLoader = functools.partial(
    ResumableDataLoader, on_cpu=ON_CPU, **({"collate_fn": collate_trimmed} if ON_CPU else {})
)
if ON_CPU:
    cpu_process_group()
    cpu_computes_in_fp32()
