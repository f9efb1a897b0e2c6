"""Tensors to safetensors files, as a stream: no tensor is ever whole in memory.

The size of a file and the place of every tensor in it are known beforehand, so threads cast chunk by chunk straight
into the preallocated file: one read and one write a byte, and as many chunks in memory as there are threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from phase1.files import BadInput
from phase1.model.tensors import DTYPES, Source, cast
from phase1.model.weight_files import INDEX

WRITERS = 2  # threads: one reads and casts while the kernel takes the other's chunk
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h: start writing these pages to disk, do not wait
_libc = ctypes.CDLL(None, use_errno=True)
_buffers = threading.local()


def stored_bytes(sources: Sequence[Source], dtype: torch.dtype) -> int:
    """Bytes of the tensors once floating ones are cast to `dtype`."""
    return sum(s.numel * cast(s.dtype, dtype).itemsize for s in sources)


def write_safetensors(
    directory: Path,
    sources: Sequence[Source],
    *,
    dtype: torch.dtype,
    max_file_bytes: int,
    progress: Callable[[int], None],
) -> None:
    """Write `model.safetensors`, or `model-0000i-of-0000N.safetensors` with their index. Each file is synced to disk.

    Args:
        directory: where to; it exists.
        sources: the tensors, in the order they are to have.
        dtype: of floating tensors; others keep theirs.
        max_file_bytes: of the weights in one file; a larger tensor has a file of its own.
        progress: is told the bytes just written, from WRITERS threads; what it raises ends the writing.
    """
    groups = _by_file(sources, dtype, max_file_bytes)
    weight_map: dict[str, str] = {}
    for i, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{i:05}-of-{len(groups):05}.safetensors"
        _write_file(directory / name, group, dtype, progress)
        weight_map |= {s.name: name for s in group}
    if len(groups) > 1:
        metadata = {"total_size": stored_bytes(sources, dtype)}
        index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _by_file(sources: Sequence[Source], dtype: torch.dtype, max_bytes: int) -> list[list[Source]]:
    """The tensors of each file, in order."""
    groups: list[list[Source]] = [[]]
    filled = 0
    for source in sources:
        size = stored_bytes([source], dtype)
        if groups[-1] and filled + size > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(source)
        filled += size
    return groups


def _write_file(path: Path, sources: list[Source], dtype: torch.dtype, progress: Callable[[int], None]) -> None:
    """One safetensors file: eight bytes with the header's length, the header padded to eight bytes, the data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = [], 0
    for source in sources:
        offsets.append(end)
        end += stored_bytes([source], dtype)
        header[source.name] = {
            "dtype": _DTYPE_NAMES[cast(source.dtype, dtype)],
            "shape": list(source.shape),
            "data_offsets": [offsets[-1], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    with open(path, "wb") as f, ThreadPoolExecutor(WRITERS, "write") as threads:
        f.write(len(text).to_bytes(8, "little") + text)
        f.flush()
        with contextlib.suppress(OSError):  # a file system without it: the file grows as it is written
            os.posix_fallocate(f.fileno(), 0, base + end)
        jobs = [
            threads.submit(_put, f.fileno(), base + at, source, dtype, progress)
            for at, source in zip(offsets, sources, strict=True)
        ]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
        os.fsync(f.fileno())


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
                f"{source.where}: {source.name} has more than the {source.numel:,} elements of its shape "
                f"{source.shape}; copy it again"
            )
        while data:
            n = os.pwrite(fd, data, at)
            # Have the kernel start writing these pages to the disk, or the sync at the end would wait for all of them.
            _libc.sync_file_range(fd, ctypes.c_int64(at), ctypes.c_int64(n), _SYNC_FILE_RANGE_WRITE)
            at, data = at + n, data[n:]
            progress(n)
    if at != end:
        raise BadInput(
            f"{source.where}: {source.name} ends after {at - start:,} of {end - start:,} bytes; copy it again"
        )


def _buffer(numel: int, dtype: torch.dtype) -> torch.Tensor:
    """This thread's buffer of that dtype: the kernel would have to clear memory that is allocated for each chunk."""
    held: torch.Tensor | None = getattr(_buffers, str(dtype), None)
    if held is None or held.numel() < numel:
        held = torch.empty(numel, dtype=dtype)
        setattr(_buffers, str(dtype), held)
    return held[:numel]
