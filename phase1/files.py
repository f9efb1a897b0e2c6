"""Files on disk: one-line errors, atomic writes, JSON without NaN, JSON Lines that survive a crash, hashes, the run
stamp.

Every stage of the toolkit talks to the next through files, so these few functions carry the promises that a reader of
those files relies on: a file is either whole or absent, JSON is plain JSON, and each result says how it was made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import gzip
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Self

# Versions that can move a number; what is not installed is left out of the stamp.
STAMPED_PACKAGES = (
    "verl",
    "torch",
    "transformers",
    "vllm",
    "tokenizers",
    "safetensors",
    "datasets",
    "pandas",
    "pyarrow",
    "numpy",
    "scipy",
    "statsmodels",
    "wandb",
    "datasketch",
)


class BadInput(Exception):
    """Input or environment the user can mend: the message is one line that names the file, the line and the fix."""


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit: its return value (None = 0), 2 with one line for BadInput, 130 for Ctrl-C."""
    try:
        sys.exit(main() or 0)
    except BadInput as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as e:  # a full disk, a missing permission: the errno text and the path are the whole story
        print(f"error: {e.filename or 'file system'}: {e.strerror or e}", file=sys.stderr)
        sys.exit(2)


# ---------------------------------------------------------------------------------------------------------- writing
@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is fsynced and renamed over `path`, else removed.

    Works for a file and for a directory (a directory already at `path` is swapped out and deleted afterwards).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temp_dir = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    temp = temp_dir / path.name
    try:
        yield temp
        if temp.is_dir():
            if path.exists():
                os.rename(path, temp_dir / "replaced")
        else:
            with open(temp, "rb") as f:
                os.fsync(f.fileno())
        os.replace(temp, path)
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; lone surrogates are written as their escapes."""
    with replacing(path) as temp:
        temp.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN and infinities become null (contract 7)."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity replaced by None, and numpy scalars and paths by plain types."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
        if os.write(self._fd, line) != len(line):  # the disk filled up in the middle of the line
            os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

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


@contextlib.contextmanager
def only_one(lock_path: str | Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold the kernel's lock on `lock_path`, which dies with its holder; yields False where another process still has
    it after `wait` seconds. The file says who holds it."""
    Path(lock_path).parent.mkdir(parents=True, exist_ok=True)
    with open(lock_path, "a+") as f:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.2)
        f.truncate(0)
        with contextlib.suppress(OSError):  # a full disk: the kernel holds the lock, the text only says who has it
            os.write(f.fileno(), f"process {os.getpid()} since {now()}".encode())
        try:
            yield True
        finally:
            f.truncate(0)


@contextlib.contextmanager
def only_writer(directory: str | Path, *leftovers: str) -> Iterator[None]:
    """Hold the kernel's lock on a directory, which dies with its holder, and delete what a killed run left there: the
    temporary folders whose names match `leftovers`. BadInput where another process holds the lock."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{directory}: another run writes there; wait for it, or give another directory") from None
        except OSError:  # a file system without such locks: nobody can tell whose the leftovers are
            leftovers = ()
        for path in (p for pattern in leftovers for p in Path(directory).glob(pattern)):
            shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        with contextlib.suppress(
            OSError
        ):  # closing alone would not do: a worker that is still ending has the descriptor too
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


@contextlib.contextmanager
def full_disk_told(fix: str) -> Iterator[None]:
    """BadInput with `fix` for a disk or quota that is full: Python's own message names no file where a write fails."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInput(
            f"{e.filename or 'the disk of --output_dir'}: {os.strerror(e.errno)}; {fix}; nothing was replaced"
        ) from None


# ---------------------------------------------------------------------------------------------------------- reading
def read_json(path: str | Path) -> Any:
    """The JSON value in `path`. BadInput when it is missing, torn or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        line = getattr(e, "lineno", 1)
        raise BadInput(f"{path}:{line}: not valid JSON ({e}); write it again with the step that makes it") from None


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, object) of a .jsonl or .jsonl.gz; blank lines are skipped, a bad line is BadInput."""
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as f:
            for number, line in enumerate(f, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
                    raise BadInput(f"{path}:{number}: not a JSON object ({e}); mend or delete this line") from None
                if not isinstance(value, dict):
                    raise BadInput(f"{path}:{number}: a JSON {type(value).__name__}, expected an object")
                yield number, value
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise BadInput(f"{path}: not a whole gzip file ({e}); copy it again") from None


@contextlib.contextmanager
def whole_parquet(path: str | Path) -> Iterator[None]:
    """BadInput for a Parquet file that is missing, torn, or damaged in its pages (pyarrow's OSError without an
    errno)."""
    import pyarrow

    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pyarrow.ArrowException, OSError) as e:
        if getattr(e, "errno", None):
            raise
        raise BadInput(f"{path}: not a whole Parquet file ({str(e).splitlines()[0]}); copy it again") from None


# ----------------------------------------------------------------------------------------------------------- hashes
def sha256_text(text: str) -> str:
    """Hex SHA-256 of the UTF-8 text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=False))


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fingerprint(directory: str | Path) -> str:
    """Hex SHA-256 that tells one model directory from another in milliseconds, whatever its size.

    Over names and sizes of its files, all of every file under 4 MiB, and 64 slices of 4 KiB of each larger one: two
    checkpoints of one run differ in nearly every weight, so slices tell them apart; a single flipped bit may not show.
    """
    digest = hashlib.sha256()
    files = sorted(p for p in Path(directory).rglob("*") if p.is_file() and not p.name.startswith("."))
    for p in files:
        size = p.stat().st_size
        digest.update(f"{p.relative_to(directory)}\0{size}\0".encode())
        with open(p, "rb") as f:
            if size <= 4 << 20:
                digest.update(f.read())
                continue
            for i in range(64):
                f.seek(i * (size - 4096) // 63)
                digest.update(f.read(4096))
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------- run stamp
def now() -> str:
    """The present time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Installed versions of the packages that can move a number, without importing them."""
    found = {"python": platform.python_version()}
    for name in STAMPED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_revision() -> str | None:
    """The toolkit's commit, with `-dirty` when tracked files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def run_stamp(args: dict[str, Any]) -> dict[str, Any]:
    """How a result file was made: command, arguments, versions, git revision, host and time."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a passwd entry
        user = str(os.getuid())
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "arguments": finite(args),
        "versions": versions(),
        "git_revision": git_revision(),
        "host": socket.gethostname(),
        "user": user,
        "platform": platform.platform(),
        "time": now(),
    }
