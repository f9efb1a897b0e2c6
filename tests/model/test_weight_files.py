"""phase1/model/weight_files.py and loadable.py: which weight files there are, and whether they are whole."""

import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from phase1.files import BadInput
from phase1.model.loadable import model_problem
from phase1.model.weight_files import count_parameters, read_header, stored_tensors, weight_files


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_bad_input(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BadInput, match=r"index.json: does not name a file"):
        weight_files(tmp_path)


def test_headers_are_those_that_the_safetensors_library_wrote(tmp_path):
    tensors = {"a": torch.ones(3, 4, dtype=torch.bfloat16), "b": torch.arange(5), "c": torch.tensor(1.0)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    header, content = read_header(path), path.read_bytes()
    assert {name: entry.shape for name, entry in header.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    for name, tensor in tensors.items():
        entry = header[name]
        assert content[entry.start : entry.stop] == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert count_parameters(tmp_path) == 3 * 4 + 5 + 1


@pytest.mark.parametrize(
    "header",
    [
        '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [1]}}',
        '{"a": [0, 4]}',
        "[]",
        "{",
    ],
    ids=["wrong size", "unknown dtype", "no offsets", "no object", "a list", "torn"],
)
def test_a_header_that_makes_no_sense_is_bad_input(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
    with pytest.raises(BadInput, match="model.safetensors: not a whole safetensors file"):
        read_header(path)


@pytest.mark.parametrize("cut", [1, 4, 5000])
def test_a_file_that_is_cut_short_is_bad_input(base_model, tmp_path, cut):
    path = tmp_path / "model.safetensors"
    path.write_bytes((base_model / "model.safetensors").read_bytes()[:-cut])
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        read_header(path)


def no_tokenizer(model):
    for name in ("tokenizer.json", "vocab.json"):
        (model / name).unlink()


def test_a_whole_model_has_no_problem(base_model):
    assert model_problem(base_model) == ""
    assert count_parameters(base_model) == sum(t.numel() for t in load_file(base_model / "model.safetensors").values())


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda m: (m / "config.json").unlink(), "huggingface/config.json is missing"),
        (lambda m: (m / "tokenizer_config.json").write_text("{"), "huggingface/tokenizer_config.json is not readable"),
        (no_tokenizer, "huggingface/tokenizer.json is missing"),
        (lambda m: (m / "model.safetensors").unlink(), "huggingface/ has no whole safetensors"),
        (lambda m: (m / "model.safetensors").write_bytes(b"cut"), "huggingface/ has no whole safetensors"),
    ],
    ids=["no config", "torn tokenizer config", "no tokenizer", "no weights", "torn weights"],
)
def test_what_keeps_a_model_from_being_loaded_is_told(base_model, tmp_path, harm, problem):
    model = shutil.copytree(base_model, tmp_path / "huggingface")
    harm(model)
    assert model_problem(model).startswith(problem)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "old.safetensors"])
def test_a_second_file_without_an_index_which_vllm_alone_would_load_is_refused(base_model, tmp_path, name):
    for file in ("model.safetensors", name):
        shutil.copy(base_model / "model.safetensors", tmp_path / file)
    with pytest.raises(BadInput, match=f"{name}: beside model.safetensors and in no index"):
        stored_tensors(tmp_path)
