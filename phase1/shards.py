"""Model weights on disk, tensor by tensor: verl's FSDP shards and safetensors in, sharded safetensors out.

Nothing here holds more than CHUNK bytes of weights at once, whatever the size of model or tensor: pages of the mapped
shards are given back to the kernel as soon as they are written. The rival, `verl.model_merger`, holds all ranks' shards
and the merged model in memory.
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.tensor  # registers DTensor and its parts as safe for torch.load(weights_only=True)

from phase1.files import BadInput, read_json

CHUNK = 32 << 20  # bytes of weights in memory at once, before the cast
SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
_SHARD_NAME = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_libc = ctypes.CDLL(None, use_errno=True)
# Each unpickled DeviceMesh warns that no process group exists; none is meant to.
logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)


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


# ------------------------------------------------------------------------------------------------------ FSDP shards
def find_shards(ckpt_dir: Path) -> list[Path]:
    """The model shards of a checkpoint in rank order. BadInput names what is missing or does not belong there."""
    if not ckpt_dir.is_dir():
        raise BadInput(f"{ckpt_dir}: no such directory; give a global_step_N folder")
    found: dict[int, dict[int, Path]] = {}
    for path in ckpt_dir.iterdir():
        if match := _SHARD_NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    if not found:
        below = sorted({p.parent for p in ckpt_dir.glob("*/model_world_size_*_rank_*.pt")})
        hint = f"; did you mean {below[-1]}?" if below else "; verl writes model_world_size_N_rank_R.pt there"
        raise BadInput(f"{ckpt_dir}: holds no FSDP model shard{hint}")
    if len(found) > 1:
        raise BadInput(f"{ckpt_dir}: holds shards of world sizes {' and '.join(map(str, sorted(found)))}; "
                       "move those of the other run away")  # fmt: skip
    (world_size, ranks), = found.items()
    missing = [r for r in range(world_size) if r not in ranks]
    if missing:
        raise BadInput(f"{ckpt_dir}/model_world_size_{world_size}_rank_{missing[0]}.pt: missing, with {len(missing)} of "
                       f"{world_size} shards; copy all of them")  # fmt: skip
    if max(ranks) >= world_size:
        raise BadInput(f"{ranks[max(ranks)]}: rank {max(ranks)} of a world of {world_size}; rename or remove it")
    return [ranks[r] for r in range(world_size)]


def load_shard(path: Path) -> dict[str, torch.Tensor]:
    """A rank's state dict, mapped, not read. Only tensors are unpickled (weights_only): a shard can run no code."""
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except Exception as e:  # torch raises RuntimeError, UnpicklingError, EOFError, ValueError for damage
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        if named := re.search(r"(?i)unsupported (?:global:? )?global (\S+)", str(e)):
            raise BadInput(f"{path}: holds {named[1]} beside tensors, which no model shard of verl does and loading "
                           "could run code; get the shard from its source") from None  # fmt: skip
        raise BadInput(f"{path}: not a whole shard ({reason[:160]}); copy it again") from None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BadInput(f"{path}: not a model's state dict; it was not written by verl as a model shard")
    return state


def read_shards(paths: list[Path]) -> dict[str, Source]:
    """Every parameter of a checkpoint by name, from the shards of all ranks.

    FSDP1 and FSDP2 state dicts hold DTensors, sharded on one dimension of the mesh and replicated on the other, if
    any (HSDP). Plain tensors are rank pieces along dimension 0, as in verl 0.7.0's model_merger/fsdp_model_merger.py:211.
    BadInput names the file that does not fit the others.
    """
    states = [load_shard(p) for p in paths]
    first = states[0]
    for path, state in zip(paths[1:], states[1:], strict=True):
        if odd := sorted(set(first) ^ set(state)):
            raise BadInput(f"{path}: {'lacks' if odd[0] in first else 'alone holds'} {odd[0]}, unlike {paths[0].name}; "
                           "it belongs to another model")  # fmt: skip
    for rank, (path, state) in enumerate(zip(paths, states, strict=True)):
        mesh = getattr(next(iter(state.values())), "device_mesh", None)
        if (written := getattr(mesh, "_rank", None)) not in (None, rank):
            raise BadInput(f"{path}: was written by rank {written}; restore the shard of rank {rank}")
    if lora := [name for name in first if "lora_" in name]:
        raise BadInput(f"{paths[0]}: holds LoRA adapters ({lora[0]}); merge these with python -m verl.model_merger")
    return {name: _sharded(name, paths, [s[name] for s in states]) for name in first}


def _sharded(name: str, paths: list[Path], parts: list[torch.Tensor]) -> Source:
    """One parameter from its pieces in rank order."""
    dtype, dim = parts[0].dtype, 0
    for path, part in zip(paths, parts, strict=True):
        if part.dtype != dtype:
            raise BadInput(f"{path}: {name} is {part.dtype}, in {paths[0].name} {dtype}; the shards are not of one save")
    if hasattr(parts[0], "placements"):
        shape = tuple(parts[0].shape)
        mesh, placements = parts[0].device_mesh.mesh, parts[0].placements
        if mesh.numel() != len(parts):
            raise BadInput(f"{paths[0]}: {name} was saved on {mesh.numel()} ranks, {len(parts)} shards are here")
        for path, part in zip(paths, parts, strict=True):
            if not hasattr(part, "placements") or tuple(part.shape) != shape or part.placements != placements:
                raise BadInput(f"{path}: {name} is {tuple(part.shape)}, in {paths[0].name} {shape}; it belongs to another model")
        if any(p.is_partial() for p in placements) or any(not p.is_replicate() for p in placements[:-1]):
            raise BadInput(f"{paths[0]}: {name} is placed as {placements}; only FSDP and HSDP checkpoints are read here")
        ranks = mesh.reshape(-1, mesh.shape[-1])[0].tolist()  # the replicas of the first dimension hold the same
        if placements[-1].is_replicate():
            ranks = ranks[:1]
        else:
            dim = placements[-1].dim
        paths, locals_ = [paths[r] for r in ranks], [parts[r].to_local() for r in ranks]
    else:
        locals_ = parts
        shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:]) if parts[0].ndim else ()
    total = sum(p.shape[dim] for p in locals_) if shape else 0
    for path, part in zip(paths, locals_, strict=True):
        rest = [i for i in range(len(shape)) if i != dim]
        if part.numel() and (part.ndim != len(shape) or any(part.shape[i] != shape[i] for i in rest)):
            raise BadInput(f"{path}: {name} has a piece {tuple(part.shape)} of {shape}; it belongs to another model")
    if shape and total != shape[dim]:
        raise BadInput(f"{paths[-1]}: the pieces of {name} add up to {total} along dimension {dim}, not to {shape[dim]}")
    locals_ = [p for p in locals_ if p.numel()]  # more ranks than rows: some hold nothing
    chunks = (lambda: _rows(locals_)) if dim == 0 else (lambda: _columns(locals_, shape, dim))
    return Source(name, shape, dtype, str(paths[0]), chunks)


def _rows(pieces: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Pieces along dimension 0: one after the other is row-major order already."""
    for piece in pieces:
        flat = piece.reshape(-1)
        for chunk in flat.split(CHUNK // flat.element_size()):
            yield chunk
            _drop_pages(chunk)


def _columns(pieces: list[torch.Tensor], shape: tuple[int, ...], dim: int) -> Iterator[torch.Tensor]:
    """Pieces along a later dimension (verl's get_shard_placement_fn): joined block of rows by block of rows."""
    pieces = [p.reshape(-1, *p.shape[dim:]) for p in pieces]  # all dimensions before `dim` as one
    row_bytes = math.prod(shape[dim:]) * pieces[0].element_size()
    rows = max(1, CHUNK // row_bytes)
    for start in range(0, pieces[0].shape[0], rows):
        blocks = [p[start : start + rows] for p in pieces]
        yield torch.cat(blocks, dim=1).reshape(-1)
        for block in blocks:
            _drop_pages(block)


def _drop_pages(tensor: torch.Tensor) -> None:
    """Give the mapped pages of a piece that has been read back to the kernel; they stay in its page cache.

    Without this a mapping counts as this process's memory until the file is closed. The mapping is private and never
    written, so dropped pages would simply be read again.
    """
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    end = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // page * page
    if end > start and tensor.is_contiguous():
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


# ------------------------------------------------------------------------------------------------- safetensors, read
def safetensors_files(directory: Path) -> list[Path]:
    """The weight files of an HF directory: those its index names, else model.safetensors; empty when there are none.

    BadInput when the index names a file that is not there.
    """
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return [directory / "model.safetensors"] if (directory / "model.safetensors").exists() else []
    files = [directory / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
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
            found[name] = Source(name, tuple(t["shape"]), dtype, str(path),
                                 lambda p=path, a=base + start, b=base + stop, d=dtype: _read_range(p, a, b, d))  # fmt: skip
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


def write_safetensors(directory: Path, sources: list[Source], dtype: torch.dtype, max_shard_bytes: int,
                      progress: Callable[[int], None]) -> int:  # fmt: skip
    """Write `model.safetensors`, or `model-0000i-of-0000N.safetensors` with their index; the bytes of weights.

    Streams: no tensor is ever whole in memory. `progress` is told the bytes written. Each file is synced to disk.
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
        with open(directory / name, "wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            for s in group:
                for chunk in s.chunks():
                    data = chunk.to(cast(s.dtype, dtype)).contiguous().view(torch.uint8).numpy()
                    f.write(data)
                    progress(data.nbytes)
            f.flush()
            os.fsync(f.fileno())
            if f.tell() != 8 + len(text) + at:
                raise BadInput(f"{group[0].where}: gave {f.tell() - 8 - len(text):,} bytes of weights, {at:,} were announced")
        total += at
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total


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
