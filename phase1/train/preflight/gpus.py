"""Preflight: the GPUs, what will run on them, and whether its memory and time suffice."""

from __future__ import annotations

import importlib.util
import os

from phase1.files import BadInput
from phase1.machine import chosen_gpus, count_gpus
from phase1.train.estimate import ModelShape, expected_mfu, hours, memory, peak_tflops
from phase1.train.job import Job, activation_budget
from phase1.train.preflight.outcome import Outcome, passes, warns
from phase1.train.schedule import row_lengths, schedule_of
from phase1.train.verl_version import ATTENTION, FLASH_ATTENTION, PACKED_ATTENTION

USUAL_GPU = "H100"  # for the time, where nvidia-smi lists none


def devices(job: Job) -> Outcome:
    """Whether there is a GPU for each process."""
    if job.on_cpu:
        return passes(f"CPU, {os.cpu_count()} cores, gloo")
    gpus = count_gpus()
    if gpus < job.nproc:
        fewer = f"start run_sft.sh {gpus}, or set DEVICE=cpu" if gpus else "set DEVICE=cpu"
        raise BadInput(f"{gpus} GPUs for {job.nproc} processes; {fewer}")
    return passes(f"{gpus} GPUs for {job.nproc} processes")


def kernels(job: Job) -> Outcome:
    """Which attention and which loss will run.

    Without attention of variable length the engine trainer is slower than the padded one.
    """
    flash = importlib.util.find_spec("flash_attn") is not None
    return _fsdp_kernels(job, flash) if job.trainer == "fsdp" else _engine_kernels(job, flash)


def _fsdp_kernels(job: Job, flash: bool) -> Outcome:
    loss = "loss: cross-entropy over all logits"
    if job.on_cpu:
        return passes(f"attention: torch's sdpa; {loss}")
    if flash:
        return passes(f"attention: flash-attn; {loss}")
    return warns(f"attention: torch's sdpa on padded rows, flash-attn is not installed; {loss}")


def _engine_kernels(job: Job, flash: bool) -> Outcome:
    attention = job.text(ATTENTION)
    loss = "loss: fused, answer tokens only, no logits"
    if attention == FLASH_ATTENTION:
        if not flash:
            raise BadInput(
                f"{ATTENTION}={attention}, but flash-attn is not installed; pip install flash-attn "
                "--no-build-isolation, or leave the override out"
            )
        said = "attention: flash-attn's variable-length kernels"
    elif attention == PACKED_ATTENTION:
        said = "attention: torch's own variable-length FlashAttention-2"
        if job.on_cpu:
            said = "attention: torch's sdpa row by row"
    else:
        dense = f"attention: {attention} with a dense mask over the whole pack"
        return warns(f"{dense}; leave the override of {ATTENTION} out; {loss}")
    if not job.on_cpu and importlib.util.find_spec("triton") is None:
        return warns(f"{said}; {loss}, in torch's operations since triton is not installed")
    return passes(f"{said}; {loss}")


def tokens_at_once(job: Job) -> int:
    """Tokens of one forward pass on one GPU, padding included."""
    if job.trainer == "engine":
        return job.number("data.max_token_len_per_gpu")
    return job.number("data.micro_batch_size_per_gpu") * job.number("data.max_length")


def model_shape(job: Job) -> ModelShape | None:
    """The model's shape, None where its config.json is not here or not that of a Llama-like decoder."""
    folder = job.model_folder
    return ModelShape.of(folder) if folder else None


def shards(job: Job) -> int:
    """Processes that share one copy of weights and moments: all, unless an override keeps a copy on each node."""
    size = job.config.get("engine.fsdp_size" if job.trainer == "engine" else "model.fsdp_config.fsdp_size")
    return min(size, job.world_size) if isinstance(size, int) and size > 0 else job.world_size


def gpu_memory(job: Job) -> Outcome:
    """The estimated peak and what is free. Refused only where it is clearly too much: it is an estimate."""
    if job.on_cpu:
        return passes("no GPU to fill")
    shape = model_shape(job)
    if shape is None:
        return warns("not estimated: the model's config.json is not here, or not that of a Llama-like decoder")
    parts = memory(
        shape,
        shards(job),
        job.trainer,
        tokens_at_once(job),
        checkpointing=bool(job.config["model.enable_gradient_checkpointing"]),
        reshard=bool(job.config.get("engine.reshard_after_forward", True)),
        compiled=job.compiled,
        kept=activation_budget(job.environ) if job.compiled else 0.0,
        master_bytes=job.master_bytes,
    )
    need = sum(parts.values())
    said = f"{need:,.1f} GiB a GPU estimated: " + ", ".join(f"{name} {size:,.1f}" for name, size in parts.items())
    gpus = chosen_gpus()[: job.nproc]
    if not gpus:
        return warns(f"{said}; nvidia-smi does not say how much is free")
    free = min(gpu.free_gib for gpu in gpus)
    if need > 1.1 * free:
        less = "set MICRO_BATCH_SIZE=1, MAX_LENGTH lower"
        if job.trainer == "engine":
            less = "set MAX_TOKENS_PER_GPU lower, GRADIENT_CHECKPOINTING=True"
        raise BadInput(f"{said}; {free:,.1f} GiB are free; {less}, or take more GPUs")
    said = f"{said}; {free:,.1f} GiB free"
    return warns(said) if need > 0.9 * free else passes(said)


def time_needed(job: Job) -> Outcome:
    """Expected hours, at the share of the GPUs' peak that expected_mfu gives such runs."""
    if job.on_cpu:
        return passes("not estimated on a CPU")
    shape, lengths = model_shape(job), row_lengths(job)
    if shape is None:
        return warns("not estimated: no config.json of the model, or not that of a Llama-like decoder")
    if lengths is None:
        return warns("not estimated: the lengths of the rows are not known (prepare_sft_data.py --model)")
    gpus = chosen_gpus()
    name = gpus[0].name if gpus else USUAL_GPU
    peak = peak_tflops(name)
    if peak is None:
        return warns(f"not estimated: the peak of {name} is not in the table of phase1/train/estimate.py")
    rows = schedule_of(job).total_steps * job.number("data.train_batch_size")
    length = lengths.mean if job.trainer == "engine" else job.number("data.max_length")
    mfu = expected_mfu(job.trainer, job.compiled, activation_budget(job.environ) if job.compiled else 0.0)
    spent = hours(shape, job.world_size, rows * length, row_tokens=length, mfu=mfu, tflops=peak)
    said = f"about {spent:,.1f} hours, {spent * job.world_size:,.1f} GPU hours, at {mfu:.0%} of {peak:,.0f} TFLOP/s"
    if job.trainer == "fsdp" and lengths.mean < length / 2:
        padding = 1 - lengths.mean / length
        return warns(f"{said}; {padding:.0%} of it on padding: TRAINER=engine (verl >= 0.7.1) computes none")
    return passes(said)
