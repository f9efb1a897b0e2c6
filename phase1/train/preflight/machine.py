"""Preflight: what is installed, and what the machine has room and time for."""

from __future__ import annotations

import importlib.util
import netrc
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

from phase1.files import BadInput, read_json
from phase1.machine import Gpu, known_gpus
from phase1.train.estimate import ModelShape, checkpoint_bytes, expected_mfu, hours, memory, peak_tflops
from phase1.train.job import ROOT, TRAINERS, Job, activation_budget, verl_folder
from phase1.train.preflight.data import count_parameters, model_folder
from phase1.train.schedule import row_lengths, schedule_of

BF16 = ("bf16", "bfloat16")


def trainer(job: Job) -> tuple[str, str]:
    """verl's version and our patch, by the applier itself; verl is not imported."""
    applier = ROOT / "patches" / "apply_verl_patch.py"
    done = subprocess.run([sys.executable, str(applier), "--check"], capture_output=True, text=True, env=job.environ)
    said = (done.stdout or done.stderr).strip().removeprefix("error: ")
    if done.returncode:
        hint = f"; patch it: {sys.executable} {applier}" if done.returncode == 1 else ""
        raise BadInput(said.split(";")[0] + hint if hint else said)
    package, module = verl_folder(), TRAINERS[job.trainer][0]
    if not (package.parent / (module.replace(".", "/") + ".py")).is_file():
        raise BadInput(
            f"{package}: has no {module}; pip install verl==0.7.0 --no-deps has it, or "
            f"TRAINER={'engine' if job.trainer == 'fsdp' else 'fsdp'}"
        )
    if job.trainer == "engine" and not (package / "plugin" / "platform").is_dir():
        raise BadInput(
            f"{package}: too old for TRAINER=engine, which is made for verl 0.9.1; pip install -r "
            "requirements-latest.txt, or TRAINER=fsdp"
        )
    return "pass", said


# ------------------------------------------------------------------------------------------------------------- GPUs
def visible(gpus: tuple[Gpu, ...], chosen: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; all where it names them by something else than their
    number."""
    numbers = [x.strip() for x in (chosen or "").split(",")]
    return tuple(gpus[int(x)] for x in numbers if x.isdecimal() and int(x) < len(gpus)) or gpus


def devices(job: Job) -> tuple[str, str]:
    if job.on_cpu:
        return "pass", f"CPU, {os.cpu_count()} cores, gloo"
    # Where nvidia-smi is broken, the driver's own listing still counts them.
    gpus = len(known_gpus(os.environ.get("PATH"))) or len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if (chosen := job.environ.get("CUDA_VISIBLE_DEVICES")) is not None:  # set but empty hides every GPU
        gpus = min(gpus, len([x for x in chosen.split(",") if x.strip()]))
    if gpus < job.nproc:
        raise BadInput(f"{gpus} GPUs for {job.nproc} processes; start run_sft.sh {gpus or ''} or set DEVICE=cpu")
    return "pass", f"{gpus} GPUs for {job.nproc} processes"


def kernels(job: Job) -> tuple[str, str]:
    """Which attention and which loss will run. Without a variable-length attention and a loss that holds no logits the
    engine trainer is slower than the padded one."""
    flash = importlib.util.find_spec("flash_attn") is not None
    if job.trainer == "fsdp":
        if job.on_cpu:
            return "pass", "attention: torch's sdpa; loss: cross-entropy over all logits"
        if flash:
            return "pass", "attention: flash-attn; loss: cross-entropy over all logits"
        return (
            "warn",
            "attention: torch's sdpa on padded rows, flash-attn is not installed; loss: cross-entropy over all logits",
        )
    attention, fused = (
        str(job.config["model.override_config.attn_implementation"]),
        job.environ.get("FUSED_LOSS") == "1",
    )
    loss = "fused, answer tokens only, no logits" if fused else "log-softmax over the answer tokens' logits"
    if attention == "flash_attention_2" and not flash:
        raise BadInput(
            "ATTENTION=flash_attention_2, but flash-attn is not installed; pip install flash-attn "
            "--no-build-isolation, or leave ATTENTION empty"
        )
    said = {
        "flash_attention_2": "flash-attn's variable-length kernels",
        "phase1_packed": "torch's sdpa row by row" if job.on_cpu else "torch's own variable-length FlashAttention-2",
    }.get(attention, attention)
    if attention not in ("flash_attention_2", "phase1_packed"):
        return "warn", f"attention: {said} with a dense mask over the whole pack; leave ATTENTION empty; loss: {loss}"
    if not job.on_cpu and fused and importlib.util.find_spec("triton") is None:
        return "warn", f"attention: {said}; loss: {loss}, in torch's operations since triton is not installed"
    if not fused:
        return "warn", f"attention: {said}; loss: {loss}; FUSED_LOSS=1 needs neither their memory nor their time"
    return "pass", f"attention: {said}; loss: {loss}"


def tokens_at_once(job: Job) -> int:
    """Tokens of one forward pass on one GPU, padding included."""
    if job.trainer == "engine":
        return job.number("data.max_token_len_per_gpu")
    return job.number("data.micro_batch_size_per_gpu") * job.number("data.max_length")


def model_shape(job: Job) -> ModelShape | None:
    folder = model_folder(str(job.config["model.partial_pretrain"]))
    return ModelShape.of(folder) if folder else None


def shards(job: Job) -> int:
    """Processes that share one copy of weights and moments: all, unless an override keeps a copy on each node."""
    size = job.config.get("engine.fsdp_size" if job.trainer == "engine" else "model.fsdp_config.fsdp_size")
    return min(size, job.world_size) if type(size) is int and size > 0 else job.world_size


def gpu_memory(job: Job) -> tuple[str, str]:
    """The estimated peak against what is free. Refused only where it is clearly too much: it is an estimate."""
    if job.on_cpu:
        return "pass", "no GPU to fill"
    shape, gpus = (
        model_shape(job),
        visible(known_gpus(os.environ.get("PATH")), job.environ.get("CUDA_VISIBLE_DEVICES"))[: job.nproc],
    )
    if shape is None:
        return "warn", "not estimated: the model's config.json is not here, or not that of a Llama-like decoder"
    compiled = job.trainer == "engine" and job.environ.get("COMPILE") == "1"  # fsdp compiles nothing
    parts = memory(
        shape,
        shards(job),
        job.trainer,
        tokens_at_once(job),
        checkpointing=bool(job.config["model.enable_gradient_checkpointing"]),
        fused_loss=job.environ.get("FUSED_LOSS") == "1",
        reshard=bool(job.config.get("engine.reshard_after_forward", True)),
        compiled=compiled,
        kept=activation_budget(job.environ) if compiled else 0.0,
        master_bytes=2 if job.config["model.fsdp_config.model_dtype"] in BF16 else 4,
    )
    need = sum(parts.values())
    said = f"{need:,.1f} GiB a GPU estimated: " + ", ".join(f"{name} {size:,.1f}" for name, size in parts.items())
    if not gpus:
        return "warn", f"{said}; nvidia-smi does not say how much is free"
    free = min(g.free_gib for g in gpus)
    less = (
        "set MAX_TOKENS_PER_GPU lower, GRADIENT_CHECKPOINTING=True"
        if job.trainer == "engine"
        else "set MICRO_BATCH_SIZE=1, MAX_LENGTH lower"
    )
    if need > 1.1 * free:
        raise BadInput(f"{said}; {free:,.1f} GiB are free; {less}, or take more GPUs")
    return ("warn" if need > 0.9 * free else "pass"), f"{said}; {free:,.1f} GiB free"


def time_needed(job: Job) -> tuple[str, str]:
    """Expected hours, at the share of the GPUs' peak that expected_mfu gives such runs."""
    if job.on_cpu:
        return "pass", "not estimated on a CPU"
    shape, lengths = model_shape(job), row_lengths(job)
    if shape is None or lengths is None:
        return "warn", "not estimated: " + (
            "no config.json of the model"
            if shape is None
            else "the lengths of the rows are not known (prepare_sft_data.py --model)"
        )
    names = [g.name for g in known_gpus(os.environ.get("PATH"))] or ["H100"]
    peak = peak_tflops(names[0])
    if peak is None:
        return "warn", f"not estimated: the peak of {names[0]} is not in the table of phase1/train/estimate.py"
    rows = schedule_of(job).total_steps * job.number("data.train_batch_size")
    length = lengths.mean if job.trainer == "engine" else job.number("data.max_length")
    mfu = expected_mfu(job.trainer, job.environ.get("COMPILE") == "1")
    spent = hours(shape, job.world_size, rows * length, length, mfu, peak)
    said = f"about {spent:,.1f} hours, {spent * job.world_size:,.1f} GPU hours, at {mfu:.0%} of {peak:,.0f} TFLOP/s"
    if job.trainer == "fsdp" and lengths.mean < length / 2:
        return (
            "warn",
            f"{said}; {1 - lengths.mean / length:.0%} of it on padding: TRAINER=engine (verl >= 0.7.1) computes none",
        )
    return "pass", said


# ------------------------------------------------------------------------------------------------------ disk, network
def disk(job: Job) -> tuple[str, str]:
    """Room for the checkpoints still to come: verl keeps max_ckpt_to_keep, and one more may be protected as the best.

    A checkpoint holds the weights, two moments of them, and the weights again in huggingface/, where verl 0.7.0 writes
    a tied head a second time, all in the master dtype: 16 bytes a parameter with fp32 masters; less where an override
    of save_contents leaves some of it out.
    """
    folder = model_folder(str(job.config["model.partial_pretrain"]))
    parameters = count_parameters(folder) if folder else 0
    if not folder or not parameters:
        return (
            "warn",
            "the model's size is not known before it is downloaded; a 7B checkpoint takes 122 GB with fp32 masters",
        )
    config = read_json(folder / "config.json")
    head = config.get("vocab_size", 0) * config.get("hidden_size", 0) if config.get("tie_word_embeddings") else 0
    master_bytes = 2 if job.config["model.fsdp_config.model_dtype"] in BF16 else 4
    size = checkpoint_bytes(parameters, master_bytes, head, job.config["trainer.checkpoint.save_contents"])
    keep = job.config["trainer.max_ckpt_to_keep"]
    saves = schedule_of(job).saves
    wanted = min(saves, keep + 1) if isinstance(keep, int) and keep > 0 else saves
    there = next(p for p in [job.ckpt_dir, *job.ckpt_dir.absolute().parents] if p.exists())
    present = sum(f.stat().st_size for f in job.ckpt_dir.glob("global_step_*/**/*") if f.is_file())
    need, free = max(wanted * size - present, 0), shutil.disk_usage(there).free
    each = f"{size / 1e9:,.1f} GB" if size > 1e9 else f"{size / 1e6:,.1f} MB"
    detail = f"{wanted} x {each} of checkpoints, {free / 1e9:,.0f} GB free in {there}"
    if need > free:
        raise BadInput(
            f"{detail}: {(need - free) / 1e9:,.0f} GB short; set MAX_CKPT_TO_KEEP lower or CKPT_DIR to a larger disk"
        )
    return "pass", detail


def port(job: Job) -> tuple[str, str]:
    """Several nodes meet at a fixed port of the first; one node alone takes a free one."""
    if job.nnodes == 1:
        return "pass", "one node, torchrun takes a free port"
    number = job.environ.get("MASTER_PORT", "")
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise BadInput(f"MASTER_PORT={number}: a port number is needed, the same on every node")
    if job.environ.get("NODE_RANK") == "0":
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", int(number)))
            except OSError as e:
                raise BadInput(
                    f"MASTER_PORT={number} cannot be taken on this node ({e.strerror}); choose another, the "
                    "same on every node"
                ) from None
    return (
        "pass",
        (
            f"node {job.environ.get('NODE_RANK')} of {job.nnodes} meets at "
            f"{job.environ.get('MASTER_ADDR') or '?'}:{number}"
        ),
    )


def wandb(job: Job) -> tuple[str, str]:
    if "wandb" not in (job.config["trainer.logger"] or []):
        return "pass", "not asked for"
    if importlib.util.find_spec("wandb") is None:
        raise BadInput("LOGGER names wandb, which is not installed; pip install wandb, or set LOGGER=console")
    if wandb_offline(job):
        return (
            "warn",
            (
                "no login on this machine: logged offline, `wandb sync "
                f"{job.environ.get('WANDB_DIR', '.')}/wandb/offline-run-*` sends it later"
            ),
        )
    mode = job.environ.get("WANDB_MODE", "online")
    host = urlparse(job.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if mode == "online":
        try:
            socket.create_connection((host.hostname or "", host.port or 443), timeout=3).close()
        except OSError as e:
            return (
                "warn",
                (
                    f"{host.hostname} cannot be reached ({e}): training would wait for it; WANDB_MODE=offline logs "
                    "to a file"
                ),
            )
    return "pass", f"mode {mode}"


def wandb_offline(job: Job) -> bool:
    """Whether W&B must log offline: nobody is logged in, and it would stop to ask, in the middle of the start."""
    env = job.environ
    if "wandb" not in (job.config["trainer.logger"] or []) or env.get("WANDB_MODE") or env.get("WANDB_API_KEY"):
        return False
    host = urlparse(env.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in filter(None, (env.get("NETRC"), os.path.expanduser("~/.netrc"), os.path.expanduser("~/_netrc"))):
        try:
            if netrc.netrc(path).authenticators(host):
                return False
        except (OSError, netrc.NetrcParseError):
            continue
    return True
