"""Whether a model's tensors fit its config.json: names, shapes, dtypes, and the tied head. Needs no torch for Qwen2.

Readers do not ask: transformers starts a missing tensor at random and passes over a foreign one with a warning, so such
a model is trained or evaluated to its end, and its numbers are those of another model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from phase1.files import BadInput
from phase1.model.adapters import refuse_adapter_files, refuse_adapter_names
from phase1.model.shapes import EMBEDDING, HEAD, Expected, expected_tensors
from phase1.model.small_files import read_object
from phase1.model.values import BadValues, find_bad_values
from phase1.model.weight_files import Stored, same_bytes, stored_tensors

if TYPE_CHECKING:  # torch takes a second, and the preflight does without
    import torch

    from phase1.model.tensors import Source

OTHER_MODEL = "its weights are another model's, or damaged; copy, download or convert the model again"
# The names of torch and of config.json for the format's floating dtypes.
FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Named(Protocol):
    """A tensor, of whatever source, as far as names and shapes go; `where` names its file in messages."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def where(self) -> str: ...


# ----------------------------------------------------------------------------------------------------- names and shapes
def check_shapes(tensors: Sequence[Named], want: Expected, path: Path) -> None:
    """Check names and shapes against those of the model that config.json, at `path`, describes.

    Raises:
        BadInput: names the first tensor that is an adapter's, foreign, of another shape, or missing.
    """
    refuse_adapter_names((t.name for t in tensors), tensors[0].where)
    if want.unknown:
        return
    for t in tensors:
        shape = want.shape_of(t.name)
        if shape is None and not want.skips(t.name):
            raise BadInput(f"{t.where}: holds {t.name}, which the model of {path} does not have; {_remedy(t, want)}")
        if shape not in (None, t.shape):
            raise BadInput(f"{t.where}: {t.name} is {t.shape}, {path} says {shape}; {OTHER_MODEL}")
    missing = sorted(set(want.needed) - {want.name_of(t.name) for t in tensors})
    if missing == [HEAD]:
        raise BadInput(
            f"{tensors[0].where}: lacks {HEAD}, which the model of {path} needs, as tie_word_embeddings is not true; "
            "set it to true if the model was trained so, else copy or convert the model again"
        )
    if missing:
        raise BadInput(f"{tensors[0].where}: lacks {missing[0]}, which the model of {path} needs; {OTHER_MODEL}")


def _remedy(foreign: Named, want: Expected) -> str:
    """What to do about a foreign tensor: a wrapper's prefix before a good name can be taken off."""
    parts = foreign.name.split(".")
    for i in range(1, len(parts)):
        if ".".join(parts[i:]) in want.needed:
            prefix = ".".join(parts[:i]) + "."
            return f"a wrapper's prefix {prefix!r}: save the model without it, or take it off every name"
    if "._orig_mod." in foreign.name:
        return "torch.compile's '_orig_mod.' within the names: save the model before compiling, or take it off"
    return OTHER_MODEL


# ------------------------------------------------------------------------------------------------------- the tied head
def has_tied_copy(names: Iterable[str], config: Mapping[str, JsonValue]) -> bool:
    """Whether a tied model has a second copy of its embedding as the head, which verl 0.7.0 saves."""
    return bool(config.get("tie_word_embeddings")) and {HEAD, EMBEDDING} <= set(names)


def tensors_to_write(sources: Mapping[str, Source], config: Mapping[str, JsonValue]) -> list[Source]:
    """All tensors but that second copy, which readers must not find."""
    tied = has_tied_copy(sources, config)
    return [s for s in sources.values() if not (tied and s.name == HEAD)]


def check_tied(sources: Mapping[str, Source], config: Mapping[str, JsonValue], path: Path) -> None:
    """Check that what `tensors_to_write` leaves out is the copy that config.json, at `path`, says it is.

    Raises:
        BadInput: head and embedding differ.
    """
    if not has_tied_copy(sources, config):
        return
    from phase1.model.tensors import first_difference

    head, embedding = sources[HEAD], sources[EMBEDDING]
    if difference := first_difference(head, embedding, head.dtype):
        raise BadInput(_trained_apart(path, difference))


def _trained_apart(path: Path, how: str) -> str:
    return (
        f"{path}: tie_word_embeddings is true, but {HEAD} and the embedding were trained apart "
        f"({how}); set it to false to keep both"
    )


# ------------------------------------------------------------------------------------------------------------- dtypes
@dataclass(frozen=True)
class DtypeFindings:
    """What the dtypes of a model's floating tensors say beside config.json.

    Attributes:
        on_disk: their names, sorted.
        stated: config.json's, sorted.
        failures: what makes readers take other numbers than were trained.
        warnings: what merely costs something.
    """

    on_disk: list[str]
    stated: list[str]
    failures: list[str]
    warnings: list[str]


def dtype_findings(dtypes: Iterable[str], size: int, config: Mapping[str, JsonValue]) -> DtypeFindings:
    """The dtypes on disk against the one that config.json tells readers.

    Args:
        dtypes: of the floating tensors, by torch's names.
        size: bytes of all tensors.
        config: what config.json holds.
    """
    stated = sorted({str(config[key]) for key in ("dtype", "torch_dtype") if config.get(key)})
    on_disk = sorted(set(dtypes))
    failures, warnings = [], []
    if len(stated) > 1:
        failures.append(f"config.json says both {' and '.join(stated)}")
    if len(on_disk) > 1:
        failures.append(f"weights of several dtypes: {', '.join(on_disk)}")
    if not stated:
        warnings.append("config.json names no dtype: readers take float32")
    elif on_disk and on_disk[0] not in stated:
        text = f"{on_disk[0]} on disk ({size / 1e9:.2f} GB), {stated[0]} in config.json"
        # fp32 master weights under a bf16 label are read as bf16, as the evaluation did: right, but twice the size
        if on_disk == ["float32"] and stated == ["bfloat16"]:
            warnings.append(f"{text}; convert_fsdp_to_hf.py --slim halves it")
        else:
            failures.append(text)
    return DtypeFindings(on_disk, stated, failures, warnings)


# --------------------------------------------------------------------------------------------------- a model directory
@dataclass(frozen=True)
class Fit:
    """A model directory whose weights fit its config.json.

    Attributes:
        parameters: elements of all tensors; a tied model's second copy of its embedding is not counted.
        has_tied_copy: whether there is such a copy.
        not_compared: why names and shapes could not be compared; empty where they were.
        zero: names of tensors that hold zeros alone; empty where values were not read.
        dtypes: what the dtypes on disk say beside config.json.
    """

    parameters: int
    has_tied_copy: bool
    not_compared: str
    zero: list[str]
    dtypes: DtypeFindings

    @property
    def doubts(self) -> list[str]:
        """What a user should look at before these weights are evaluated or trained."""
        found = list(self.dtypes.failures)
        if self.not_compared:
            found.append(f"names and shapes of the weights are not compared: {self.not_compared}")
        if self.zero:
            found.append(zero_text(self.zero))
        return found


def check_model(model: Path, *, compare_head: bool = True, read_values: bool = True) -> Fit:
    """Check that the weight files of a model directory hold the very tensors that its config.json describes.

    Args:
        model: a Hugging Face directory; files of the Hub's cache are links, and are followed.
        compare_head: compare a tied model's second copy of its embedding with it, byte by byte.
        read_values: look for NaN and zeros, which reads all weights once. Without both only headers are read.

    Raises:
        BadInput: names the tensor or the file, and what to do.
    """
    refuse_adapter_files(model)
    path = model / "config.json"
    config = read_object(path)
    stored = stored_tensors(model)
    pickled = [] if stored else _pickled(model)
    tensors: list[Named] = [*stored.values(), *pickled]
    if not tensors:
        raise BadInput(f"{model}: no weights (*.safetensors) beside config.json; download or convert the model again")
    want = expected_tensors(config, path)
    check_shapes(tensors, want, path)
    if not want.unknown:
        _check_weights_are_floating(stored, pickled)
    copied = has_tied_copy((t.name for t in tensors), config)
    if copied and compare_head and not _same_head(stored, pickled):
        raise BadInput(_trained_apart(path, "their bytes differ"))
    values = BadValues()
    if read_values:
        values = find_bad_values(stored.values()) if stored else _bad_pickled(pickled)
    if values.not_finite:
        raise BadInput(f"{model}: {not_finite_text(values)}; take an earlier step, or copy or convert the model again")
    floating = [FLOATING[t.dtype] for t in stored.values() if t.dtype in FLOATING]
    floating += [str(t.tensor.dtype).removeprefix("torch.") for t in pickled if t.tensor.is_floating_point()]
    size = sum(t.stop - t.start for t in stored.values()) + sum(t.tensor.nbytes for t in pickled)
    return Fit(
        parameters=sum(math.prod(t.shape) for t in tensors if not (copied and t.name == HEAD)),
        has_tied_copy=copied,
        not_compared=want.unknown,
        zero=values.zero,
        dtypes=dtype_findings(floating, size, config),
    )


def not_finite_text(values: BadValues) -> str:
    """How many tensors hold NaN or infinity, and which is the first."""
    return f"NaN or infinity in {len(values.not_finite)} tensors, first {values.not_finite[0]}"


def zero_text(names: Sequence[str]) -> str:
    """How many tensors hold zeros alone, and which is the first."""
    return f"{len(names)} tensors hold only zeros, first {names[0]}"


def _check_weights_are_floating(stored: Mapping[str, Stored], pickled: Sequence[_Pickled]) -> None:
    """Refuse weights of integers or of 8 bits where config.json says nothing of quantisation."""
    odd: list[tuple[Named, str]] = [(t, t.dtype) for t in stored.values() if t.dtype not in FLOATING]
    odd += [(t, str(t.tensor.dtype)) for t in pickled if not t.tensor.is_floating_point()]
    for t, dtype in odd:
        if t.name.endswith(".weight"):
            raise BadInput(
                f"{t.where}: {t.name} has dtype {dtype}, and config.json names no quantisation; {OTHER_MODEL}"
            )


@dataclass(frozen=True)
class _Pickled:
    """A tensor of a pytorch_model.bin; `tensor` is mapped, and read when it is looked at."""

    name: str
    tensor: torch.Tensor
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)


def _pickled(model: Path) -> list[_Pickled]:
    """The tensors of a directory's pytorch_model*.bin, which are mapped and not read; this takes torch.

    Raises:
        BadInput: a file is torn, or two hold one tensor.
    """
    files = sorted(model.glob("pytorch_model*.bin"))
    if not files:
        return []
    from phase1.model.shards import load_shard

    found: dict[str, _Pickled] = {}
    for path in files:
        for name, tensor in load_shard(path).items():
            if name in found:
                raise BadInput(f"{path}: holds {name}, as {found[name].where} does; convert the model again")
            found[name] = _Pickled(name, tensor, str(path))
    return list(found.values())


def _same_head(stored: Mapping[str, Stored], pickled: Sequence[_Pickled]) -> bool:
    """Whether the second copy of the embedding is one, bit for bit."""
    if stored:
        return same_bytes(stored[HEAD], stored[EMBEDDING])
    import torch

    by_name = {t.name: t.tensor for t in pickled}
    return bool(torch.equal(by_name[HEAD], by_name[EMBEDDING]))


def _bad_pickled(pickled: Sequence[_Pickled]) -> BadValues:
    """As `find_bad_values`, of a pytorch_model.bin."""
    found = BadValues()
    for t in pickled:
        if not t.tensor.is_floating_point() or not t.tensor.numel():
            continue
        if not bool(t.tensor.isfinite().all()):
            found.not_finite.append(t.name)
        elif not bool(t.tensor.any()) and not t.name.endswith("bias"):
            found.zero.append(t.name)
    return found
