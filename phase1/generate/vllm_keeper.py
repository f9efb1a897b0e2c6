"""The parent of one vLLM server: nothing of the server outlives the process that asked for it, however that one ends.

    python vllm_keeper.py GRACE_SECONDS command arg …        # started by phase1/generate/vllm_servers.py, never by hand

Its standard input is a pipe that its own parent holds open and never writes to. End of file there means that the parent
has closed it, or is gone by any way at all, SIGKILL and the kernel's memory killer included: the server gets SIGTERM
and GRACE_SECONDS, then everything that descends from it gets SIGKILL. The same sweep follows when the server ends by
itself, since a killed API server can leave its EngineCore, which holds the GPU's memory (vllm#55510). Exits with the
server's code.

vLLM's processes talk over socket files, which one that is killed leaves behind: they get a folder of their own, which
goes with the server, or, where this process was killed too, when the next server starts.

A process of its own, not a thread of ours, and not PR_SET_PDEATHSIG alone: that signal reaches one process, comes
already when the *thread* that started it ends, and gives a server no second, harder try. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # behind the standard library
from phase1.owned import left_behind, own_name

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SOCKETS = "VLLM_RPC_BASE_PATH"  # where vLLM puts its sockets, each named like a UUID
KIND = "phase1-vllm"
LONGEST = 107 - len("/") - 36  # bytes of that folder's path: the kernel takes a socket's path of 107


def main() -> int:
    grace, command = float(sys.argv[1]), sys.argv[2:]
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what the server's own children leave behind becomes ours, not init's
    with socket_folder() as folder:
        # The second line of defence: should this process be killed, the kernel tells the server.
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=os.environ | ({SOCKETS: folder} if folder else {}),
            start_new_session=True,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(stop(server, grace)))
        ended = os.pidfd_open(server.pid)
        ready, _, _ = select.select([sys.stdin.fileno(), ended], [], [])
        return sweep(server) if ended in ready else stop(server, grace)


@contextlib.contextmanager
def socket_folder() -> Iterator[str | None]:
    """A folder for the server's sockets, removed on leaving: below vLLM's own place for them, or below /tmp where that
    is too long or full. None where neither can be written; vLLM then says so."""
    bases = (os.environ.get(SOCKETS) or tempfile.gettempdir(), "/tmp")
    for old in {old for base in bases for old in left_behind(Path(base), KIND)}:
        shutil.rmtree(old, ignore_errors=True)
    folder, prefix = None, own_name(KIND) + "-"
    for base in bases:
        if len(os.fsencode(base)) + len("/") + len(prefix) + 8 <= LONGEST:  # mkdtemp adds eight characters
            with contextlib.suppress(OSError):
                folder = tempfile.mkdtemp(prefix=prefix, dir=base)
                break
    try:
        yield folder
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def stop(server: subprocess.Popen[bytes], grace: float) -> int:
    """SIGTERM and `grace` seconds to end in order, then the sweep."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(grace)
    return sweep(server)


def sweep(server: subprocess.Popen[bytes]) -> int:
    """SIGKILL for the server's group and for every process that descends from us; returns the server's exit code."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + 10
    while (left := children()) and time.monotonic() < deadline:  # orphans arrive here as their parents die
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def children() -> list[int]:
    """Process ids of this process's children, zombies included."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as f:
            return [int(word) for word in f.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
