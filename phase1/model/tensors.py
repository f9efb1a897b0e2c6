"""A model's tensors wherever they lie, and safetensors files: read, written as a stream, compared bit for bit.

Writing needs one read and one write a byte and holds WRITERS chunks: a file's size and the place of every tensor in it
are known beforehand, so threads cast chunk by chunk straight into the preallocated file.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from phase1.files import BadInput, read_json

CHUNK = (
    4 << 20
)  # bytes of a tensor in memory at once, before the cast; small enough to be still in the CPU's cache when written
WRITERS = 2  # threads: one reads and casts while the kernel takes the other's chunk
SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h: start writing these pages to disk, do not wait
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Source:
    """One tensor of a model, wherever it lies. `chunks()` yields its elements in row-major order as flat tensors."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    where: str  # the file, for messages
    chunks: Callable[[], Iterator[torch.Tensor]]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


# ------------------------------------------------------------------------------------------------- safetensors, read
def safetensors_files(directory: Path) -> list[Path]:
    """The weight files of an HF directory: those its index names, else model.safetensors; empty when there are none.

    BadInput when the index is not one, or names a file that is not there.
    """
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return [directory / "model.safetensors"] if (directory / "model.safetensors").exists() else []
    try:
        files = [directory / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{index}: names no file for each tensor; copy or convert the model again") from None
    for path in files:
        if not path.exists():
            raise BadInput(f"{path}: missing, though {index.name} names it; copy it again")
    return files


def read_header(path: Path) -> tuple[dict[str, dict], int]:
    """(header, offset of the data) of a safetensors file. BadInput when it is torn or the sizes do not fit."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if not 2 <= length <= min(size - 8, 100 << 20):  # the format's own limit on headers
                raise ValueError(f"header length {length}")
            header = json.loads(f.read(length))
        header.pop("__metadata__", None)
        end = max((t["data_offsets"][1] for t in header.values()), default=0)
        for name, t in header.items():
            start, stop = t["data_offsets"]
            if stop - start != math.prod(t["shape"]) * SAFETENSORS_DTYPES[t["dtype"]].itemsize:
                raise ValueError(f"{name} has {stop - start} bytes for shape {t['shape']} {t['dtype']}")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"{path}: not a whole safetensors file ({e}); copy or convert it again") from None
    if size != 8 + length + end:
        raise BadInput(f"{path}: {size:,} bytes, its header says {8 + length + end:,}; copy or convert it again")
    return header, 8 + length


def read_safetensors(directory: Path) -> dict[str, Source]:
    """Every tensor of an HF directory by name; empty when it holds no safetensors. BadInput for damaged files."""
    found: dict[str, Source] = {}
    for path in safetensors_files(directory):
        header, base = read_header(path)
        for name, t in header.items():
            if name in found:
                raise BadInput(f"{path}: {name} stands in {found[name].where} already; convert the model again")
            dtype, (start, stop) = SAFETENSORS_DTYPES[t["dtype"]], t["data_offsets"]
            chunks = functools.partial(_read_range, path, base + start, base + stop, dtype)
            found[name] = Source(name, tuple(t["shape"]), dtype, str(path), chunks)
    return found


def _read_range(path: Path, start: int, stop: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    with open(path, "rb") as f:
        f.seek(start)
        for at in range(start, stop, CHUNK):
            block = bytearray(min(CHUNK, stop - at))
            if f.readinto(block) != len(block):
                raise BadInput(f"{path}: ends inside a tensor; copy it again")
            yield torch.frombuffer(block, dtype=dtype)


# ------------------------------------------------------------------------------------------------ safetensors, write
def cast(dtype: torch.dtype, target: torch.dtype) -> torch.dtype:
    """The dtype a tensor is stored in: floating ones as `target`, others as they are."""
    return target if dtype.is_floating_point else dtype


def write_safetensors(
    directory: Path, sources: list[Source], dtype: torch.dtype, max_shard_bytes: int, progress: Callable[[int], None]
) -> int:
    """Write `model.safetensors`, or `model-0000i-of-0000N.safetensors` with their index; the bytes of weights.

    Streams: no tensor is ever whole in memory. `progress` is told the bytes written, from WRITERS threads; what it
    raises ends the writing. Each file is synced to disk.
    """
    groups: list[list[Source]] = [[]]
    filled = 0
    for s in sources:
        size = s.numel * cast(s.dtype, dtype).itemsize
        if groups[-1] and filled + size > max_shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(s)
        filled += size
    weight_map: dict[str, str] = {}
    total = 0
    for i, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{i:05}-of-{len(groups):05}.safetensors"
        header: dict = {"__metadata__": {"format": "pt"}}
        at = 0
        for s in group:
            stored = cast(s.dtype, dtype)
            end = at + s.numel * stored.itemsize
            header[s.name] = {"dtype": _DTYPE_NAMES[stored], "shape": list(s.shape), "data_offsets": [at, end]}
            weight_map[s.name], at = name, end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        base = 8 + len(text)
        with open(directory / name, "wb") as f, ThreadPoolExecutor(WRITERS, "write") as threads:
            f.write(len(text).to_bytes(8, "little") + text)
            f.flush()
            with contextlib.suppress(OSError):  # a file system without it: the file grows as it is written
                os.posix_fallocate(f.fileno(), 0, base + at)
            jobs = [
                threads.submit(_put, f.fileno(), base + header[s.name]["data_offsets"][0], s, dtype, progress)
                for s in group
            ]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
            os.fsync(f.fileno())
        total += at
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total


def _put(fd: int, at: int, source: Source, dtype: torch.dtype, progress: Callable[[int], None]) -> None:
    """Write one tensor at offset `at`, chunk by chunk through one buffer a thread."""
    stored = cast(source.dtype, dtype)
    start, end = at, at + source.numel * stored.itemsize
    for chunk in source.chunks():
        if chunk.dtype != stored:
            chunk = _buffer(chunk.numel(), stored).copy_(chunk)
        data = memoryview(chunk.contiguous().view(torch.uint8).numpy())
        if at + len(data) > end:
            raise BadInput(
                f"{source.where}: {source.name} has more than the {source.numel:,} elements of its shape {source.shape}"
            )
        while data:
            n = os.pwrite(fd, data, at)
            _libc.sync_file_range(
                fd, ctypes.c_int64(at), ctypes.c_int64(n), _SYNC_FILE_RANGE_WRITE
            )  # or the fsync would wait for all
            at, data = at + n, data[n:]
            progress(n)
    if at != end:
        raise BadInput(f"{source.where}: {source.name} ends after {at - start:,} of {end - start:,} bytes")


_buffers = threading.local()


def _buffer(numel: int, dtype: torch.dtype) -> torch.Tensor:
    """This thread's buffer of that dtype: memory allocated anew for each chunk would be cleared by the kernel each
    time."""
    held = getattr(_buffers, str(dtype), None)
    if held is None or held.numel() < numel:
        held = torch.empty(numel, dtype=dtype)
        setattr(_buffers, str(dtype), held)
    return held[:numel]


def first_difference(a: Source, b: Source, dtype: torch.dtype) -> str | None:
    """Where two tensors differ once both are cast to `dtype`, bit for bit; None when they are equal."""
    if a.shape != b.shape:
        return f"{a.name}: shape {a.shape} against {b.shape}"
    at = 0
    for x, y in side_by_side(a, b, dtype):
        if x.dtype != y.dtype:
            return f"{a.name}: {x.dtype} against {y.dtype}"
        integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        x, y = x.view(integer), y.view(integer)  # bits: NaN equals itself, 0.0 is not -0.0
        if not torch.equal(x, y):
            return f"{a.name}: element {at + int((x != y).nonzero()[0]):,} differs"
        at += x.numel()
    return None


def side_by_side(a: Source, b: Source, dtype: torch.dtype) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Equal stretches of two tensors of one shape, cast to `dtype`, whatever the sizes of their chunks."""
    left, right = a.chunks(), b.chunks()
    x = y = torch.empty(0)
    while True:
        x = x if x.numel() else next(left, x)
        y = y if y.numel() else next(right, y)
        if not (n := min(x.numel(), y.numel())):
            return
        yield x[:n].to(cast(a.dtype, dtype)), y[:n].to(cast(b.dtype, dtype))
        x, y = x[n:], y[n:]
