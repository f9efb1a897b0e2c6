"""convert_fsdp_to_hf.py: bit-equal to verl's own merger for any world size; damaged shards are named, nothing
half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.tensor  # DTensors of the shards that are edited here; the module under test needs it not
from safetensors.torch import load_file, save_file

import convert_fsdp_to_hf as convert
from phase1.files import BadInput
from phase1.model import shapes as model_shapes
from phase1.model import shards
from phase1.model.small_files import export_config
from phase1.model.weight_files import weight_files

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "w1_tied",
    "w1_untied",
    "w2_tied",
    "w2_untied",
    "w2_fsdp1",
    "w4_tied",
    "w4_untied",
    "w4_columns",
    "w4_hsdp",
    "w8_tied",
    "w8_untied",
]
LATEST = (
    Path(os.environ.get("VENV_LATEST", ROOT / ".venv-latest")) / "bin/python"
)  # verl 0.9.1 and transformers 5; setup_cpu.sh says how to make it
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    subprocess.run(
        [sys.executable, ROOT / "data/samples/build_model.py", "--output_dir", folder],
        check=True,
        env=ENVIRONMENT,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def saved(base, tmp_path_factory) -> Path:
    """Checkpoints of verl 0.7.0's FSDPCheckpointManager and the merges of its FSDPModelMerger."""
    return checkpoints(sys.executable, base, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="session")
def saved_latest(base, tmp_path_factory) -> Path:
    """The same of verl 0.9.1 under transformers 5."""
    if not LATEST.exists():
        pytest.skip(
            f"{LATEST} is not there: REQUIREMENTS=requirements-latest-cpu.txt VENV=$PWD/.venv-latest bash setup_cpu.sh"
        )
    return checkpoints(LATEST, base, tmp_path_factory.mktemp("saved_latest"))


def checkpoints(python, base: Path, folder: Path) -> Path:
    done = subprocess.run(
        [python, ROOT / "tests/model/make_fsdp_checkpoints.py", base, folder],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def run(monkeypatch, *args) -> int:
    monkeypatch.setattr(sys, "argv", ["convert_fsdp_to_hf.py", *map(str, args)])
    return convert.main()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for p in sorted(folder.glob("*.safetensors")) for k, v in load_file(p).items()}


def same(a: dict, b: dict) -> bool:
    return set(a) == set(b) and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("writer", ["saved", "saved_latest"])
def test_conversion_is_bit_equal_to_verls_merger_and_to_huggingface(request, tmp_path, monkeypatch, writer, name):
    folder = request.getfixturevalue(writer) / name
    step = folder / "global_step_5"
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf", "--verify") == 0
    mine, merged, own = weights(tmp_path / "hf"), weights(folder / "merged"), weights(step / "huggingface")
    own = {k: v.bfloat16() for k, v in own.items()}
    if json.loads((tmp_path / "hf/config.json").read_text())["tie_word_embeddings"]:
        assert "lm_head.weight" not in mine  # verl 0.7.0 writes it for a tied model; readers drop it
        for other in (merged, own):
            other.pop("lm_head.weight", None)
    assert len(mine) >= 26 and same(mine, merged)
    assert same(mine, own) or (name == "w2_fsdp1" and not own)


@pytest.mark.slow
def test_transformers_4_and_5_read_equal_logits_from_conversions_of_both_verl_versions(
    saved, saved_latest, tmp_path, monkeypatch
):
    """Eight readings each of a tied and an untied model: both writers' conversion and huggingface/, by both readers."""
    kinds = [(writer, name) for writer in ("saved", "saved_latest") for name in ("w4_tied", "w4_untied")]
    step = {k: {"saved": saved, "saved_latest": saved_latest}[k[0]] / k[1] / "global_step_5" for k in kinds}
    for kind in kinds:
        run(monkeypatch, "--ckpt_dir", step[kind], "--output_dir", tmp_path / "-".join(kind))
    converted = {k: str(tmp_path / "-".join(k)) for k in kinds}
    four, five = (
        read(python, [*converted.values(), *(str(step[k] / "huggingface") for k in kinds)])
        for python in (sys.executable, LATEST)
    )
    assert {r["version"][0] for r in four.values()} == {"4"} and {r["version"][0] for r in five.values()} == {"5"}
    for kind in kinds:
        mine, own = converted[kind], str(step[kind] / "huggingface")
        assert four[mine]["logits"] == five[mine]["logits"] == five[own]["logits"], kind
        assert four[mine]["ids"] == five[mine]["ids"] == five[own]["ids"], kind
        # What the issue is about: 4.57 reads rope_theta 10000 from the huggingface/ that transformers 5 wrote.
        assert (four[own]["logits"] == four[mine]["logits"]) == (kind[0] == "saved"), kind
    assert len({five[converted[k]]["logits"] for k in kinds}) >= 2  # tied and untied differ: the digests say something


def read(python, folders: list[str]) -> dict[str, dict]:
    done = subprocess.run(
        [python, ROOT / "tests/handoff/read_model.py", *folders],
        env=ENVIRONMENT | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


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


def test_many_small_files_hold_the_same_weights_and_an_index(saved, tmp_path, monkeypatch):
    step = saved / "w2_untied/global_step_5"
    run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf", "--max_shard_size", "60KB", "--verify")
    files = sorted(p.name for p in (tmp_path / "hf").glob("*.safetensors"))
    index = json.loads((tmp_path / "hf/model.safetensors.index.json").read_text())
    assert len(files) > 3 and set(index["weight_map"].values()) == set(files)
    assert same(weights(tmp_path / "hf"), weights(saved / "w2_untied/merged"))
    assert index["metadata"]["total_size"] == sum(v.numel() * 2 for v in weights(tmp_path / "hf").values())
    from transformers import AutoModelForCausalLM

    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize(
    ("config", "theta"),
    [
        ({"rope_theta": 1e6, "rope_scaling": None}, 1e6),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 1e6),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, 5e5),
        ({"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 1e6),
    ],
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


def test_what_huggingface_lacks_comes_from_the_base_model(saved, base, tmp_path, monkeypatch):
    step = copy(saved, tmp_path)
    for path in (step / "huggingface").iterdir():
        if path.name != "config.json":
            path.unlink()
    with pytest.raises(BadInput, match="tokenizer_config.json: no such file; give --base_model"):
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf")
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf", "--base_model", base) == 0
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "hf" / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((tmp_path / "hf/config.json").read_text())["vocab_size"] == 1031  # the checkpoint's own


def test_neither_fsdp_config_nor_hf_weights_are_needed_and_the_broken_directory_can_be_replaced(
    saved, tmp_path, monkeypatch
):
    step = copy(saved, tmp_path)
    (step / "fsdp_config.json").unlink()
    (step / "huggingface/model.safetensors").write_bytes(b"torn")
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", step / "huggingface", "--overwrite") == 0
    assert len(weights(step / "huggingface")) == 27 and (step / "huggingface/tokenizer.json").exists()


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_bad_input(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BadInput, match=r"index.json: does not name a file"):
        weight_files(tmp_path)


def test_slim_halves_an_fp32_directory_in_place(saved, tmp_path, monkeypatch):
    folder = copy(saved, tmp_path, "w2_tied") / "huggingface"
    before = weights(folder)
    assert {v.dtype for v in before.values()} == {torch.float32}
    size = (folder / "model.safetensors").stat().st_size
    assert run(monkeypatch, "--slim", folder, "--verify") == 0
    assert same(weights(folder), {k: v.bfloat16() for k, v in before.items() if k != "lm_head.weight"})
    assert (folder / "model.safetensors").stat().st_size < 0.52 * size
    assert not list(folder.parent.glob(".huggingface*"))


@pytest.mark.slow
def test_under_torchrun_one_rank_works_and_the_others_leave(saved, tmp_path):
    command = ["--ckpt_dir", str(saved / "w2_tied/global_step_5"), "--output_dir", str(tmp_path / "hf")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node=4",
            str(ROOT / "convert_fsdp_to_hf.py"),
            *command,
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("written:") == 1 and len(weights(tmp_path / "hf")) == 26


def copy(saved: Path, tmp_path: Path, name: str = "w2_untied") -> Path:
    return Path(shutil.copytree(saved / name / "global_step_5", tmp_path / "ckpt/global_step_5"))


def shard(step: Path, rank: int) -> Path:
    return next(step.glob(f"model_world_size_*_rank_{rank}.pt"))


def edit(path: Path, change) -> None:
    """Load a shard as torch saved it, change the dict, save it again."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch ran",)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def swap(step: Path) -> None:
    a, b = shard(step, 0), shard(step, 1)
    a.rename(step / "x")
    b.rename(a)
    (step / "x").rename(b)


def other_step(step: Path) -> None:
    path = step / "extra_state_world_size_2_rank_1.pt"
    state = torch.load(path, weights_only=False)
    state["lr_scheduler"]["last_epoch"] = 4
    torch.save(state, path)


def foreign_config(step: Path, **changes) -> None:
    path = step / "huggingface/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_head(state: dict) -> None:
    state["lm_head.weight"].to_local()[0, 0] += 1.0


DAMAGE = {
    "truncated": (lambda s, saved: truncate(shard(s, 1)), "model_world_size_2_rank_1.pt: not a whole shard"),
    "empty": (lambda s, saved: shard(s, 0).write_bytes(b""), "model_world_size_2_rank_0.pt: not a whole shard"),
    "garbage": (lambda s, saved: shard(s, 1).write_bytes(os.urandom(5000)), "rank_1.pt: not a whole shard"),
    "missing": (lambda s, saved: shard(s, 1).unlink(), "model_world_size_2_rank_1.pt: missing, with 1 of 2 shards"),
    "other world size": (
        lambda s, saved: shutil.copy(shard(saved / "w4_tied/global_step_5", 3), s),
        "world sizes 2 and 4",
    ),
    "rank too high": (
        lambda s, saved: shutil.copy(shard(s, 0), s / "model_world_size_2_rank_2.pt"),
        "rank 2 of a world of 2",
    ),
    "ranks swapped": (lambda s, saved: swap(s), "rank_0.pt: was written by rank 1"),
    "one rank twice": (lambda s, saved: shutil.copy(shard(s, 0), shard(s, 1)), "rank_1.pt: was written by rank 0"),
    "from another world size": (
        lambda s, saved: shutil.copy(shard(saved / "w4_untied/global_step_5", 1), shard(s, 1)),
        "model_world_size_2_rank_",
    ),
    "mixed steps": (lambda s, saved: other_step(s), "of step 5, others are of step 4"),
    "folder of another step": (
        lambda s, saved: (
            other_step(s)
            or shutil.copy(s / "extra_state_world_size_2_rank_1.pt", s / "extra_state_world_size_2_rank_0.pt")
        ),
        "of step 4 in a folder named global_step_5",
    ),
    "not a dict": (lambda s, saved: torch.save([1, 2], shard(s, 0)), "rank_0.pt: not a model's state dict"),
    "an optimizer's": (
        lambda s, saved: torch.save({"state": {}, "param_groups": []}, shard(s, 1)),
        "rank_1.pt: not a model's state dict",
    ),
    "lacks a tensor": (
        lambda s, saved: edit(shard(s, 1), lambda d: d.pop("model.norm.weight")),
        "rank_1.pt: lacks model.norm.weight",
    ),
    "tensor of another dtype": (
        lambda s, saved: edit(
            shard(s, 1), lambda d: d.update({"model.norm.weight": d["model.norm.weight"].bfloat16()})
        ),
        "rank_1.pt: model.norm.weight is torch.bfloat16",
    ),
    "plain tensor among DTensors": (
        lambda s, saved: edit(shard(s, 1), lambda d: d.update({"model.norm.weight": torch.ones(24)})),
        "rank_1.pt: model.norm.weight is (24,)",
    ),
    "lora": (
        lambda s, saved: [edit(shard(s, r), lambda d: d.update({"x.lora_A.weight": torch.ones(2)})) for r in (0, 1)],
        "holds LoRA adapters",
    ),
    "another model's config": (
        lambda s, saved: foreign_config(s, vocab_size=2000),
        "says (2000, 48); the shards are of another model",
    ),
    "deeper config": (
        lambda s, saved: foreign_config(s, num_hidden_layers=3, layer_types=["full_attention"] * 3),
        "lacks model.layers.2.",
    ),
    "shallower config": (
        lambda s, saved: foreign_config(s, num_hidden_layers=1, layer_types=["full_attention"]),
        "holds model.layers.1.",
    ),
    "unknown architecture": (lambda s, saved: foreign_config(s, model_type="nonesuch"), "transformers cannot build"),
    "tied by name only": (
        lambda s, saved: foreign_config(s, tie_word_embeddings=True) or edit(shard(s, 0), flip_head),
        "were trained apart",
    ),
    "config no object": (
        lambda s, saved: (s / "huggingface/config.json").write_text("[]"),
        "config.json: a JSON list, not an object",
    ),
    "config without sizes": (
        lambda s, saved: foreign_config(s, vocab_size="many"),
        "config.json: transformers cannot build",
    ),
    "no config": (
        lambda s, saved: (s / "huggingface/config.json").unlink(),
        "config.json: no such file; give --base_model",
    ),
    "no huggingface": (
        lambda s, saved: shutil.rmtree(s / "huggingface"),
        "config.json: no such file; give --base_model",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_shards_are_named_and_nothing_is_written(saved, tmp_path, monkeypatch, kind):
    step = copy(saved, tmp_path)
    harm, message = DAMAGE[kind]
    harm(step, saved)
    with pytest.raises(BadInput) as e:
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "out/hf")
    assert message in str(e.value) and "\n" not in str(e.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_mixed_steps_are_seen_in_checkpoints_of_another_numpy_too(saved_latest, tmp_path, monkeypatch):
    step = copy(saved_latest, tmp_path)
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf") == 0
    other_step(step)
    with pytest.raises(BadInput, match="of step 5, others are of step 4"):
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf2")


def test_a_shard_that_would_run_code_is_refused_unrun(saved, tmp_path, monkeypatch):
    step = copy(saved, tmp_path)
    torch.save({"model.norm.weight": torch.ones(2), "x": RunsCode()}, shard(step, 1))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="rank_1.pt: holds posix.system beside tensors"):
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf")
    assert not (tmp_path / "ran").exists()


def test_verify_finds_one_changed_weight_and_publishes_nothing(saved, tmp_path, monkeypatch, capsys):
    step = copy(saved, tmp_path)
    changed = weights(step / "huggingface")
    changed["model.layers.1.mlp.up_proj.weight"][7, 3] += 0.5
    save_file(changed, step / "huggingface/model.safetensors", metadata={"format": "pt"})
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "out/hf", "--verify") == 1
    assert "model.layers.1.mlp.up_proj.weight: element 339 differs from huggingface/" in capsys.readouterr().out
    assert list((tmp_path / "out").iterdir()) == []


def test_verify_takes_the_shards_alone_where_huggingface_is_broken(saved, tmp_path, monkeypatch, capsys):
    step = copy(saved, tmp_path)
    truncate(step / "huggingface/model.safetensors")
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf", "--verify") == 0
    assert "compared with the shards alone, since" in capsys.readouterr().err
    assert same(weights(tmp_path / "hf"), weights(saved / "w2_untied/merged"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 1, "vocab_size": 1031},
        {"head_dim": 20, "num_hidden_layers": 3, "layer_types": None},
    ],
)
def test_the_shapes_of_a_qwen2_configuration_are_those_that_transformers_builds(base, changes):
    config = json.loads((base / "config.json").read_text()) | changes
    path = base / "config.json"
    theirs = model_shapes.shapes_of_transformers(config, path)
    if config["tie_word_embeddings"]:
        theirs.pop("lm_head.weight")
    mine = model_shapes.model_shapes(config, path)
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
    shapes = model_shapes.model_shapes(config, tmp_path / "config.json")
    assert shapes["lm_head.weight"] == (40, 16) and "model.layers.0.self_attn.q_proj.bias" not in shapes


def test_an_existing_output_is_not_overwritten_unasked(saved, tmp_path, monkeypatch):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="exists"):
        run(monkeypatch, "--ckpt_dir", saved / "w1_tied/global_step_5", "--output_dir", tmp_path / "hf")
    assert (tmp_path / "hf/mine.txt").read_text() == "keep"


def test_a_full_disk_is_told_before_anything_is_written(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(BadInput, match="GB free, the model needs"):
        run(monkeypatch, "--ckpt_dir", saved / "w1_tied/global_step_5", "--output_dir", tmp_path / "hf")


def test_the_wrong_folder_is_told_with_the_right_one(saved, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="did you mean .*global_step_5"):
        run(monkeypatch, "--ckpt_dir", saved / "w1_tied", "--output_dir", tmp_path / "hf")


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("512MiB", 512 << 20), ("1.5kb", 1500), ("77", 77)])
def test_sizes_are_read_as_transformers_reads_them(text, size):
    assert convert.size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "5 apples", "-1GB", "0"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadInput):
        convert.size_in_bytes(text)


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
