"""convert_fsdp_to_hf.py: bit-equal to verl's own merger for any world size; nothing half-written."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import convert_fsdp_to_hf as convert
from phase1.files import BadInput
from tests.conftest import ROOT
from tests.model.conftest import ENVIRONMENT, LATEST
from tests.model.fsdp_shards import copy, run, same, truncate, weights

NAMES = [
    "w1_tied",
    "w2_tied",
    "w2_untied",
    "w2_fsdp1",
    "w4_tied",
    "w4_untied",
    "w4_columns",
    "w4_hsdp",
    "w8_tied",
]


@pytest.mark.slow
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
        [python, ROOT / "tests/model/read_model.py", *folders],
        env=ENVIRONMENT | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


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


def test_what_huggingface_lacks_comes_from_the_base_model(saved, base_model, tmp_path, monkeypatch):
    step = copy(saved, tmp_path)
    for path in (step / "huggingface").iterdir():
        if path.name != "config.json":
            path.unlink()
    with pytest.raises(BadInput, match="tokenizer_config.json: no such file; give --base_model"):
        run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf")
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf", "--base_model", base_model) == 0
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "hf" / name).read_bytes() == (base_model / name).read_bytes()
    assert json.loads((tmp_path / "hf/config.json").read_text())["vocab_size"] == 1031  # the checkpoint's own


def test_neither_fsdp_config_nor_hf_weights_are_needed_and_the_broken_directory_can_be_replaced(
    saved, tmp_path, monkeypatch
):
    step = copy(saved, tmp_path)
    (step / "fsdp_config.json").unlink()
    (step / "huggingface/model.safetensors").write_bytes(b"torn")
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", step / "huggingface", "--overwrite") == 0
    assert len(weights(step / "huggingface")) == 27 and (step / "huggingface/tokenizer.json").exists()


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


def test_an_existing_output_is_not_overwritten_unasked(saved, tmp_path, monkeypatch):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="exists"):
        run(monkeypatch, "--ckpt_dir", saved / "w1_tied/global_step_5", "--output_dir", tmp_path / "hf")
    assert (tmp_path / "hf/mine.txt").read_text() == "keep"


def test_a_full_disk_is_told_before_anything_is_written(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(BadInput, match="free, the model needs .*make room there"):
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


def test_another_dtype_is_written_where_it_is_asked_for(saved, tmp_path, monkeypatch):
    step = saved / "w2_untied/global_step_5"
    assert run(monkeypatch, "--ckpt_dir", step, "--output_dir", tmp_path / "hf", "--dtype", "float16", "--verify") == 0
    assert same(weights(tmp_path / "hf"), {k: v.half() for k, v in weights(step / "huggingface").items()})
    assert json.loads((tmp_path / "hf/config.json").read_text())["dtype"] == "float16"
