"""The safetensors files of a model directory: which there are, and what their headers say. Needs no torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phase1.files import BadInput, read_json

INDEX = "model.safetensors.index.json"
MAX_HEADER = 100 << 20  # bytes; the format's own limit, MAX_HEADER_SIZE of safetensors' tensor.rs
# Bytes of an element by the format's names of dtypes, Dtype of safetensors' tensor.rs.
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a header: its bytes are `start` to `stop` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def weight_files(directory: Path) -> list[Path]:
    """The files that the directory's index names, else model.safetensors; empty where there are none.

    Raises:
        BadInput: the index is broken, or names a file that is not there.
    """
    index = directory / INDEX
    if not index.exists():
        single = directory / "model.safetensors"
        return [single] if single.exists() else []
    try:
        files = [directory / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{index}: does not name a file for each tensor; copy or convert the model again") from None
    for path in files:
        if not path.exists():
            raise BadInput(f"{path}: missing, though {index.name} names it; copy it again")
    return files


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name.

    Raises:
        BadInput: the file is torn, or its sizes do not fit together.
        FileNotFoundError: there is no such file.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER):
                raise ValueError(f"header length {length}")
            header = json.loads(f.read(length))
        header.pop("__metadata__", None)
        entries = {name: _entry(name, fields, 8 + length) for name, fields in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise BadInput(f"{path}: not a whole safetensors file ({e}); copy or convert it again") from None
    end = max((entry.stop for entry in entries.values()), default=8 + length)
    if size != end:
        raise BadInput(
            f"{path}: not a whole safetensors file ({size:,} bytes, its header says {end:,}); copy or convert it again"
        )
    return entries


def _entry(name: str, fields: dict[str, Any], base: int) -> Entry:
    """One tensor of a header; `base` is where the data begin. ValueError, KeyError or TypeError for nonsense."""
    (start, stop), shape, dtype = fields["data_offsets"], fields["shape"], str(fields["dtype"])
    if stop - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(f"{name} has {stop - start} bytes for shape {shape} {dtype}")
    return Entry(dtype, tuple(shape), base + start, base + stop)


def count_parameters(directory: Path) -> int:
    """Elements of all tensors of all safetensors files there; 0 where there are none.

    Raises:
        BadInput: one of them is torn.
    """
    headers = [read_header(path) for path in directory.glob("*.safetensors")]
    return sum(math.prod(entry.shape) for header in headers for entry in header.values())
