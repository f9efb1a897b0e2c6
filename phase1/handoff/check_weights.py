"""Checks of the files and the weights."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from phase1.contract.state.handoff import CheckResult
from phase1.files import BadInput, read_json, sha256_file
from phase1.handoff.handoff import Handoff, failed, not_run, verdict
from phase1.model.matches_config import check_model, dtype_findings, not_finite_text, zero_text
from phase1.model.shapes import HEAD
from phase1.model.tensors import Source, read_safetensors, side_by_side
from phase1.model.tokenizer import TOKENIZER_FILES
from phase1.model.values import find_bad_values
from phase1.model.weight_files import stored_tensors, weight_files

OWN_NORM = 1.0  # relative change of a layer beyond which it is hardly a fine-tune; training from random weights may


def check_files(h: Handoff) -> CheckResult:
    """Everything a reader needs is there, and is JSON where it must be."""
    present = sorted(p.name for p in h.model.iterdir() if p.is_file())
    failures = [f"no {name}" for name in ("config.json", "tokenizer_config.json") if name not in present]
    if not any(name in present for name in TOKENIZER_FILES):
        failures.append("no tokenizer.json")
    for name in present:
        if name.endswith(".json"):
            try:
                read_json(h.model / name)
            except BadInput as e:
                failures.append(str(e))
    if not any(name.endswith(".safetensors") for name in present):
        failures.append("no safetensors weights")
    warnings = []
    if "generation_config.json" not in present:
        warnings.append("no generation_config.json: the end-of-text ids of the base model are lost")
    for name in present:
        if re.fullmatch(r"pytorch_model.*\.bin", name):
            warnings.append(f"{name} beside the safetensors: readers may take either")
    return verdict("files", failures, warnings, f"{len(present)} files", files=present)


def check_weights_index(h: Handoff) -> CheckResult:
    """Headers and sizes of the weight files, the index against them, and the hash of every file."""
    held, files = stored_tensors(h.model), weight_files(h.model)
    warnings = []
    stray = sorted(p.name for p in h.model.glob("*.safetensors") if p not in files)
    if stray:
        warnings.append(f"{stray[0]} is named by no index")
    hashes = {p.name: sha256_file(p) for p in sorted(h.model.iterdir()) if p.is_file()}
    size = sum(p.stat().st_size for p in files)
    evidence = f"{len(held)} tensors, {len(files)} files, {size / 1e9:.3f} GB"
    return verdict("weights_index", [], warnings, evidence, sha256=hashes)


def check_dtype(h: Handoff) -> CheckResult:
    """The dtype on disk against the one that config.json tells readers."""
    floating = [str(s.dtype).removeprefix("torch.") for s in h.weights.values() if s.dtype.is_floating_point]
    found = dtype_findings(floating, sum(s.numel * s.dtype.itemsize for s in h.weights.values()), h.config)
    evidence = f"{', '.join(found.on_disk)} on disk and in config.json"
    return verdict("dtype", found.failures, found.warnings, evidence, on_disk=found.on_disk, stated=found.stated)


def check_parameters(h: Handoff) -> CheckResult:
    """Names and shapes are those of the architecture that config.json describes; the parameter count."""
    fit = check_model(h.model, read_values=False)
    warnings = [f"not compared: {fit.not_compared}"] if fit.not_compared else []
    if fit.has_tied_copy:
        warnings.append(f"a second copy of the tied embedding as {HEAD}; convert_fsdp_to_hf.py --slim drops it")
    evidence = f"{fit.parameters:,} parameters, {len(h.weights)} tensors as the config says"
    return verdict("parameters", [], warnings, evidence, parameters=fit.parameters)


def check_values(h: Handoff) -> CheckResult:
    """No NaN, no infinity, no tensor of zeros alone (biases may be zero: fresh models start so)."""
    values = find_bad_values(stored_tensors(h.model).values())
    failures = [not_finite_text(values)] if values.not_finite else []
    if values.zero:
        failures.append(zero_text(values.zero))
    return verdict("values", failures, [], f"all {len(h.weights)} tensors finite, none all zero")


def check_base_difference(h: Handoff) -> CheckResult:
    """What training moved: the relative change |w - base| / |base| of each layer. Identical weights were never
    trained."""
    if h.base is None:
        return not_run("base_difference", "no --base_model given")
    base = read_safetensors(h.base)
    if not base:
        return not_run("base_difference", f"{h.base} holds no safetensors")
    names = [name for name in h.weights if name in base and not (name == HEAD and h.tied)]
    odd = [name for name in names if base[name].shape != h.weights[name].shape]
    if odd:
        return failed("base_difference", f"{odd[0]} has another shape than the base model's")
    if not names:
        return failed("base_difference", "no tensor in common with the base model")
    moved = 0
    changed: dict[str, float] = {}
    norm: dict[str, float] = {}
    for name in names:
        squares = squared_difference(h.weights[name], base[name])
        moved += squares.difference > 0
        layer = re.search(r"layers\.\d+", name)
        group = layer[0] if layer else name
        changed[group] = changed.get(group, 0.0) + squares.difference
        norm[group] = norm.get(group, 0.0) + squares.base
    change = {g: math.sqrt(changed[g] / norm[g]) if norm[g] else math.inf for g in changed}
    top = max(change, key=lambda group: change[group])
    failures, warnings = [], []
    if not moved:
        failures.append("identical to the base model: nothing was trained")
    if change[top] > OWN_NORM:
        warnings.append(f"{top} moved by {change[top]:.1f}x its own norm: hardly a fine-tune of this base model")
    # A norm may stand still on its own: its weights lie near 1, where a small step vanishes in bf16.
    matrices = [name for name in names if len(h.weights[name].shape) > 1]
    still = [g for g, value in change.items() if value == 0 and any(g in name for name in matrices)]
    if still and moved:
        warnings.append(f"{len(still)} parts did not move, first {still[0]}")
    evidence = f"{moved} of {len(names)} tensors moved, most in {top} ({change[top]:.2%} of its norm)"
    return verdict("base_difference", failures, warnings, evidence, relative_change=dict(change))


class Squares(NamedTuple):
    """Sums of squares over a tensor: of its difference from the base model's, and of the base model's own."""

    difference: float
    base: float


def squared_difference(a: Source, base: Source) -> Squares:
    """How far a tensor moved, at the coarser of the two dtypes: an fp32 base and its bf16 copy are the same model."""
    coarse = min(a.dtype, base.dtype, key=lambda dtype: dtype.itemsize)
    difference = norm = 0.0
    for x, y in side_by_side(a, base, coarse):
        x, y = x.float(), y.float()
        difference += float(((x - y).double() ** 2).sum())
        norm += float((y.double() ** 2).sum())
    return Squares(difference, norm)
