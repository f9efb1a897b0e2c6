"""Whether a model directory can be loaded: config, tokenizer and weights are there, whole, and of one model."""

from __future__ import annotations

import json
from pathlib import Path

from phase1.files import BadInput
from phase1.model.matches_config import check_model
from phase1.model.small_files import refuse_torn_json
from phase1.model.tokenizer import TOKENIZER_FILES
from phase1.model.weight_files import stored_tensors, weight_files


def model_problem(model: Path) -> str:
    """What keeps a Hugging Face directory from being loaded; empty where nothing does. Only headers are read."""
    for name in ("config.json", "tokenizer_config.json"):
        try:
            json.loads((model / name).read_text())
        except FileNotFoundError:
            return f"{model.name}/{name} is missing"
        except (OSError, ValueError) as e:
            return f"{model.name}/{name} is not readable ({e})"
    if not any((model / name).is_file() for name in TOKENIZER_FILES):
        return f"{model.name}/{TOKENIZER_FILES[0]} is missing"
    try:
        if not weight_files(model):
            return f"{model.name}/ has no whole safetensors (there is no model.safetensors)"
        stored_tensors(model)
    except (BadInput, OSError) as e:
        return f"{model.name}/ has no whole safetensors ({e})"
    try:
        check_model(model, compare_head=False, read_values=False)
        refuse_torn_json(model)
    except BadInput as e:
        return f"{model.name}/ cannot be loaded as it was trained ({e})"
    return ""
