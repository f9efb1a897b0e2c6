"""Preflight: the installed verl, room for the checkpoints, the port at which several nodes meet."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

from phase1.files import BadInput, read_json
from phase1.model.weight_files import count_parameters
from phase1.train.estimate import checkpoint_bytes
from phase1.train.job import ROOT, Job
from phase1.train.preflight.outcome import Outcome, passes, warns
from phase1.train.schedule import schedule_of
from phase1.train.verl_version import (
    REQUIREMENTS_OF_ENGINE,
    TRAINERS,
    VERL_OF_ENGINE,
    VERL_OF_FSDP,
    has_trainer,
    verl_folder,
)


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
    return passes(detail)


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
