"""Preflight: whether Weights & Biases can be logged to."""

from __future__ import annotations

import importlib.util
import netrc
import os
import socket
from urllib.parse import ParseResult, urlparse

from phase1.files import BadInput
from phase1.train.job import Job
from phase1.train.preflight.outcome import Outcome, passes, warns


def wandb(job: Job) -> Outcome:
    """Whether W&B is installed, and whether somebody is logged in and the host answers."""
    if "wandb" not in job.loggers:
        return passes("not asked for")
    if importlib.util.find_spec("wandb") is None:
        raise BadInput("LOGGER names wandb, which is not installed; pip install wandb, or set LOGGER=console")
    if wandb_offline(job):
        folder = f"{job.environ.get('WANDB_DIR', '.')}/wandb/offline-run-*"
        return warns(f"no login on this machine: logged offline, `wandb sync {folder}` sends it later")
    mode, host = job.environ.get("WANDB_MODE", "online"), _host(job)
    if mode == "online":
        try:
            socket.create_connection((host.hostname or "", host.port or 443), timeout=3).close()
        except OSError as e:
            return warns(
                f"{host.hostname} cannot be reached ({e}): training would wait for it; WANDB_MODE=offline logs "
                "to a file"
            )
    return passes(f"mode {mode}")


def wandb_offline(job: Job) -> bool:
    """Whether W&B must log offline: nobody is logged in, and it would stop to ask, in the middle of the start."""
    env = job.environ
    if "wandb" not in job.loggers or env.get("WANDB_MODE") or env.get("WANDB_API_KEY"):
        return False
    for path in filter(None, (env.get("NETRC"), os.path.expanduser("~/.netrc"), os.path.expanduser("~/_netrc"))):
        try:
            if netrc.netrc(path).authenticators(_host(job).hostname or ""):
                return False
        except (OSError, netrc.NetrcParseError):
            continue
    return True


def _host(job: Job) -> ParseResult:
    return urlparse(job.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
