"""Preflight: the installed verl, room for the checkpoints, the port at which several nodes meet."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

from phase1.files import BadInput, read_json
from phase1.machine import amount
from phase1.model.weight_files import count_parameters
from phase1.train.estimate import checkpoint_bytes
from phase1.train.job import ROOT, Job
from phase1.train.preflight.outcome import Outcome, passes, warns
from phase1.train.saving import MEMORY_DISK, in_memory, left_in_memory, no_room
from phase1.train.schedule import row_lengths, schedule_of
from phase1.train.verl_version import (
    LOADER_BYTES_A_TOKEN,
    LOADER_PREFETCH,
    LOADER_WORKERS,
    REQUIREMENTS_OF_ENGINE,
    TRAINERS,
    VERL_OF_ENGINE,
    VERL_OF_FSDP,
    has_trainer,
    removes_last_before_saving,
    verl_folder,
)

SHARED_MEMORY = "/dev/shm"


def trainer(job: Job) -> Outcome:
    """verl's version and our patch to it, by the applier itself; verl is not imported."""
    applier = ROOT / "patches" / "apply_verl_patch.py"
    done = subprocess.run([sys.executable, str(applier), "--check"], capture_output=True, text=True, env=job.environ)
    said = (done.stdout or done.stderr).strip().removeprefix("error: ")
    if done.returncode == 1:
        raise BadInput(f"{said.split(';')[0]}; patch it: {sys.executable} {applier}")
    if done.returncode:
        raise BadInput(said)
    verl, wanted = verl_folder(), TRAINERS[job.trainer]
    if not has_trainer(verl, job.trainer):
        other = "engine" if job.trainer == "fsdp" else "fsdp"
        raise BadInput(
            f"{verl}: has no {wanted.module}; pip install {VERL_OF_FSDP} --no-deps has it, or TRAINER={other}"
        )
    if not (verl / wanted.needs).is_dir():
        raise BadInput(
            f"{verl}: too old for TRAINER={job.trainer}, which is made for {VERL_OF_ENGINE}; pip install -r "
            f"{REQUIREMENTS_OF_ENGINE}, or TRAINER=fsdp"
        )
    return passes(said)


def disk(job: Job) -> Outcome:
    """Room for the checkpoints still to come: verl keeps max_ckpt_to_keep, and one more may be protected as the best.

    A checkpoint holds the weights, two moments of them, and the weights again in huggingface/, where verl 0.7.0 writes
    a tied head a second time, all in the master weights' dtype: 16 bytes a parameter in fp32, less where an override of
    save_contents leaves something out.
    """
    folder = job.model_folder
    parameters = count_parameters(folder) if folder else 0
    if not folder or not parameters:
        return warns(
            "the model's size is not known before it is downloaded; a 7B checkpoint takes 122 GB with fp32 master "
            "weights"
        )
    config = read_json(folder / "config.json")
    head = config.get("vocab_size", 0) * config.get("hidden_size", 0) if config.get("tie_word_embeddings") else 0
    size = checkpoint_bytes(parameters, job.master_bytes, separate_head=head, contents=job.save_contents)
    keep = job.config["trainer.max_ckpt_to_keep"]
    saves = schedule_of(job).saves
    before = removes_last_before_saving(verl_folder())
    at_once = 2 if keep == 1 and not before else keep  # the old one stays until the new one is whole
    wanted = min(saves, at_once + 1) if isinstance(at_once, int) and at_once > 0 else saves
    there = next(p for p in [job.ckpt_dir, *job.ckpt_dir.absolute().parents] if p.exists())
    present = sum(f.stat().st_size for f in job.ckpt_dir.glob("*global_step_*/**/*") if f.is_file())
    need, free = max(wanted * size - present, 0), shutil.disk_usage(there).free
    detail = f"{wanted} x {amount(size)} of checkpoints, {amount(free)} free in {there}"
    if need > free:
        fewer = "set MAX_CKPT_TO_KEEP lower or " if not isinstance(keep, int) or keep > 2 else "set "
        raise BadInput(f"{detail}: {amount(need - free)} short; {fewer}CKPT_DIR to a larger disk")
    if keep == 1 and before:
        return warns(f"{detail}; MAX_CKPT_TO_KEEP=1: a save that fails loses everything; set it to 2 or more")
    return passes(detail)


def host_memory(job: Job) -> Outcome:
    """Whether a checkpoint can be held in memory while it is copied to the disk; the trainer decides at each save."""
    if not job.background_save:
        return passes("BACKGROUND_SAVE=0: checkpoints are written directly, and training waits for them")
    folder = job.model_folder
    parameters = count_parameters(folder) if folder else 0
    if not parameters:
        return warns("the model's size is not known before it is downloaded, nor whether a checkpoint fits into memory")
    left = left_in_memory(job.ckpt_dir)
    if lacking := no_room(parameters, job.master_bytes, job.save_contents, left):
        return warns(f"{lacking}: training waits for each save, as with BACKGROUND_SAVE=0")
    size = checkpoint_bytes(parameters, job.master_bytes, contents=in_memory(job.save_contents))
    return passes(f"a checkpoint's {size / 1e9:,.2f} GB fit into {MEMORY_DISK}, training goes on while it is copied")


def shared_memory(job: Job) -> Outcome:
    """Whether /dev/shm holds what verl's loader workers put there; a container's 64 MB end in a bus error."""
    length = float(job.number("data.max_length"))
    if job.trainer == "engine":  # rows are not padded
        lengths = row_lengths(job)
        if lengths is None:
            return passes("not estimated: the lengths of the rows are not known (prepare_sft_data.py --model)")
        length = min(length, lengths.mean)
    workers = job.number("data.num_workers", least=0) if "data.num_workers" in job.config else LOADER_WORKERS
    rows = -(-job.number("data.train_batch_size") // job.data_ranks) * job.nproc
    need = workers * LOADER_PREFETCH * rows * length * LOADER_BYTES_A_TOKEN
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free + left_in_memory(job.ckpt_dir)
    except OSError as e:
        raise BadInput(f"{SHARED_MEMORY}: {e.strerror}; verl's loader workers need it") from None
    said = f"{need / 1e6:,.0f} MB for verl's loader workers, {free / 1e6:,.0f} MB free in {SHARED_MEMORY}"
    if need > free:
        raise BadInput(
            f"{said}; start the container with --shm-size={max(1, -(-int(2 * need) // 10**9))}g or --ipc=host"
        )
    return passes(said)


def port(job: Job) -> Outcome:
    """Several nodes meet at a fixed port of the first; one node alone takes a free one."""
    if job.nnodes == 1:
        return passes("one node, torchrun takes a free port")
    number = job.environ.get("MASTER_PORT", "")
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise BadInput(f"MASTER_PORT={number}: a port number is needed, the same on every node")
    if job.node_rank == 0:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", int(number)))
            except OSError as e:
                raise BadInput(
                    f"MASTER_PORT={number} cannot be used on this node ({e.strerror}); choose another, the "
                    "same on every node"
                ) from None
    address = f"{job.environ.get('MASTER_ADDR') or '?'}:{number}"
    return passes(f"node {job.node_rank} of {job.nnodes} meets the others at {address}")
