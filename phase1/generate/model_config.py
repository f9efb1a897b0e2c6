"""What a model's own configuration files say of its answers: where they end, and how much context it can take."""

from __future__ import annotations

from pathlib import Path

from phase1.files import read_json
from phase1.model.tokenizer import Tokenizer


def stop_ids(model_path: Path, tokenizer: Tokenizer) -> list[int]:
    """The ids that end an answer: the model's own (generation_config.json, else config.json) and the tokenizer's."""
    return sorted({i for i in (*own_stop_ids(model_path), tokenizer.eos_token_id) if isinstance(i, int)})


def own_stop_ids(model_path: Path) -> list[int]:
    """The ids at which other readers stop: generation_config.json's, else config.json's; empty where neither says."""
    own = _setting(model_path / "generation_config.json", "eos_token_id")
    if own is None:
        own = _setting(model_path / "config.json", "eos_token_id")
    return [i for i in (own if isinstance(own, list) else [own]) if isinstance(i, int)]


def context_limit(model_path: Path, max_model_len: int) -> int:
    """Tokens of prompt and answer together: `max_model_len`, or what config.json allows, if that is less."""
    allowed = _setting(model_path / "config.json", "max_position_embeddings")
    return min(max_model_len, allowed) if isinstance(allowed, int) and allowed else max_model_len


def _setting(path: Path, key: str) -> object:
    """A value in a JSON file; None where the file or the key is missing."""
    value = read_json(path) if path.exists() else {}
    return value.get(key) if isinstance(value, dict) else None
