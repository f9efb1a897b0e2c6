"""Preflight: what is in the model's folder."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path

from phase1.files import BadInput, read_json
from phase1.model.tokenizer import TOKENIZER_FILES, load_fast_tokenizer
from phase1.train.job import Job, how_to_set
from phase1.train.preflight.outcome import Outcome, passes, warns


def model(job: Job) -> Outcome:
    """Whether configuration, tokenizer, chat template and weights are there."""
    name, folder = job.text("model.partial_pretrain"), job.model_folder
    if folder is None:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
            return warns(f"{name} is not on this machine: every process will download it from the Hugging Face Hub")
        raise BadInput(f"{name}: no such model folder; {how_to_set('model.partial_pretrain')}")
    config = read_json(folder / "config.json")
    refuse_bad_tokenizer(folder)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        if Path(name).is_dir():
            raise BadInput(f"{folder}: no weights (*.safetensors); download the model again")
        return warns(
            f"{name}: only its small files are cached, every process will download the weights from the "
            "Hugging Face Hub"
        )
    refuse_missing_weights(folder)
    parameters = count_parameters(folder)
    size = f", {parameters / 1e6:,.1f}M parameters" if parameters else ""
    return passes(f"{', '.join(config.get('architectures') or ['?'])}{size} in {folder}")


def refuse_bad_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer, or whose tokenizer is broken or has no chat template.

    Raises:
        BadInput: names what is missing or broken.
    """
    if not any((folder / f).is_file() for f in TOKENIZER_FILES):
        raise BadInput(f"{folder}: no tokenizer beside config.json; copy the base model's tokenizer files there")
    if (folder / "tokenizer.json").is_file():
        load_fast_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    has_template = (folder / "chat_template.jinja").is_file()
    if not has_template and not (settings.is_file() and read_json(settings).get("chat_template")):
        raise BadInput(
            f"{folder}: its tokenizer has no chat template, which verl builds the rows with; train an instruct model"
        )


def refuse_missing_weights(folder: Path) -> None:
    """Refuse weights of which the index names a file that is not there.

    Raises:
        BadInput: names the files.
    """
    index = folder / "model.safetensors.index.json"
    named = read_json(index).get("weight_map", {}).values() if index.is_file() else ()
    missing = sorted({f for f in named if not (folder / f).is_file()})
    if missing:
        raise BadInput(f"{folder}: lacks {', '.join(missing)}, which {index.name} names; download the model again")


def count_parameters(folder: Path) -> int:
    """Parameters by the headers of the safetensors files, 0 where there are none.

    Raises:
        BadInput: a file is not whole.
    """
    total = 0
    for path in folder.glob("*.safetensors"):
        size = path.stat().st_size
        try:
            with open(path, "rb") as f:
                length = struct.unpack("<Q", f.read(8))[0]
                header = json.loads(f.read(length)) if length < size else {}
            tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
            end = 8 + length + max(tensor["data_offsets"][1] for tensor in tensors)
            total += sum(math.prod(tensor["shape"]) for tensor in tensors)
        except (struct.error, ValueError, KeyError, TypeError, AttributeError):
            end = -1
        if end != size:
            raise BadInput(
                f"{path}: not a whole safetensors file (a pointer of Git LFS, or a download cut short?); "
                "download the model again"
            )
    return total
