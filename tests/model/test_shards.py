"""phase1/model/shards.py: shards of every torch are read alike, whole and split tensors told apart."""

import pytest
import torch

from phase1.files import BadInput
from phase1.model import shards
from tests.model.fsdp_shards import copy, run, same, swap, weights


def mesh_of_torch(version: str, mesh):
    """`mesh` with the attributes that torch's DeviceMesh of that version pickles; its classes take no other
    version's."""
    ranks = mesh.mesh
    common = {"_thread_id": None, "_dim_group_names": ["0"], "_hash": None}
    if version == "2.9":  # torch/distributed/device_mesh.py of 2.9.0
        state = {
            "device_type": "cpu",
            "mesh": ranks,
            "mesh_dim_names": mesh.mesh_dim_names,
            "_flatten_mesh_list": tuple(ranks.flatten().tolist()),
            "_coordinate_on_dim": list(mesh.get_coordinate()),
        }
    else:  # of 2.11.0, with its _mesh_layout.py
        layout = object.__new__(type(mesh._layout))
        layout.__dict__.update(shape=tuple(ranks.shape), stride=ranks.stride())
        state = {
            "_device_type": "cpu",
            "_layout": layout,
            "_rank_map": ranks.flatten(),
            "_mesh_dim_names": mesh.mesh_dim_names,
            "_root_mesh": None,
            "_flatten_rank_map": tuple(ranks.flatten().tolist()),
            "_flatten_mapping": {},
            "_rank": mesh._rank,
            "_coordinate_on_dim": mesh.get_coordinate(),
        }
    made = object.__new__(type(mesh))
    made.__dict__.update(state | common)
    return made


@pytest.mark.parametrize("version", ["2.9", "2.11"])
@pytest.mark.parametrize("name", ["w2_tied", "w4_columns", "w4_hsdp"])
def test_shards_of_another_torch_are_read_and_swapped_ones_are_seen(saved, tmp_path, monkeypatch, version, name):
    """The training machine's torch is the one that its vLLM pins (2.9.0, 2.11.0), the one here another (2.13)."""
    step = copy(saved, tmp_path, name)
    for path in step.glob("model_world_size_*.pt"):
        state = torch.load(path, weights_only=True)
        mesh = mesh_of_torch(version, next(iter(state.values())).device_mesh)
        for tensor in state.values():
            tensor._spec.mesh = mesh
        torch.save(state, path)
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf") == 0
    merged = weights(saved / name / "merged")
    mine = weights(tmp_path / "hf")
    assert len(mine) >= 26 and same(mine, {k: merged[k] for k in mine})
    swap(step)
    with pytest.raises(BadInput, match="rank_0.pt: was written by rank 1"):
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf2")


@pytest.mark.parametrize(
    ("other", "message"),
    [(torch.ones(48), None), (torch.full((48,), 2.0), "another than in model_world_size_2_rank_0.pt")],
    ids=["equal copies", "different copies"],
)
def test_a_plain_tensor_of_the_models_shape_is_one_whole_copy_a_rank(tmp_path, other, message):
    """verl 0.9.1's merger keeps one copy and refuses different ones; 0.7.0's joins them to a tensor of twice the
    size."""
    for rank, value in enumerate((torch.ones(48), other)):
        torch.save({"norm": value}, tmp_path / f"model_world_size_2_rank_{rank}.pt")
    paths = shards.find_shards(tmp_path)
    if message:
        with pytest.raises(BadInput, match=f"rank_1.pt: norm is {message}"):
            shards.read_shards(paths, lambda: {"norm": (48,)})
    else:
        assert shards.read_shards(paths, lambda: {"norm": (48,)})["norm"].shape == (48,)
        assert shards.read_shards(paths, lambda: {"norm": (96,)})["norm"].shape == (96,)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_pieces_larger_than_a_chunk_come_back_in_order(monkeypatch, dim):
    monkeypatch.setattr(shards, "CHUNK", 64)
    whole = torch.arange(7 * 6 * 5.0).reshape(7, 6, 5)
    pieces = list(whole.split(2, dim=dim))
    chunks = list(shards._rows(pieces) if dim == 0 else shards._columns(pieces, (7, 6, 5), dim))
    assert torch.equal(torch.cat(chunks), whole.reshape(-1)) and len(chunks) > 5


def test_plain_tensors_are_joined_along_the_first_dimension(tmp_path):
    whole = {"a": torch.randn(7, 3), "b": torch.randn(5)}
    for rank, rows in enumerate((slice(0, 4), slice(4, None))):
        torch.save({k: v[rows].clone() for k, v in whole.items()}, tmp_path / f"model_world_size_2_rank_{rank}.pt")
    sources = shards.read_shards(shards.find_shards(tmp_path))
    assert {k: s.shape for k, s in sources.items()} == {"a": (7, 3), "b": (5,)}
    assert all(torch.equal(torch.cat(list(sources[k].chunks())), v.reshape(-1)) for k, v in whole.items())
