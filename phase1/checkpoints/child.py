"""Run a script of the toolkit's root as a child: its output goes into a log, and it ends when we do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from phase1.files import BadInput
from phase1.generate.kept_servers import inherited

ROOT = Path(__file__).resolve().parents[2]


class WrongFlagsError(BadInput):
    """The script does not know a flag that was passed on to it, or its value."""


async def run_child(script: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> str:
    """Run a script and wait for it; returns what went wrong, empty for exit code 0. Cancelled, it ends the script.

    Args:
        script: its name in the toolkit's root.
        arguments: its command line.
        log: its output is appended here.
        environment: added to ours.

    Raises:
        WrongFlagsError: the script refuses its command line.
    """
    command = [sys.executable, str(ROOT / script), *arguments]
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "TERM", *command]
    with open(log, "ab") as f:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=f,
            stderr=f,
            env={**os.environ, **environment},
            pass_fds=inherited(environment),
        )
        try:
            code = await child.wait()
        except BaseException:  # Ctrl-C, SIGTERM: the child closes its servers and sandboxes first
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await child.wait()
            raise
    if code == 0:
        return ""
    last = _last_words(log)
    if code == 2 and last.startswith(f"error: {script}: "):  # the command line's own form (phase1/arguments.py)
        raise WrongFlagsError(
            f"{last.removeprefix('error: ')[:500]}; correct the flags that run_eval_checkpoints.sh passes on"
        )
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{script}: {how}, {last[:500]}"


def _last_words(log: Path) -> str:
    """The last line that begins with `error: `, else the last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [""]
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else lines[-1]
