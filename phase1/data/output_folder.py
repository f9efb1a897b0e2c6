"""The output folder of a preparation: one writer at a time, nothing left of a killed one, a full disk in one line."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from phase1.files import BadInput


@contextlib.contextmanager
def only_writer(directory: str | Path, *leftovers: str) -> Iterator[None]:
    """Hold the kernel's lock on a directory, which ends with its holder, and delete what a killed run left there.

    Args:
        directory: that is written to.
        leftovers: patterns of the temporary folders in it.

    Raises:
        BadInput: another process holds the lock.
    """
    fd = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{directory}: another run writes there; wait for it, or give another directory") from None
        except OSError:  # a file system without such locks: nobody can tell whose the leftovers are
            leftovers = ()
        for pattern in leftovers:
            for path in Path(directory).glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # closing alone would not do: a worker that is ending shares the descriptor
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


@contextlib.contextmanager
def made_folder(directory: Path) -> Iterator[None]:
    """Make a folder, and where its work fails remove what was made of it and below it and is still empty."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    before = set(directory.glob("*"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in (*(set(directory.glob("*")) - before), *new):
            with contextlib.suppress(OSError):  # not empty, or a file: it stays
                path.rmdir()
        raise


@contextlib.contextmanager
def full_disk_told(fix: str) -> Iterator[None]:
    """Turn the error of a full disk or quota, which names no file where a write fails, into one line with `fix`.

    Raises:
        BadInput: the disk or the quota was full.
    """
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = e.filename or "the disk of --output_dir"
        raise BadInput(f"{where}: {os.strerror(e.errno)}; {fix}; nothing was replaced") from None
