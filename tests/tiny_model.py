"""The smallest model whose weights fit its configuration: a Qwen2 of one layer and 8 tokens."""

import json
import math
import struct
from pathlib import Path

from phase1.model.shapes import expected_tensors

CONFIG: dict[str, object] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 8,
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def write_tiny_model(folder: Path, **changes: object) -> None:
    """config.json, with these changes, and model.safetensors in `folder`, which exists; needs no torch."""
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    write_float32(folder / "model.safetensors", tiny_shapes(**changes))


def tiny_shapes(**changes: object) -> dict[str, tuple[int, ...]]:
    """The shapes of that model's tensors by name."""
    return expected_tensors(CONFIG | changes, Path("config.json")).needed


def write_float32(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of float32 tensors with these shapes by name: a 1, then zeros."""
    header: dict[str, dict] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)  # sparse: a 7B takes no room either
        for entry in header.values():
            f.seek(8 + len(text) + entry["data_offsets"][0])
            f.write(struct.pack("<f", 1.0))
