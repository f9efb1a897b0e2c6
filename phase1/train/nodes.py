"""Several nodes of one training run: whether all of them see the same checkpoint folder."""

from __future__ import annotations

import time
from pathlib import Path

from phase1.contract.state.tracker import step_folders
from phase1.files import BadInput, now, write_text
from phase1.train.job import Job
from phase1.train.resume import ResumePoint


def marker(job: Job, rank: int) -> Path:
    """The file by which a node shows that it sees the folder."""
    return job.ckpt_dir / f".start_node{rank}"


def lock_wait(job: Job) -> int:
    """LOCK_WAIT, the seconds to wait for others.

    Raises:
        BadInput: it is no whole number.
    """
    wait = job.environ.get("LOCK_WAIT") or "60"
    if not wait.isdecimal():
        raise BadInput(f"LOCK_WAIT={wait}: a whole number of seconds is needed")
    return int(wait)


def meet_nodes(job: Job) -> None:
    """Leave this node's marker in CKPT_DIR and wait for the others': node 0 for all, each other one for node 0's.

    In folders of their own each node would keep the shards of its own ranks alone, which no resume can put together.

    Raises:
        BadInput: a marker does not come within LOCK_WAIT seconds.
    """
    if job.nnodes == 1:
        return
    write_text(marker(job, job.node_rank), now())
    wanted = range(1, job.nnodes) if job.node_rank == 0 else range(1)
    wait = lock_wait(job)
    deadline = time.monotonic() + wait
    while missing := [rank for rank in wanted if not marker(job, rank).exists()]:
        if time.monotonic() > deadline:
            raise BadInput(
                f"{job.ckpt_dir}: node {missing[0]} left no mark here within {wait} s; set CKPT_DIR to a folder that "
                "all nodes share, and start them together (LOCK_WAIT=seconds waits longer)"
            )
        time.sleep(0.2)


def refuse_start_over(job: Job, resume: ResumePoint) -> None:
    """Refuse several nodes to begin anew where some of them saved steps before.

    Raises:
        BadInput: names the newest step, and how to begin anew on purpose.
    """
    steps = step_folders(job.ckpt_dir) if job.nnodes > 1 and job.config["trainer.resume_mode"] == "auto" else []
    if steps and resume.step == 0:
        raise BadInput(
            f"{job.ckpt_dir}: holds global_step_{max(steps)}, but no checkpoint with the shards of all nodes, and "
            "training would start over; bring the other nodes' shards together here, or set RESUME_MODE=disable "
            "to begin anew"
        )
