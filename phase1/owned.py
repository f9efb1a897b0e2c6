"""Names of folders that tell which process they belong to, so that the next start can remove what a killed one left.

    phase1-probe-4711-83745531-9f3c21ab-…
                 pid, when it was born in clock ticks since the machine's start, machine and PID namespace

A process is named so that no living one is taken for dead: the same number may belong to another process later, and at
the same time in another container or on another machine that sees the same folder. Standard library only: what runs
without installed packages imports it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path


def birth(pid: int) -> int | None:
    """When a process was born, in clock ticks since the machine's start; None where none of this number runs."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def own_name(kind: str) -> str:
    """`kind` and what tells this process; without a /proc, what nobody takes for left behind."""
    return f"{kind}-{os.getpid()}-{birth(os.getpid()) or 0}-{_place() or 'unknown'}"


def left_behind(folder: Path, kind: str) -> list[Path]:
    """The folders below `folder` whose name `own_name(kind)` begins, of processes that ended, and of this user."""
    place = _place()
    if place is None or birth(os.getpid()) is None:
        return []  # nothing tells who lives
    named = re.compile(rf"{re.escape(kind)}-(\d+)-(\d+)-{place}(-|$)")
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := named.match(entry.name)) and birth(int(match[1])) != int(match[2]):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        found.append(Path(entry.path))
    return found


def _place() -> str | None:
    """Eight digits for this start of this machine and this process's PID namespace; None where that is not known, or
    /proc is that of another namespace."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        words = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return hashlib.sha256(words.encode()).hexdigest()[:8]
