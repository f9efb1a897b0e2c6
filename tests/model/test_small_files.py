"""phase1/model/small_files.py: what lies beside the weights."""

import json

import pytest

from phase1.files import BadInput
from phase1.model.small_files import export_config, small_files


@pytest.mark.parametrize(
    ("config", "theta"),
    [
        ({"rope_theta": 1e6, "rope_scaling": None}, 1e6),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 1e6),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, 5e5),
        ({"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 1e6),
    ],
    ids=["form of 4", "form of 5", "both", "scaled"],
)
def test_the_config_carries_rope_in_both_forms_and_the_dtype_under_both_names(tmp_path, config, theta):
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = export_config(tmp_path / "config.json", "bfloat16")
    assert out["rope_theta"] == out["rope_parameters"]["rope_theta"] == theta
    assert out["dtype"] == out["torch_dtype"] == "bfloat16"
    assert out["rope_parameters"]["rope_type"] == ("yarn" if config.get("rope_scaling") else "default")
    assert bool(out["rope_scaling"]) == bool(config.get("rope_scaling"))


def test_contradicting_rope_settings_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 1000000.0}}')
    with pytest.raises(BadInput, match="rope_theta 10000.0 but rope_parameters"):
        export_config(tmp_path / "config.json", "bfloat16")


def test_the_checkpoints_own_files_win_and_the_base_model_gives_the_rest(base_model, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "own"}')
    (tmp_path / "generation_config.json").write_text("")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    found = small_files(tmp_path, str(base_model))
    assert {name for name, path in found.items() if path.parent == tmp_path} == {"config.json", "tokenizer_config.json"}
    assert found["generation_config.json"].parent == base_model  # the checkpoint's own is empty
    assert "chat_template.jinja" not in found  # it would win over the checkpoint's own template
    assert not [name for name in found if name.endswith(".safetensors")]


def test_a_base_model_that_is_nowhere_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="neither a directory nor a Hub model"):
        small_files(tmp_path, "nobody/nothing")
