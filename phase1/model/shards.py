"""verl's FSDP checkpoints, tensor by tensor: which shards there are, whether they belong together, what each tensor is.

Shards are mapped, not read, and their pages are given back to the kernel as soon as they have been used, so memory does
not grow with the model. The rival, `verl.model_merger`, holds all ranks' shards and the merged model in memory.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn, Self

import numpy as np
import torch

from phase1.files import BadInput
from phase1.model.adapters import refuse_adapter_names
from phase1.model.tensors import CHUNK, Shape, Source

_SHARD_NAME = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_libc = ctypes.CDLL(None, use_errno=True)


class _DTensor(torch.Tensor):
    """A DTensor as it was pickled: the shape of the whole, this rank's `_local_tensor`, and in `_spec` mesh and
    placements."""

    @classmethod
    def __torch_dispatch__(cls, func: object, types: object, args: object = (), kwargs: object = None) -> NoReturn:
        raise TypeError(f"{func}: only the local tensor of a DTensor has values here")


class _Part:
    """What DTensors are made of beside tensors: the attributes that were pickled, and no code."""

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls)


# torch's own classes take the pickles of their own version alone (a DeviceMesh of torch 2.9 cannot be used under 2.13),
# and importing them takes a second. Here a shard of any version is data.
_STAND_INS = [(_DTensor, "torch.distributed.tensor.DTensor")] + [
    (type(name.rpartition(".")[2], (_Part,), {}), f"torch.distributed.{name}")
    for name in (
        "device_mesh.DeviceMesh",
        "_mesh_layout._MeshLayout",
        "_mesh_layout._FlatLayout",
        "tensor._dtensor_spec.DTensorSpec",
        "tensor._dtensor_spec.TensorMeta",
        "tensor._dtensor_spec.ShardOrderEntry",
        "tensor.placement_types.Shard",
        "tensor.placement_types._StridedShard",
        "tensor.placement_types.Replicate",
        "tensor.placement_types.Partial",
    )
]


# ------------------------------------------------------------------------------------------------------ FSDP shards
def find_shards(ckpt_dir: Path) -> list[Path]:
    """The model shards of a checkpoint in rank order.

    Raises:
        BadInput: names the shard that is missing or does not belong there.
    """
    if not ckpt_dir.is_dir():
        raise BadInput(f"{ckpt_dir}: no such directory; give a global_step_N folder")
    found: dict[int, dict[int, Path]] = {}
    for path in ckpt_dir.iterdir():
        if match := _SHARD_NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    if not found:
        below = sorted({p.parent for p in ckpt_dir.glob("[!.]*/model_world_size_*_rank_*.pt")})
        hint = f"; did you mean {below[-1]}?" if below else "; verl writes model_world_size_N_rank_R.pt there"
        raise BadInput(f"{ckpt_dir}: holds no FSDP model shard{hint}")
    if len(found) > 1:
        raise BadInput(
            f"{ckpt_dir}: holds shards of world sizes {' and '.join(map(str, sorted(found)))}; "
            "move those of the other run away"
        )
    ((world_size, ranks),) = found.items()
    missing = [r for r in range(world_size) if r not in ranks]
    if missing:
        raise BadInput(
            f"{ckpt_dir}/model_world_size_{world_size}_rank_{missing[0]}.pt: missing, with {len(missing)} of "
            f"{world_size} shards; copy all of them"
        )
    if max(ranks) >= world_size:
        raise BadInput(f"{ranks[max(ranks)]}: rank {max(ranks)} of a world of {world_size}; rename or remove it")
    return [ranks[r] for r in range(world_size)]


def load_shard(path: Path) -> dict[str, torch.Tensor]:
    """A rank's state dict, mapped, not read. Only tensors are unpickled (weights_only): a shard can run no code.

    Raises:
        BadInput: the file is missing, torn, or no model's state dict.
    """
    # torch.distributed.tensor registers classes of its own, where something has imported it.
    registered = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(_STAND_INS)
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except Exception as e:  # torch raises RuntimeError, UnpicklingError, EOFError, ValueError for damage
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        if named := re.search(r"(?i)unsupported (?:global:? )?global (\S+)", str(e)):
            raise BadInput(
                f"{path}: holds {named[1]} beside tensors, which no model shard of verl does and loading "
                "could run code; get the shard from its source"
            ) from None
        raise BadInput(f"{path}: not a whole shard ({reason[:160]}); copy it again") from None
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(registered)
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BadInput(f"{path}: not a model's state dict; it was not written by verl as a model shard")
    return state


def check_steps(paths: list[Path]) -> None:
    """Check that all shards were saved at one step, the one that their folder is named after.

    Weights do not tell of which step they are, but each rank saves the state of its learning rate schedule beside them.
    Ranks that saved none (save_contents without `extra`) are not compared.

    Raises:
        BadInput: names the file of another step.
    """
    states = {path: path.with_name(path.name.replace("model_world", "extra_state_world")) for path in paths}
    found = {state: step for state in states.values() if (step := _step_of(state)) is not None}
    if not found:
        return
    first, last = min(found.values()), max(found.values())
    named = re.search(r"global_step_(\d+)$", str(paths[0].parent.resolve()))
    if first != last:
        wrong = next(path for path, step in found.items() if step == last)
        raise BadInput(f"{wrong}: of step {last}, others are of step {first}; copy all ranks from one save")
    if named and int(named[1]) != first:
        raise BadInput(
            f"{next(iter(found))}: of step {first} in a folder named {named[0]}; copy all ranks from one save, or name "
            f"the folder global_step_{first}"
        )


def _step_of(extra_state: Path) -> int | None:
    """The step at which a rank's extra_state_*.pt was saved; None where it is missing or of an unknown form."""
    rebuild = np.empty(0).__reduce__()[0]  # in the generator's state; numpy 1 and 2 name this function differently
    allowed = [
        *((rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.uint32)),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            state = torch.load(extra_state, map_location="cpu", weights_only=True)
        return int(state["lr_scheduler"]["last_epoch"])
    except Exception:  # torch.load raises all kinds for a file that is torn or holds other classes
        return None


def read_shards(paths: list[Path], shapes: Callable[[], dict[str, Shape]] = dict) -> dict[str, Source]:
    """Every parameter of a checkpoint by name, from the shards of all ranks.

    FSDP1 and FSDP2 state dicts hold DTensors, sharded on one dimension of the mesh and replicated on the other, if
    any (HSDP). A plain tensor is one whole copy a rank, or a rank's piece along dimension 0: verl 0.7.0's merger takes
    the second for granted (model_merger/fsdp_model_merger.py:211), 0.9.1's the first. Here `shapes()`, the model's
    own, decides; it is called only where there is such a tensor.

    Raises:
        BadInput: names the file that does not fit the others.
    """
    states = [load_shard(p) for p in paths]
    first = states[0]
    for path, state in zip(paths[1:], states[1:], strict=True):
        if odd := sorted(set(first) ^ set(state)):
            raise BadInput(
                f"{path}: {'lacks' if odd[0] in first else 'alone holds'} {odd[0]}, unlike {paths[0].name}; "
                "it belongs to another model"
            )
    for rank, (path, state) in enumerate(zip(paths, states, strict=True)):
        if (written := _written_by(next(iter(state.values())))) not in (None, rank):
            raise BadInput(f"{path}: was written by rank {written}; restore the shard of rank {rank}")
    refuse_adapter_names(first, str(paths[0]))
    return {name: _sharded(name, paths, [s[name] for s in states], shapes) for name in first}


def _sharded(name: str, paths: list[Path], parts: list[torch.Tensor], shapes: Callable[[], dict[str, Shape]]) -> Source:
    """One parameter from its pieces in rank order."""
    dtype, shape, dim = parts[0].dtype, tuple(parts[0].shape), 0
    for path, part in zip(paths, parts, strict=True):
        if part.dtype != dtype:
            raise BadInput(
                f"{path}: {name} is {part.dtype}, in {paths[0].name} {dtype}; the shards are not of one save"
            )
        if type(part) is not type(parts[0]) or (isinstance(part, _DTensor) and tuple(part.shape) != shape):
            raise BadInput(
                f"{path}: {name} is {tuple(part.shape)}, in {paths[0].name} {shape}; it belongs to another model"
            )
    if isinstance(parts[0], _DTensor):
        placed = _placement(name, paths, parts)
        dim, paths = placed.dim, [paths[r] for r in placed.ranks]
        locals_ = [parts[r]._local_tensor for r in placed.ranks]
    elif len(parts) > 1 and shape == shapes().get(name):
        for path, part in zip(paths, parts, strict=True):
            if part.shape != parts[0].shape or not torch.equal(part.view(torch.uint8), parts[0].view(torch.uint8)):
                raise BadInput(
                    f"{path}: {name} is another than in {paths[0].name}, though each holds it whole; the "
                    "shards are not of one save"
                )
        paths, locals_ = paths[:1], parts[:1]
    else:
        locals_ = parts
        shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:]) if parts[0].ndim else ()
    total = sum(p.shape[dim] for p in locals_) if shape else 0
    for path, part in zip(paths, locals_, strict=True):
        rest = [i for i in range(len(shape)) if i != dim]
        if part.numel() and (part.ndim != len(shape) or any(part.shape[i] != shape[i] for i in rest)):
            raise BadInput(f"{path}: {name} has a piece {tuple(part.shape)} of {shape}; it belongs to another model")
    if shape and total != shape[dim]:
        raise BadInput(
            f"{paths[-1]}: the pieces of {name} add up to {total} along dimension {dim}, not to {shape[dim]}; "
            "copy the shards of all ranks again"
        )
    locals_ = [p for p in locals_ if p.numel()]  # more ranks than rows: some hold nothing
    chunks = (lambda: _rows(locals_)) if dim == 0 else (lambda: _columns(locals_, shape, dim))
    return Source(name=name, shape=shape, dtype=dtype, where=str(paths[0]), chunks=chunks)


def _written_by(tensor: torch.Tensor) -> int | None:
    """The rank that saved a DTensor, as its mesh names it; None for a plain tensor, or where the mesh does not say.

    torch 2.9's mesh holds all ranks and its own place among them.
    """
    if not isinstance(tensor, _DTensor):
        return None
    mesh = tensor._spec.mesh
    if hasattr(mesh, "mesh") and not hasattr(mesh, "_rank"):
        return int(mesh.mesh[tuple(mesh._coordinate_on_dim)])
    rank: int | None = getattr(mesh, "_rank", None)
    return rank


class _Placement(NamedTuple):
    """The ranks whose pieces make up a DTensor, in order, and the dimension along which the pieces are joined."""

    ranks: list[int]
    dim: int


def _placement(name: str, paths: list[Path], parts: list[torch.Tensor]) -> _Placement:
    """How a DTensor is split, from each rank's place in the mesh. BadInput where the ranks contradict each other."""
    placed = [(type(p).__name__, getattr(p, "dim", 0)) for p in parts[0]._spec.placements]
    if any(kind != "Replicate" for kind, _ in placed[:-1]) or placed[-1][0] not in ("Replicate", "Shard"):
        raise BadInput(f"{paths[0]}: {name} is placed as {placed}; only FSDP and HSDP checkpoints are read here")
    places: dict[tuple[int, ...], int] = {}
    for rank, (path, part) in enumerate(zip(paths, parts, strict=True)):
        if [(type(p).__name__, getattr(p, "dim", 0)) for p in part._spec.placements] != placed:
            raise BadInput(f"{path}: {name} is split otherwise than in {paths[0].name}; it belongs to another model")
        if (place := getattr(part._spec.mesh, "_coordinate_on_dim", None)) is None:
            raise BadInput(
                f"{path}: {name} does not say which piece it is; merge such shards with python -m verl.model_merger"
            )
        place = tuple(place)
        if (other := places.setdefault(place, rank)) != rank:
            raise BadInput(
                f"{path}: {name} is the same piece as in {paths[other].name}; copy the shards of all ranks again"
            )
    if (world_size := math.prod(max(axis) + 1 for axis in zip(*places, strict=True))) != len(parts):
        raise BadInput(
            f"{paths[0]}: {name} was saved on {world_size} ranks, {len(parts)} shards are here; copy those of all ranks"
        )
    ranks = [places[p] for p in sorted(places) if not any(p[:-1])]  # the replicas of the first dimension hold the same
    kind, dim = placed[-1]
    return _Placement(ranks, dim) if kind == "Shard" else _Placement(ranks[:1], 0)


def _rows(pieces: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Pieces along dimension 0: one after the other is row-major order already."""
    flats = [p.reshape(-1) for p in pieces]
    for flat, following in zip(flats, [*flats[1:], None], strict=True):
        _advise(flat, mmap.MADV_WILLNEED)  # the disk works ahead: page faults alone read 128 KiB at a time
        if following is not None:
            _advise(following, mmap.MADV_WILLNEED)
        for chunk in flat.split(CHUNK // flat.element_size()):
            yield chunk
            _advise(chunk, mmap.MADV_DONTNEED)


def _columns(pieces: list[torch.Tensor], shape: tuple[int, ...], dim: int) -> Iterator[torch.Tensor]:
    """Pieces along a later dimension (verl's get_shard_placement_fn): joined block of rows by block of rows."""
    pieces = [p.reshape(-1, *p.shape[dim:]) for p in pieces]  # all dimensions before `dim` as one
    row_bytes = math.prod(shape[dim:]) * pieces[0].element_size()
    rows = max(1, CHUNK // row_bytes)
    for piece in pieces:
        _advise(piece, mmap.MADV_WILLNEED)
    for start in range(0, pieces[0].shape[0], rows):
        blocks = [p[start : start + rows] for p in pieces]
        yield torch.cat(blocks, dim=1).reshape(-1)
        for block in blocks:
            _advise(block, mmap.MADV_DONTNEED)


def _advise(tensor: torch.Tensor, advice: int) -> None:
    """Tell the kernel about the mapped pages that lie wholly within a tensor.

    MADV_DONTNEED: used, take them back (they stay in its page cache); without this a mapping counts as this process's
    memory until the file is closed. The mapping is private and never written, so dropped pages would simply be read
    again.
    """
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    end = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // page * page
    if end > start and tensor.is_contiguous():
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)
