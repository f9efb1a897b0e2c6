"""Files on disk: one-line errors, atomic writes, JSON without NaN, locks, hashes, the run stamp.

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
from typing import Any, NoReturn

from phase1.redact import redacted

# Packages whose versions can move a number; what is not installed is left out of the stamp.
STAMPED_PACKAGES = (
    *("verl", "torch", "transformers", "vllm", "tokenizers", "safetensors", "datasets", "pandas", "pyarrow", "numpy"),
    *("scipy", "statsmodels", "wandb", "datasketch"),
)
# What json raises for text that is no JSON; RecursionError for a value that is nested too deep.
NOT_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)
WHOLE_FILE, SLICE, SLICES = 4 << 20, 4096, 64  # bytes, bytes, count: what `fingerprint` reads of a file


class BadInput(Exception):
    """Input or environment the user can mend: the message is one line that names the file, the line and the fix."""


_ELSEWHERE = "name a folder that you may write to"
CURES = {
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.ENOSPC: "make room, then start the same command again",
    errno.EDQUOT: "make room, then start the same command again",
}


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
        cure = f"; {CURES[e.errno]}" if e.errno in CURES else ""
        print(f"error: {e.filename or 'file system'}: {e.strerror or e}{cure}", file=sys.stderr)
        sys.exit(2)


# ---------------------------------------------------------------------------------------------------------- writing
@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is synced to disk and renamed to `path`, else removed.

    Works for a file and for a directory (a directory already at `path` is swapped out and deleted afterwards).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path.parent):
        temp_dir = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        temp = temp_dir / path.name
        try:
            yield temp
            if temp.is_dir():
                if path.exists():
                    os.rename(path, temp_dir / "replaced")
            else:
                sync(temp)
            os.replace(temp, path)
        finally:
            shutil.rmtree(temp_dir, ignore_errors=True)


@contextlib.contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Have the error of a full disk or quota name the folder, where it names nothing, as a failed write does, or a
    temporary file."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT) and (not e.filename or ".tmp" in str(e.filename)):
            e.filename = str(folder)
        raise


def sync(path: Path) -> None:
    """Have the disk take what was written to a file."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; lone surrogates are written as their escapes."""
    with replacing(path) as temp:
        temp.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_together(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts as UTF-8 into the files of these names, all of them or none: only a kill can come between them."""
    with contextlib.ExitStack() as stack:
        for name, text in texts.items():
            temp = stack.enter_context(replacing(folder / name))
            temp.write_bytes(text.encode("utf-8", "backslashreplace"))
            sync(temp)


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as `json_text` has it, whole or not at all."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """`value` as indented JSON; NaN and infinities become null (contract 7)."""
    return json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: object) -> Any:
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


# ------------------------------------------------------------------------------------------------------------ locks
@contextlib.contextmanager
def only_one(lock_path: str | Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold the kernel's lock on `lock_path`, which ends with its holder; the file says who holds it.

    Yields False where another process still has it after `wait` seconds.

    Raises:
        BadInput: it is a link, soft or hard, behind which the file of somebody else would be emptied.
    """
    Path(lock_path).parent.mkdir(parents=True, exist_ok=True)
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise BadInput(f"{lock_path}: is a link, and a lock must be a file; remove it") from None
        raise
    with open(fd, "a+") as f:
        if os.fstat(fd).st_nlink > 1:
            raise BadInput(f"{lock_path}: is a second name of another file, and a lock must be its own; remove it")
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


# ---------------------------------------------------------------------------------------------------------- reading
def read_json(path: str | Path) -> Any:
    """The JSON value in `path`.

    Raises:
        BadInput: the file is missing, torn or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except NOT_JSON as e:
        line = getattr(e, "lineno", 1)
        raise BadInput(f"{path}:{line}: not valid JSON ({e}); write it again with the step that makes it") from None


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a .jsonl or .jsonl.gz; blank lines are skipped.

    Raises:
        BadInput: the file is missing or cut short, or a line holds no JSON object.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
            for number, line in enumerate(f, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except NOT_JSON as e:
                    raise BadInput(f"{path}:{number}: not a JSON object ({e}); mend or delete this line") from None
                if not isinstance(value, dict):
                    raise BadInput(f"{path}:{number}: a JSON {type(value).__name__}, expected an object")
                yield number, value
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise BadInput(f"{path}: not a whole gzip file ({e}); copy it again") from None


# ----------------------------------------------------------------------------------------------------------- hashes
def sha256_text(text: str) -> str:
    """Hex SHA-256 of the UTF-8 text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=False))


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fingerprint(directory: str | Path) -> str:
    """Hex SHA-256 that tells one model directory from another in milliseconds, whatever its size.

    Over names and sizes of its files, all of every file up to 4 MiB, and 64 slices of 4 KiB of each larger one: two
    checkpoints of one run differ in nearly every weight, so slices tell them apart; a single flipped bit may not show.
    """
    digest = hashlib.sha256()
    files = sorted(p for p in Path(directory).rglob("*") if p.is_file() and not p.name.startswith("."))
    for p in files:
        size = p.stat().st_size
        digest.update(f"{p.relative_to(directory)}\0{size}\0".encode())
        with open(p, "rb") as f:
            if size <= WHOLE_FILE:
                digest.update(f.read())
                continue
            for i in range(SLICES):
                f.seek(i * (size - SLICE) // (SLICES - 1))
                digest.update(f.read(SLICE))
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
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def run_stamp(args: Mapping[str, object]) -> dict[str, Any]:
    """How a result file was made: command, arguments (without secrets), versions, git revision, host and time."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a passwd entry
        user = str(os.getuid())
    return {
        "command": redacted([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "arguments": redacted(finite(dict(args))),
        "versions": versions(),
        "git_revision": git_revision(),
        "host": socket.gethostname(),
        "user": user,
        "platform": platform.platform(),
        "time": now(),
    }
