"""phase1/model/shapes.py against transformers."""

import json

import pytest

from phase1.model.shapes import expected_by_transformers, expected_tensors


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
    mine, theirs = expected_tensors(config, path), expected_by_transformers(config, path)
    assert (mine.needed, mine.optional) == (theirs.needed, theirs.optional) and len(mine.needed) > 20


def test_another_family_is_asked_of_transformers(tmp_path):
    config = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    shapes = expected_tensors(config, tmp_path / "config.json").needed
    assert shapes["lm_head.weight"] == (40, 16) and "model.layers.0.self_attn.q_proj.bias" not in shapes
