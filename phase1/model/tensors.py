"""A model's tensors wherever they lie, chunk by chunk: read from safetensors files, and compared bit for bit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from phase1.files import BadInput
from phase1.model.weight_files import stored_tensors

# Bytes of a tensor in memory at once, before the cast: few enough to be still in the CPU's cache when they are written.
CHUNK = 4 << 20
DTYPES = {
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
_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """One tensor of a model. `chunks()` yields its elements in row-major order as flat tensors; `where` names its file
    in messages."""

    name: str
    shape: Shape
    dtype: torch.dtype
    where: str
    chunks: Callable[[], Iterator[torch.Tensor]]

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def read_safetensors(directory: Path) -> dict[str, Source]:
    """Every tensor of a Hugging Face directory by name; empty where it holds no safetensors.

    Raises:
        BadInput: as `stored_tensors` does, or a tensor has a dtype that is not read here.
    """
    found: dict[str, Source] = {}
    for name, t in stored_tensors(directory).items():
        if (dtype := DTYPES.get(t.dtype)) is None:
            raise BadInput(f"{t.where}: {name} has dtype {t.dtype}, which cannot be read here; take a BF16 model")
        chunks = functools.partial(_read_range, t.path, t.start, t.stop, dtype)
        found[name] = Source(name=name, shape=t.shape, dtype=dtype, where=t.where, chunks=chunks)
    return found


def _read_range(path: Path, start: int, stop: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The bytes from `start` to `stop` of a file as flat tensors of at most CHUNK bytes."""
    with open(path, "rb") as f:
        f.seek(start)
        for at in range(start, stop, CHUNK):
            block = bytearray(min(CHUNK, stop - at))
            if f.readinto(block) != len(block):
                raise BadInput(f"{path}: ends inside a tensor; copy it again")
            yield torch.frombuffer(block, dtype=dtype)


def cast(dtype: torch.dtype, target: torch.dtype) -> torch.dtype:
    """The dtype that a tensor is stored in: floating ones as `target`, others as they are."""
    return target if dtype.is_floating_point else dtype


def first_difference(a: Source, b: Source, dtype: torch.dtype) -> str | None:
    """Where two tensors differ once both are cast to `dtype`, bit for bit; None where they are equal."""
    if a.shape != b.shape:
        return f"{a.name}: shape {a.shape} against {b.shape}"
    at = 0
    for x, y in side_by_side(a, b, dtype):
        if x.dtype != y.dtype:
            return f"{a.name}: {x.dtype} against {y.dtype}"
        integer = _INTEGER_OF_SIZE[x.element_size()]
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
