"""Probes at the start: each guarantee of the sandbox is *tried*, by a program that does its worst.

A version number proves nothing: a masked /proc, a kernel without user namespaces and a root that limits do not bind
look the same from outside. All probes together take well under a second; what they saw goes into run.json.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from phase1.judge.interpreters import PROJECT
from phase1.judge.launcher import ENVIRONMENT, SHM_BYTES, TMP_BYTES
from phase1.judge.outcomes import PROCESSES, CompileFailed, Sandbox, SandboxFailed, Task
from phase1.owned import left_behind, own_name

KIND = "phase1-probe"
ESSENTIAL = ("file_system", "network", "processes", "tree_kill")  # without these nothing is judged unless --unsafe
HIDDEN = ("/etc/passwd", "/etc/shadow", "/root", "/home", "/var", "/sys", "/run", "/proc/1/root", "/proc/kcore")
MEANING = {
    "file_system": "the project and other host files are out of reach, nothing but /tmp and /dev/shm can be written",
    "network": "no TCP, no UDP, no abstract or file socket of the host",
    "processes": f"a program cannot hold more than {PROCESSES} processes, nor see or signal others",
    "tree_kill": "a detached daemon is dead before the next test",
    "memory_process": "a process cannot take more than its memory limit",
    "memory_all": "all processes of a test together cannot either",
    "disk": f"files are bounded ({(TMP_BYTES + SHM_BYTES) >> 20} MiB a sandbox)",
    "user_namespaces": "no new user namespace, so no way to more privilege over kernel interfaces",
    "supervisor": "the process that runs the tests cannot be traced, read or killed",
    "environment": "no variable of the judge's environment is visible",
}

_PROGRAMS = {
    "file_system": """
import os
for path in {hidden}:
    try:
        (os.listdir if os.path.isdir(path) else open)(path)
        print("read", path)
    except OSError:
        pass
for folder in "/", "/usr", "/usr/lib", "/dev", "/etc", "/proc", "/proc/sys/kernel", "/packages", {home!r}:
    try:
        path = folder + "/phase1-probe-{secret}"
        open(path, "w")
        print("wrote in", folder)
        os.unlink(path)
    except OSError:
        pass
for path in "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/oom_score_adj":
    try:
        os.close(os.open(path, os.O_WRONLY))
        print("opened for writing", path)
    except OSError:
        pass
""",
    "network": """
import os, socket
for address in ("127.0.0.1", {port}), {abstract!r}, "socket":
    try:
        if address == "socket":
            os.chdir({folder!r})  # its whole path may be too long for an address
        channel = socket.socket(socket.AF_INET if type(address) is tuple else socket.AF_UNIX)
        channel.settimeout(1)
        channel.connect(address)
        print("connected to", address)
    except OSError:
        pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9))
    print("sent a packet")
except OSError:
    pass
""",
    "processes": """
import os, time
children = 0
try:
    while children < {many}:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        children += 1
    print("made", children, "processes")
except OSError:
    pass
try:
    os.kill({pid}, 0)
    print("can signal the judge")
except OSError:
    pass
""",
    "tree_kill": """
import os, signal, time
if input() == "start":
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(30)
        os._exit(0)
    os.wait()
    print("daemon started")
else:
    for pid in range(2, 300):
        try:
            if pid != os.getpid():
                os.kill(pid, 0)
                print("alive:", pid)
        except OSError:
            pass
""",
    "memory_process": """
try:
    data = b"x" * (160 << 20)  # written to: room that is only reserved counts nowhere
    print("took 160 MiB under a limit of 128")
except MemoryError:
    pass
""",
    "memory_all": """
import os, time
for _ in range(7):
    if os.fork() == 0:
        data = bytearray(b"x") * (64 << 20)
        time.sleep(1)
        os._exit(0)
for _ in range(7):
    if os.wait()[1] != 0:
        break
else:
    print("seven processes took 448 MiB under a limit of 128")
""",
    "disk": """
import os
written, made = 0, []
try:
    for folder in "/tmp", "/dev/shm":
        try:
            while written <= {disk}:
                made.append(f"{{folder}}/phase1-probe-{secret}-{{len(made)}}")
                with open(made[-1], "wb", 0) as f:
                    for _ in range(8):
                        written += f.write(bytes(1 << 20))
        except OSError:
            pass
finally:
    for path in made:  # without isolation they would stay on this machine
        try:
            os.unlink(path)
        except OSError:
            pass
if written > {disk}:
    print("wrote", written, "bytes")
""",
    "user_namespaces": """
import ctypes, os
libc = ctypes.CDLL(None)
if libc.unshare(0x10000000) == 0:
    print("unshare made a user namespace")
""",
    "supervisor": """
import ctypes, os, signal
for path in "/proc/1/mem", "/proc/1/environ", "/proc/1/fd/3":
    try:
        os.close(os.open(path, os.O_RDONLY))
        print("opened", path)
    except OSError:
        pass
if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0:
    print("traces PID 1")
if os.getppid() == 1:
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP:
        os.kill(1, number)
""",
    "environment": """
import os
for name in sorted(set(os.environ) - set({variables})):
    print("sees", name)
""",
}


async def probe(sandbox: Sandbox, shown: list[str]) -> dict[str, str]:
    """Try every guarantee of MEANING.

    Args:
        shown: folders that programs are meant to see beside the system's.

    Returns:
        {name: ""} for a guarantee that holds, {name: what was seen} for one that does not.
    """
    secret = secrets.token_hex(8)
    for left in left_behind(Path(tempfile.gettempdir()), KIND):  # by a judge that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=own_name(KIND) + "-") as folder, socket.socket() as tcp:
        os.chmod(folder, 0o755)
        canary = Path(folder, "canary")
        canary.write_text(secret)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
            abstract.bind(f"\0phase1-{secret}")
            abstract.listen()
            opened = os.open(folder, os.O_PATH)
            named.bind(f"/proc/self/fd/{opened}/socket")
            os.close(opened)
            named.listen()
            os.chmod(f"{folder}/socket", 0o777)
            own = [str(path) for path in PROJECT.glob("*")] + [__file__]
            hidden = [
                p for p in (str(canary), *own, *HIDDEN) if not any(target.startswith(p + "/") for target in shown)
            ]
            known = {
                "secret": secret,
                "hidden": hidden,
                "home": str(Path(__file__).resolve().parent),
                "port": tcp.getsockname()[1],
                "abstract": f"\0phase1-{secret}",
                "folder": folder,
                "many": PROCESSES + 40,
                "pid": os.getpid(),
                "disk": TMP_BYTES + SHM_BYTES + (8 << 20),
                "variables": [*ENVIRONMENT, "PWD", "LC_CTYPE", "SHLVL", "_", "OLDPWD"],
            }
            seen = await asyncio.gather(
                *(_try(sandbox, name, program.format(**known)) for name, program in _PROGRAMS.items())
            )
    return dict(zip(_PROGRAMS, seen, strict=True))


async def _try(sandbox: Sandbox, name: str, program: str) -> str:
    inputs = ["start\n", "look\n"] if name == "tree_kill" else [""]
    memory = (128 if name.startswith("memory") else 512) << 20
    task = Task(program, kind="stdin", count=len(inputs), limit=10.0, memory=memory, inputs=inputs)
    try:
        runs = [run async for run in sandbox.run(task)]
    except (SandboxFailed, CompileFailed) as e:
        return f"the probe did not run: {e}"
    if name == "tree_kill" and runs[0].output != b"daemon started\n":
        return f"the probe's daemon did not start: {runs[0].detail}"
    last = runs[-1]
    if name.startswith("memory") and last.verdict == "runtime_error" and "memory limit" in last.detail:
        return ""
    return last.output.decode(errors="replace").strip() or (last.detail if last.verdict else "")
