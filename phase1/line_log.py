"""Append-only files of JSON Lines in which every line is whole, whatever ended the process that wrote it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from phase1.files import finite, naming, now


class LineLog:
    """An append-only file of JSON Lines in which every line is whole, whatever ended the process that wrote it.

    A line is written by one call of the kernel. Opening the file cuts off the torn last line that a crash may have
    left; `whole_lines` leaves such a line out. Close it, or use it in a `with` statement.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._cut_torn_tail()

    def _cut_torn_tail(self) -> None:
        """Truncate the file behind its last newline, reading blocks of 64 KiB from its end."""
        size = end = os.fstat(self._fd).st_size
        while end > 0:
            start = max(0, end - (1 << 16))
            newline = os.pread(self._fd, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._fd, end)

    def append(self, value: Mapping[str, object]) -> None:
        """Append `value` as one line; NaN and infinities become null.

        The line is with the kernel when this returns, so only a power cut can lose it.

        Raises:
            OSError: the disk is full; the file then ends with the line before.
        """
        line = json.dumps(finite(dict(value)), ensure_ascii=True, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        with naming(self.path):
            if os.write(self._fd, line) != len(line):  # the disk filled up in the middle of the line
                os.ftruncate(self._fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def whole_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a LineLog with their newlines, without a torn last one; nothing where the file does not exist."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
        yield from (line for line in f if line.endswith(b"\n"))


def append_line(path: str | Path, value: Mapping[str, object]) -> None:
    """Append `value`, with the time, to a LineLog that grows over many runs."""
    with LineLog(path) as log:
        log.append({"time": now(), **value})
