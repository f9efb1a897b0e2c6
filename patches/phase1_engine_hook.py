"""What verl's engine SFT trainer (verl >= 0.7.1, verl/trainer/sft_trainer.py) needs for TRAINER=engine, without a fork.

    PYTHONPATH=patches VERL_USE_EXTERNAL_MODULES=phase1_engine_hook \\
        python -m torch.distributed.run … -m verl.trainer.sft_trainer …

verl imports the modules of VERL_USE_EXTERNAL_MODULES at the end of its own `__init__` (documented there as the place to
register engines and platforms). This one registers
- `PackedEngine` in verl's EngineRegistry: verl's own FSDP engine, whose forward step packs rows without padding,
  attends by one kernel call a layer, computes the loss of answer tokens only and without their logits, and never waits
  for the GPU within a step. The loss is verl's own `sft_loss`, to the last term.
- a CPU platform, so that all of it runs where there is no GPU.
It deals the rows of a batch out evenly (phase1_balance), and it mends resuming at an epoch boundary (verl#7401), as
phase1_fsdp_hook does for verl 0.7.0.

Read from the environment, set by phase1/train/job.py: PHASE1_COMPILE (1: torch.compile each decoder layer),
PHASE1_ACTIVATION_MEMORY_BUDGET (share of a compiled layer's activations to keep), PHASE1_BALANCE (1: even shares),
PHASE1_SCHEDULE_STEPS (steps over which the learning rate falls; verl takes total_training_steps),
PHASE1_BACKGROUND_SAVE (folder in memory that checkpoints go through; unset: they are written directly). Set by tests
and benchmarks alone: PHASE1_FUSED_LOSS=0 computes the loss from all logits, as a reference.
"""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config
import torch.utils.serialization
import torchdata.stateful_dataloader
from phase1_balance import BalancedSampler
from phase1_kernels import sum_log_probs, transformers_attention
from phase1_resume import ResumableDataLoader, die_with_the_launcher, stop_between_steps
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from verl.plugin.platform import platform_manager
from verl.plugin.platform.platform_base import PlatformBase

ON_CPU = not torch.cuda.is_available()
FUSED_LOSS = os.environ.get("PHASE1_FUSED_LOSS", "1") == "1"
COMPILE = os.environ.get("PHASE1_COMPILE", "0") == "1"
BUDGET = float(os.environ.get("PHASE1_ACTIVATION_MEMORY_BUDGET", "0"))
BALANCE = os.environ.get("PHASE1_BALANCE", "1") == "1"
STAGING = os.environ.get("PHASE1_BACKGROUND_SAVE", "")


# What verl calls of torch.cuda, and what a CPU has in its place.
OF_TORCH_CPU = ("current_device", "device_count", "is_available", "set_device", "synchronize")
ALWAYS_ZERO = ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved")
WITHOUT_EFFECT = (
    "empty_cache",
    "ipc_collect",
    "reset_peak_memory_stats",
    "manual_seed",
    "manual_seed_all",
    "set_rng_state",
)


class CpuPlatform(PlatformBase):
    """Processes without a GPU: gloo, and no memory or profiler of a device to ask about."""

    device_name = vendor_name = "cpu"
    device_module = types.SimpleNamespace(
        **{name: getattr(torch.cpu, name) for name in OF_TORCH_CPU},
        **dict.fromkeys(ALWAYS_ZERO, lambda *args: 0),
        **dict.fromkeys(WITHOUT_EFFECT, lambda *args: None),
        mem_get_info=lambda *args: (0, 0),
        get_device_name=lambda *args: "CPU",
    )

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "CPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def is_ipc_supported(self) -> bool:
        return False

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def nothing(self, *args: Any) -> None:
        """Nothing to do on a CPU."""

    set_device = synchronize = manual_seed = manual_seed_all = set_allocator_settings = nothing
    empty_cache = profiler_start = profiler_stop = cudart = nothing


def gloo_alone() -> None:
    """One process group of gloo (verl names it twice, as the CPU's and as the device's), and the mean that gloo
    lacks."""
    init, reduce = torch.distributed.init_process_group, torch.distributed.all_reduce

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return init("gloo", *args, **kwargs)

    def all_reduce(
        tensor: torch.Tensor, op: Any = torch.distributed.ReduceOp.SUM, group: Any = None, async_op: bool = False
    ) -> Any:
        if op != torch.distributed.ReduceOp.AVG:
            return reduce(tensor, op, group, async_op)
        reduce(tensor, torch.distributed.ReduceOp.SUM, group)
        tensor /= torch.distributed.get_world_size(group)
        return None

    torch.distributed.init_process_group, torch.distributed.all_reduce = init_process_group, all_reduce


if ON_CPU:
    platform_manager.set_platform(CpuPlatform())  # before any module of verl asks for the platform
    gloo_alone()

# These two bind names of the platform as they are imported.
from verl.workers.engine.base import EngineRegistry  # noqa: E402
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead  # noqa: E402


@EngineRegistry.register(
    "language_model", ["fsdp2"], device="cpu" if ON_CPU else "cuda", vendor="cpu" if ON_CPU else "nvidia"
)
class PackedEngine(FSDPEngineWithLMHead):
    """verl's FSDP2 engine for SFT; a key with a vendor comes before verl's own, which has none."""

    def _build_module(self) -> torch.nn.Module:
        module = super()._build_module()
        if FUSED_LOSS:
            head = module.get_output_embeddings()
            # Within the head's own forward, because FSDP gathers a parameter for the module that owns it: read from
            # outside, an untied head is a DTensor ("mixed torch.Tensor and DTensor").
            head.forward = functools.partial(head_log_probs, head)
        if COMPILE:
            if self.model_config.enable_gradient_checkpointing:
                # The compiler recomputes within the layer only what its backward pass needs, which the last product
                # is not (29% of a 7B layer's forward), and the expensive part of that least. A checkpoint around the
                # layer runs all of it again.
                module.gradient_checkpointing_disable()
                torch._functorch.config.activation_memory_budget = BUDGET
            # All layers share one function, of which by default the ninth variant runs uncompiled.
            torch._dynamo.config.recompile_limit = 64
            for layer in module.get_decoder().layers:
                # The layer's forward and not the layer: FSDP's hooks stay outside, parameter names stay as they are.
                layer.forward = torch.compile(layer.forward, dynamic=True)
        return module

    def _build_lr_scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Over all epochs, as in verl 0.7.0, whatever step the run is to stop at."""
        if steps := os.environ.get("PHASE1_SCHEDULE_STEPS"):
            self.optimizer_config.total_training_steps = int(steps)
        return super()._build_lr_scheduler(optimizer)

    def forward_step(
        self, micro_batch: Any, loss_function: Any, forward_only: bool
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Loss of one micro batch: -sum of log p over answer tokens / answer tokens of the whole batch x ranks
        (sft_loss).

        Everything is laid out on the CPU, where the batch still is; the copy to the GPU and all that follows are only
        queued, so the host prepares the next micro batch while the GPU computes this one.
        """
        device = self.module.device if ON_CPU else torch.device("cuda", torch.cuda.current_device())
        inputs, labels = pack(micro_batch, device)
        head = self.module.get_output_embeddings()
        head.labels = labels
        output = self.module(**inputs, use_cache=False).logits
        if not FUSED_LOSS:
            output = torch.log_softmax(output[0].float(), dim=-1).gather(1, labels[:, None]).sum()
        loss = -output / micro_batch["batch_num_tokens"] * micro_batch["dp_size"]
        return loss, {"loss": loss.detach(), "metrics": {}}


def head_log_probs(head: torch.nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """In the place of the head's logits: the sum of the log-probabilities of `head.labels`."""
    return sum_log_probs(hidden[0], head.weight, head.labels)


def pack(batch: Any, device: torch.device) -> tuple[dict[str, Any], torch.Tensor]:
    """The model's inputs for the rows of a batch laid end to end, and the answer tokens to predict.

    Only positions whose next token is part of an answer go through the head (transformers' `logits_to_keep`).
    """
    tokens, starts = batch["input_ids"].values(), batch["input_ids"].offsets()
    answer = batch["loss_mask"].values().bool()
    answer[starts[:-1]] = False  # a row's first token has no token before it that could predict it
    target = answer.nonzero()[:, 0]
    rows = starts.to(torch.int32)
    longest = int(rows.diff().max())

    def move(x: torch.Tensor) -> torch.Tensor:
        return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)

    rows = move(rows)
    inputs = {
        "input_ids": move(tokens)[None],
        "position_ids": move(batch["position_ids"].values())[None],
        "attention_mask": None,
        "logits_to_keep": move(target - 1),
        # transformers' own names for the layout of packed rows: flash_attention_2 takes them as well
        "cu_seq_lens_q": rows,
        "cu_seq_lens_k": rows,
        "max_length_q": -(-longest // 512) * 512,  # an upper bound will do; few different values recompile less
        "max_length_k": -(-longest // 512) * 512,
    }
    return inputs, move(tokens[target])


def data_loader(*, sampler: Any, batch_size: int, **kwargs: Any) -> ResumableDataLoader:
    """In the place of the trainer's loader class."""
    if BALANCE and hasattr(sampler.dataset, "messages"):  # a data.custom_cls may hold its rows in another way
        sampler = BalancedSampler(sampler, batch_size)
    return ResumableDataLoader(sampler=sampler, batch_size=batch_size, on_cpu=ON_CPU, **kwargs)


die_with_the_launcher()
stop_between_steps()
if STAGING:
    from phase1_background_save import save_in_background

    save_in_background(Path(STAGING))
torchdata.stateful_dataloader.StatefulDataLoader = data_loader
# torch.save copies a tensor from the GPU into fresh memory of the host, whose pages cost more than the copy: on an H200
# 1.6 GB/s, into memory that is kept for it 55 GB/s.
torch.utils.serialization.config.save.use_pinned_memory_for_d2h = True
ALL_ATTENTION_FUNCTIONS.register("phase1_packed", transformers_attention)
