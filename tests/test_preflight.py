"""The preflight of run_sft.sh: each line has a case that makes it fail or warn, before torch loads."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from phase1.preflight import CHECKS
from phase1.preflight_machine import Gpu, shards, visible
from phase1.prompts import answer, chat
from tests.sft_runs import MESSAGES, ROOT, job_of, patch, pretend_gpus, run_sft, write_rows


def broken(env: dict[str, str], tmp_path: Path, what: str) -> str:
    """Break one thing; returns a piece of the message that must name it."""
    model, other = Path(env["MODEL_PATH"]), tmp_path / "other.parquet"
    if what == "batch size that does not divide":
        env["TRAIN_BATCH_SIZE"] = "10"
        return "data.train_batch_size=10"
    if what == "batch size that is no number":
        env["TRAIN_BATCH_SIZE"] = "many"
        return "TRAIN_BATCH_SIZE"
    if what == "no training file":
        Path(env["TRAIN_FILE"]).unlink()
        return env["TRAIN_FILE"]
    if what == "torn training file":
        Path(env["TRAIN_FILE"]).write_bytes(Path(env["TRAIN_FILE"]).read_bytes()[:-20])
        return env["TRAIN_FILE"]
    if what == "training rows as JSON strings":
        pd.DataFrame({"messages": [json.dumps(MESSAGES)] * 64}).to_parquet(other)
        env["TRAIN_FILE"] = str(other)
        return str(other)
    if what == "another column name":
        pd.DataFrame({"conversation": [MESSAGES] * 64}).to_parquet(other)
        env["TRAIN_FILE"] = str(other)
        return str(other)
    if what == "fewer training rows than a batch":
        env["TRAIN_FILE"] = str(write_rows(other, 7))
        return str(other)
    if what == "too few validation rows for a micro batch a process":
        env["VAL_FILE"] = str(write_rows(other, 3))
        return str(other)
    if what == "more steps than the epochs have":
        env["TOTAL_STEPS"] = "17"
        return "EPOCHS to 3"
    if what == "save_freq 0":
        env["SAVE_FREQ"] = "0"
        return "SAVE_FREQ"
    if what == "no model folder":
        env["MODEL_PATH"] = str(tmp_path / "nowhere")
        return str(tmp_path / "nowhere")
    if what == "no tokenizer":
        (model / "tokenizer.json").unlink()
        return str(model)
    if what == "no chat template":
        (model / "tokenizer_config.json").write_text("{}")
        return "chat template"
    if what == "no weights":
        (model / "model.safetensors").unlink()
        return "weights"
    if what == "a torn tokenizer":
        (model / "tokenizer.json").write_text('{"version": "1.0", "mod')
        return "tokenizer.json: cannot be loaded"
    if what == "weights cut short":
        (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1])
        return "model.safetensors: not a whole"
    if what == "weights that are a pointer of Git LFS":
        (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4000\n")
        return "model.safetensors: not a whole"
    if what == "a shard that the index names and is not there":
        (model / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}')
        return "lacks model-2.safetensors"
    if what == "master weights in fp16":
        env["MODEL_DTYPE"] = "fp16"
        return "MODEL_DTYPE=fp16"
    if what == "fewer GPUs than processes":
        env["DEVICE"] = "cuda"
        env["CUDA_VISIBLE_DEVICES"] = "0"
        return "GPUs for 2 processes"
    if what == "a full disk":
        header = json.dumps({"w": {"dtype": "F32", "shape": [10**13], "data_offsets": [0, 0]}}).encode()
        (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        return "MAX_CKPT_TO_KEEP"
    if what.startswith("turns"):
        turns = {"turns that begin with the answer": ("assistant", "user"), "turns that end with a question": ("system", "user"), "turns: none": ()}[what]
        pd.DataFrame({"messages": [MESSAGES] * 63 + [[{"role": r, "content": r} for r in turns]]}).to_parquet(other)
        env["TRAIN_FILE"] = str(other)
        return f"{other}, row 64"
    if what in ("an empty answer", "content that is null"):
        last = {"role": "assistant", "content": " " if what == "an empty answer" else None}
        pd.DataFrame({"messages": [[*MESSAGES[:2], last]] + [MESSAGES] * 63}).to_parquet(other)
        env["TRAIN_FILE"] = str(other)
        return f"{other}, row 1"
    if what == "flash attention that is not installed":
        env["ATTENTION"] = "flash_attention_2"
        return "pip install flash-attn"
    if what == "a model larger than the GPUs":
        shape = {"hidden_size": 3584, "num_hidden_layers": 80, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064}
        (model / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"], **shape}))
        env |= {"DEVICE": "cuda", "PATH": pretend_gpus(tmp_path, 2)}
        return "79.2 GiB are free"
    if what == "a port in use":
        taken = socket.socket()
        taken.bind(("", 0))
        taken.listen()
        OPEN.append(taken)
        env |= {"NNODES": "2", "NPROC": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        return "choose another"
    if what == "a port that is none":
        env |= {"NNODES": "2", "NPROC": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "http"}
        return "MASTER_PORT=http"
    if what == "wandb that is not installed":
        env |= {"LOGGER": "console,wandb", "PYTHONPATH": f"{tmp_path}:{env['PYTHONPATH']}"}
        (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['wandb'] = None\n")
        return "pip install wandb"
    # ---- the engine trainer
    if what == "packs shorter than a row":
        env["MAX_TOKENS_PER_GPU"] = "2048"
        return "data.max_token_len_per_gpu=2048"
    if what == "a batch that does not divide by the processes":
        env["NPROC"] = "3"
        return "data.train_batch_size=8 does not divide by 3"
    if what == "fewer validation rows than a batch":
        env["VAL_FILE"] = str(write_rows(other, 7))
        return "needs 8"
    if what == "a verl without platforms":
        shutil.rmtree(env["PYTHONPATH"] + "/verl/plugin")
        return "requirements-latest.txt"
    raise ValueError(what)


OPEN: list[socket.socket] = []  # until the test session ends
CASES = {"batch": ["batch size that does not divide", "batch size that is no number"],
         "train": ["no training file", "torn training file", "training rows as JSON strings", "another column name"],
         "messages": ["turns that begin with the answer", "turns that end with a question", "turns: none", "an empty answer", "content that is null"],
         "schedule": ["fewer training rows than a batch", "more steps than the epochs have", "save_freq 0"],
         "val": ["too few validation rows for a micro batch a process"],
         "model": ["no model folder", "no tokenizer", "a torn tokenizer", "no chat template", "no weights", "weights cut short",
                   "weights that are a pointer of Git LFS", "a shard that the index names and is not there"],
         "precision": ["master weights in fp16"],
         "devices": ["fewer GPUs than processes"], "memory": ["a model larger than the GPUs"], "disk": ["a full disk"],
         "port": ["a port in use", "a port that is none"], "wandb": ["wandb that is not installed"]}  # fmt: skip
ENGINE_CASES = {"batch": ["packs shorter than a row", "a batch that does not divide by the processes", "batch size that is no number"],
                "val": ["fewer validation rows than a batch"], "kernels": ["flash attention that is not installed"],
                "memory": ["a model larger than the GPUs"], "trainer": ["a verl without platforms"]}  # fmt: skip


@pytest.mark.parametrize(("check", "what"), [(c, w) for c, cases in CASES.items() for w in cases])
def test_preflight_refuses_before_torch_loads_and_names_the_cause(env, tmp_path, check, what):
    named = broken(env, tmp_path, what)
    done = run_sft(env)
    assert done.returncode == 2, done.stdout + done.stderr
    assert any(line.startswith(f"fail  {check} ") and named in line for line in done.stderr.splitlines()), done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "was imported" not in done.stdout + done.stderr
    assert not Path(env["CKPT_DIR"]).exists() and not Path(env["OUTPUT_DIR"]).exists()


@pytest.mark.parametrize(("check", "what"), [(c, w) for c, cases in ENGINE_CASES.items() for w in cases])
def test_preflight_of_the_engine_trainer_refuses_too(env, engine_verl, tmp_path, check, what):
    env["PYTHONPATH"] = str(shutil.copytree(engine_verl, tmp_path / "site"))
    test_preflight_refuses_before_torch_loads_and_names_the_cause(env, tmp_path, check, what)


def test_every_check_has_a_case_that_fails_or_warns():
    warn_only = {"time"}  # hours are for people to judge
    assert set(CASES) | set(ENGINE_CASES) | warn_only == set(CHECKS)


def test_the_time_is_estimated_and_padding_is_warned_about(env, tmp_path):
    shape = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936}
    Path(env["MODEL_PATH"], "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"], **shape}))
    report = {"tokens": {"p100": 3900}, "padding_share_at_max_length": 0.815, "stamp": {"arguments": {"max_length": 4096}}}
    Path(env["TRAIN_FILE"]).with_name("sft_report.json").write_text(json.dumps(report))
    env |= {"DEVICE": "cuda", "PATH": pretend_gpus(tmp_path)}
    said = run_sft(env, "--dry_run").stderr
    assert "warn  time " in said and "GPU hours" in said and "82% of it on padding" in said
    (tmp_path / "bin" / "nvidia-smi").unlink()
    env["PATH"] = pretend_gpus(tmp_path, name="NVIDIA Voodoo2")
    assert "the peak of NVIDIA Voodoo2 is not in the table" in run_sft(env, "--dry_run").stderr


def test_rows_in_another_form_than_the_evaluations_are_warned_about(env):
    said = run_sft(env, "--dry_run").stderr
    assert "warn  messages  64 of 64 rows without the evaluation's system prompt, 64 answers without <code>" in said
    rows = [chat("Add 1 and 2.", answer("print(3)"))] * 64
    pd.DataFrame({"messages": rows}).to_parquet(env["TRAIN_FILE"])
    assert "pass  messages" in run_sft(env, "--dry_run").stderr


def test_rows_that_are_cut_are_counted_and_those_left_without_an_answer(env, tmp_path):
    words = lambda *counts: [{"role": r, "content": "w " * n} for r, n in zip(("system", "user", "assistant"), counts, strict=True)]  # noqa: E731
    rows = [words(1, 1, 1)] * 61 + [words(10, 10, 29), words(10, 10, 30), words(10, 42, 30)]  # 15 tokens of ChatML a row
    pd.DataFrame({"messages": rows}).to_parquet(env["TRAIN_FILE"])
    said = run_sft(env | {"MAX_LENGTH": "64"}, "--dry_run").stderr
    assert f"warn  train     64 rows in {env['TRAIN_FILE']}; 2 have more than 64 tokens and lose their end, 1 of them before the answer begins" in said
    assert "pass  train" in run_sft(env | {"MAX_LENGTH": "128"}, "--dry_run").stderr


def test_memory_counts_with_the_gpus_that_share_one_copy(env, engine_verl):
    env |= {"TRAINER": "engine", "PYTHONPATH": str(engine_verl), "NNODES": "2", "NPROC": "8", "MASTER_ADDR": "10.0.0.1"}
    assert shards(job_of(env)) == 16
    for given, counted in ((8, 8), (-1, 16), (64, 16)):
        assert shards(job_of(env, f"engine.fsdp_size={given}")) == counted


def test_memory_is_looked_up_on_the_gpus_that_will_be_used():
    gpus = tuple(Gpu("H100", 80.0, free) for free in (1.0, 70.0, 79.0))
    assert visible(gpus, None) == visible(gpus, "GPU-5a1c") == gpus
    assert [g.free for g in visible(gpus, "2, 1")] == [79.0, 70.0]


def test_an_unreachable_wandb_is_warned_about(env):
    done = run_sft(env | {"LOGGER": "wandb", "WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": "online"}, "--dry_run")
    assert "warn  wandb     127.0.0.1 cannot be reached" in done.stderr


@pytest.mark.parametrize(("knobs", "said"), [
    ({}, "pass  kernels   attention: torch's own variable-length FlashAttention-2; loss: fused"),
    ({"FUSED_LOSS": "0"}, "warn  kernels   attention: torch's own variable-length FlashAttention-2; loss: log-softmax"),
    ({"ATTENTION": "sdpa"}, "warn  kernels   attention: sdpa with a dense mask"),
    ({"TRAINER": "fsdp"}, "flash-attn is not installed"),
])  # fmt: skip
def test_the_preflight_says_which_kernels_will_run(env, engine_verl, tmp_path, knobs, said):
    env |= {"PYTHONPATH": f"{engine_verl}:{tmp_path}", "DEVICE": "cuda", "PATH": pretend_gpus(tmp_path)} | knobs
    (tmp_path / "triton").mkdir()  # CPU builds of torch come without it
    (tmp_path / "triton" / "__init__.py").touch()
    assert said in run_sft(env, "--dry_run").stderr


def test_unpatched_verl_is_refused_with_the_command_that_patches_it(env, patched_verl, tmp_path):
    site = shutil.copytree(patched_verl, tmp_path / "site")
    patch(site, "--revert")
    done = run_sft(env | {"PYTHONPATH": str(site)})
    assert done.returncode == 2
    assert f"patch it: {sys.executable} {ROOT}/patches/apply_verl_patch.py" in done.stderr.splitlines()[-1]


def test_a_verl_without_the_trainer_is_refused(env, patched_verl, tmp_path):
    site = shutil.copytree(patched_verl, tmp_path / "site")
    (site / "verl" / "version" / "version").write_text("0.9.1")
    (site / "verl" / "trainer" / "fsdp_sft_trainer.py").unlink()
    done = run_sft(env | {"PYTHONPATH": str(site), "TRAINER": "fsdp"})
    assert done.returncode == 2 and "pip install verl==0.7.0" in done.stderr


def test_bf16_masters_are_warned_about_and_allowed(env):
    done = run_sft(env | {"MODEL_DTYPE": "bf16"}, "--dry_run")
    assert done.returncode == 0 and "warn  precision" in done.stderr and "model.fsdp_config.model_dtype=bf16" in done.stdout


@pytest.mark.parametrize("override", ["optim.lr==3", "no_equals_sign", "trainer.project_name=a,b"])
def test_an_override_that_hydra_cannot_read_is_named(env, override):
    done = run_sft(env, "--dry_run", override)
    assert done.returncode == 2 and repr(override) in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_unknown_flag_is_refused(env):
    assert run_sft(env, "--smokey").returncode == 2


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_lives(env):
    Path(env["CKPT_DIR"]).mkdir()
    with subprocess.Popen(["flock", f"{env['CKPT_DIR']}/.train_node0.lock", "sleep", "60"], start_new_session=True) as holder:
        while subprocess.run(["flock", "-n", f"{env['CKPT_DIR']}/.train_node0.lock", "true"]).returncode == 0:
            pass
        done = run_sft(env | {"LOCK_WAIT": "0"})
        os.killpg(holder.pid, 9)
    assert done.returncode == 2 and env["CKPT_DIR"] in done.stderr and "another training run" in done.stderr
