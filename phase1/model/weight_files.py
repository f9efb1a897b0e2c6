"""The safetensors files of a model directory: which there are, and what their headers say. Needs no torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phase1.files import BadInput, read_json

INDEX = "model.safetensors.index.json"
COMPARED = 4 << 20  # bytes that `same_bytes` holds of each tensor at once
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


@dataclass(frozen=True)
class Stored:
    """One tensor of a model directory: its bytes are `start` to `stop` of the file at `path`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: Path
    start: int
    stop: int

    @property
    def where(self) -> str:
        """Its file, for messages."""
        return str(self.path)


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


def stored_tensors(directory: Path) -> dict[str, Stored]:
    """Every tensor of a directory's safetensors files by name; empty where there are none.

    Raises:
        BadInput: a file is torn or missing, two hold one tensor, index and files disagree, or without an index there
            is more than one.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(directory):
        for name, e in read_header(path).items():
            if name in found:
                raise BadInput(f"{path}: holds {name}, as {found[name].where} does; convert the model again")
            found[name] = Stored(name, e.shape, e.dtype, path, e.start, e.stop)
    index = directory / INDEX
    if not index.exists():
        held_files = {t.path for t in found.values()}
        if held_files and (stale := sorted(set(directory.glob("*.safetensors")) - held_files)):
            raise BadInput(
                f"{stale[0]}: beside model.safetensors and in no index: vLLM loads both, other readers one; remove the "
                "stale one"
            )
        return found
    mapped = read_json(index)["weight_map"]
    held = {name: t.path.name for name, t in found.items()}
    if odd := sorted(name for name in set(mapped) | set(held) if mapped.get(name) != held.get(name)):
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise BadInput(f"{index}: it and the files disagree on {odd[0]}{more}; copy or convert the model again")
    if (single := directory / "model.safetensors").exists() and single.name not in held.values():
        raise BadInput(f"{single}: not named by {INDEX} beside it, and readers take either; remove the stale one")
    return found


def same_bytes(a: Stored, b: Stored) -> bool:
    """Whether two tensors are equal bit for bit, dtype and shape included."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with open(a.path, "rb") as left, open(b.path, "rb") as right:
        left.seek(a.start)
        right.seek(b.start)
        for at in range(0, a.stop - a.start, COMPARED):
            size = min(COMPARED, a.stop - a.start - at)
            if left.read(size) != right.read(size):
                return False
    return True


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
    """Elements of all tensors of the directory's safetensors files; 0 where there are none.

    Raises:
        BadInput: as `stored_tensors` does.
    """
    return sum(math.prod(t.shape) for t in stored_tensors(directory).values())
