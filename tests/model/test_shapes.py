"""phase1/model/shapes.py against transformers."""

import json

import pytest

from phase1.model.shapes import model_shapes, shapes_of_transformers


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 1, "vocab_size": 1031},
        {"head_dim": 20, "num_hidden_layers": 3, "layer_types": None},
    ],
    ids=["tied", "untied", "one kv head", "own head_dim"],
)
def test_the_shapes_of_a_qwen2_configuration_are_those_that_transformers_builds(base_model, changes):
    config = json.loads((base_model / "config.json").read_text()) | changes
    path = base_model / "config.json"
    theirs = shapes_of_transformers(config, path)
    if config["tie_word_embeddings"]:
        theirs.pop("lm_head.weight")
    mine = model_shapes(config, path)
    assert mine == theirs and len(mine) > 20


def test_another_family_is_asked_of_transformers(tmp_path):
    config = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    shapes = model_shapes(config, tmp_path / "config.json")
    assert shapes["lm_head.weight"] == (40, 16) and "model.layers.0.self_attn.q_proj.bias" not in shapes
