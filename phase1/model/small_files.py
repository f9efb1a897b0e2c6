"""What lies beside the weights in a Hugging Face directory: config, tokenizer, chat template, generation settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import JsonValue

from phase1.files import BadInput, read_json
from phase1.model.hub import local_model
from phase1.model.tokenizer import TOKENIZER_FILES

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")
GIVE_BASE = "give --base_model, the model that training started from"


def small_files(origin: Path, base_model: str | None) -> dict[str, Path]:
    """The files to copy beside converted weights, by name: those of `origin`, the missing ones of the base model.

    A missing generation_config.json is a warning on stderr.

    Raises:
        BadInput: both lack config or tokenizer, or there is no such base model.
    """
    found: dict[str, Path] = {}
    base = local_model(base_model, download_small_files=True) if base_model else None
    for folder in (base, origin):
        if folder is None or not folder.is_dir():
            continue
        own = {p.name: p for p in folder.iterdir() if _is_small(p)}
        if "tokenizer_config.json" in own and "chat_template" in read_object(own["tokenizer_config.json"]):
            found.pop("chat_template.jinja", None)  # the base model's file would win over the checkpoint's own template
        found |= own
    for need in ("config.json", "tokenizer_config.json"):
        if need not in found:
            raise BadInput(f"{origin / need}: no such file; {GIVE_BASE}")
    if not any(name in found for name in TOKENIZER_FILES):
        raise BadInput(f"{origin / TOKENIZER_FILES[0]}: no such file; {GIVE_BASE}")
    if "generation_config.json" not in found:
        print(
            f"warning: {origin / 'generation_config.json'}: no such file, so readers take the end-of-text id from "
            "config.json alone; --base_model would supply it",
            file=sys.stderr,
        )
    return found


def _is_small(path: Path) -> bool:
    """Whether a file is no weights; an emptied JSON file counts as missing."""
    if not path.is_file() or any(path.match(pattern) for pattern in WEIGHTS):
        return False
    return path.suffix != ".json" or path.stat().st_size > 0


def read_object(path: Path) -> dict[str, JsonValue]:
    """The JSON object in `path`. BadInput where it holds another kind of value, or none."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(f"{path}: a JSON {type(value).__name__}, not an object; copy it from the base model")
    return cast(dict[str, JsonValue], value)


def refuse_torn_json(model: Path) -> None:
    """Refuse a model directory of whose JSON files one is torn: readers may pass over it without a word.

    Vocabularies are left to the tokenizer's loading, which says more.

    Raises:
        BadInput: names file and line.
    """
    for path in sorted(model.glob("*.json")):
        if path.name not in TOKENIZER_FILES:
            read_json(path)


def export_config(path: Path, dtype: str) -> dict[str, JsonValue]:
    """config.json with the dtype that is written, under both names, and the rope settings in both forms.

    transformers 5 writes `rope_parameters` and no `rope_theta`; a 4.x reader then takes 10000 for 1e6 without a word.

    Args:
        path: the config.json of the model that is converted.
        dtype: torch's name of it, `bfloat16`.

    Raises:
        BadInput: both forms are there and contradict each other.
    """
    config = read_object(path)
    config["torch_dtype"] = config["dtype"] = dtype
    theta, inner = rope_theta(config)
    if theta is not None and inner is not None and theta != inner:
        raise BadInput(
            f"{path}: rope_theta {theta} but rope_parameters.rope_theta {inner}; keep the one that was trained"
        )
    theta = inner if theta is None else theta
    if theta is None:
        return config
    parameters = _object(config, "rope_parameters")
    scaling = _object(config, "rope_scaling") or {k: v for k, v in parameters.items() if k != "rope_theta"}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    config["rope_theta"] = theta
    config["rope_parameters"] = {"rope_type": kind, **scaling, "rope_theta": theta}
    config["rope_scaling"] = scaling if kind != "default" else None
    return config


class RopeTheta(NamedTuple):
    """The base of the rotary embedding as config.json has it: `flat` is transformers 4's form, `nested` 5's."""

    flat: float | None
    nested: float | None


def rope_theta(config: Mapping[str, JsonValue]) -> RopeTheta:
    """Both forms of the base of the rotary embedding; None where the config lacks one."""
    found = (config.get("rope_theta"), _object(config, "rope_parameters").get("rope_theta"))
    flat, nested = (value if isinstance(value, int | float) else None for value in found)
    return RopeTheta(flat, nested)


def _object(config: Mapping[str, JsonValue], key: str) -> dict[str, JsonValue]:
    """The object under `key`; empty where there is none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}
