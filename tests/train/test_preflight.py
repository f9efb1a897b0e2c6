"""The preflight of run_sft.sh: each line has a case that makes it fail or warn, before torch loads."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from phase1.contract.prompts import answer, chat
from phase1.files import BadInput
from phase1.train.preflight import disk_and_port
from phase1.train.preflight.checks import CHECKS, run_checks
from phase1.train.preflight.gpus import gpu_memory, shards
from tests.tiny_model import tiny_shapes, write_float32, write_tiny_model
from tests.train.sft_runs import MESSAGES, ROOT, job_of, patch, pretend_gpus, run_sft

# What a case breaks: variables of the run, an override behind its arguments, or a function (env, tmp_path) that changes
# variables and the files they name.
Break = dict[str, str] | str | Callable[[dict[str, str], Path], None]
ATTENTION = "model.override_config.attn_implementation="
OPEN: list[socket.socket] = []  # until the test session ends


def rows(
    *last: list[dict[str, str | None] | None], count: int = 64, side: str = "TRAIN", column: str = "messages"
) -> Break:
    """Another file, of so many good rows, these among them at the end."""

    def change(env: dict[str, str], tmp_path: Path) -> None:
        env[f"{side}_FILE"] = str(tmp_path / "other.parquet")
        pd.DataFrame({column: [MESSAGES] * (count - len(last)) + list(last)}).to_parquet(env[f"{side}_FILE"])

    return change


def turns(*roles: str | None) -> Break:
    return rows([{"role": role, "content": role} for role in roles])


def ending(content: str | None) -> Break:
    return rows([*MESSAGES[:2], {"role": "assistant", "content": content}])


def model_file(name: str, content: str | bytes | int | None) -> Break:
    """A file of the model's folder with this content; None: removed, a number: cut by so many bytes."""

    def change(env: dict[str, str], tmp_path: Path) -> None:
        path = Path(env["MODEL_PATH"], name)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(
                path.read_bytes()[:-content]
                if isinstance(content, int)
                else content.encode()
                if isinstance(content, str)
                else content
            )

    return change


def torn_training_file(env: dict[str, str], tmp_path: Path) -> None:
    Path(env["TRAIN_FILE"]).write_bytes(Path(env["TRAIN_FILE"]).read_bytes()[:-20])


def rows_as_json(env: dict[str, str], tmp_path: Path) -> None:
    pd.DataFrame({"messages": [json.dumps(MESSAGES)] * 64}).to_parquet(env["TRAIN_FILE"])


def larger_than_the_gpus(env: dict[str, str], tmp_path: Path) -> None:
    shape = {
        "hidden_size": 3584,
        "num_hidden_layers": 80,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    }
    write_tiny_model(Path(env["MODEL_PATH"]), **shape)
    env |= {"DEVICE": "cuda", "PATH": pretend_gpus(tmp_path, 2)}


def larger_than_the_disk(env: dict[str, str], tmp_path: Path) -> None:
    """A sparse file of 4 TB, whose checkpoints take 16 TB."""
    write_float32(Path(env["MODEL_PATH"], "model.safetensors"), {"w": (10**12,)})


def saved_while_compiled(env: dict[str, str], tmp_path: Path) -> None:
    shapes = {f"_orig_mod.{name}": shape for name, shape in tiny_shapes().items()}
    write_float32(Path(env["MODEL_PATH"], "model.safetensors"), shapes)


def port_in_use(env: dict[str, str], tmp_path: Path) -> None:
    taken = socket.socket()
    taken.bind(("", 0))
    taken.listen()
    OPEN.append(taken)
    env |= TWO_NODES | {"MASTER_PORT": str(taken.getsockname()[1])}


def without_wandb(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['wandb'] = None\n")
    env |= {"LOGGER": "console,wandb", "PYTHONPATH": f"{tmp_path}:{env['PYTHONPATH']}"}


def column(name: str, value: list[object]) -> Break:
    """A further column with this value in every row."""

    def change(env: dict[str, str], tmp_path: Path) -> None:
        env["TRAIN_FILE"] = str(tmp_path / "other.parquet")
        pd.DataFrame({"messages": [MESSAGES] * 64, name: [value] * 64}).to_parquet(env["TRAIN_FILE"])

    return change


def template(text: str, end: str | None = None) -> Break:
    return model_file("tokenizer_config.json", json.dumps({"chat_template": text, "eos_token": end}))


def ids_beyond_the_embedding(env: dict[str, str], tmp_path: Path) -> None:
    path = Path(env["MODEL_PATH"], "tokenizer.json")
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["far"] = 900
    path.write_text(json.dumps(tokenizer))


def weights_beside_shards(env: dict[str, str], tmp_path: Path) -> None:
    folder = Path(env["MODEL_PATH"])
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(tiny_shapes(), "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
THINK = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
TWO_NODES = {"NNODES": "2", "NPROC": "1", "MASTER_ADDR": "127.0.0.1"}
# the check that fails, what is broken, how, a piece of the line that must name it
CASES: list[tuple[str, str, Break, str]] = [
    ("batch", "a size that does not divide", {"TRAIN_BATCH_SIZE": "10"}, "data.train_batch_size=10"),
    ("batch", "a size that is no number", {"TRAIN_BATCH_SIZE": "many"}, "TRAIN_BATCH_SIZE"),
    ("batch", "groups of processes", "ulysses_sequence_parallel_size=3", "does not divide the 2 processes"),
    ("train", "no file", {"TRAIN_FILE": "/nowhere/train.parquet"}, "/nowhere/train.parquet"),
    ("train", "a torn file", torn_training_file, "/train.parquet: not a whole"),
    ("train", "rows as JSON strings", rows_as_json, "/train.parquet: needs a column messages"),
    ("train", "another column name", rows(column="conversation"), "/other.parquet: needs a column messages"),
    ("messages", "turns that begin with the answer", turns("assistant", "user"), "/other.parquet, row 64"),
    ("messages", "turns that end with a question", turns("system", "user"), "/other.parquet, row 64"),
    ("train", "every row cut before its answer", {"MAX_LENGTH": "8"}, "before the answer begins"),
    ("messages", "a null turn", rows([None, *MESSAGES[1:]]), "/other.parquet, row 64: a turn or its role is null"),
    ("messages", "a role that is null", turns(None, "user", "assistant"), "row 64: a turn or its role is null"),
    ("messages", "a mark of a turn's end", ending("a<|im_end|>b"), "row 64: <|im_end|> in a turn"),
    ("messages", "tools", column("tools", [{"key": "v"}]), "row 1: verl puts the column tools"),
    ("messages", "images", column("images", ["a.png"]), "row 1: verl puts the column images"),
    ("messages", "no turns", turns(), "/other.parquet, row 64"),
    ("messages", "an empty answer", ending(" "), "/other.parquet, row 64: an empty answer"),
    ("messages", "content that is null", ending(None), "/other.parquet, row 64: a turn's content"),
    ("schedule", "fewer rows than a batch", rows(count=7), "/other.parquet: 7 rows"),
    ("schedule", "more steps than the epochs have", {"TOTAL_STEPS": "17"}, "EPOCHS to 3"),
    ("schedule", "a save every 0 steps", {"SAVE_FREQ": "0"}, "SAVE_FREQ"),
    ("val", "fewer rows than a micro batch a process", rows(count=3, side="VAL"), "/other.parquet: 3 rows"),
    ("model", "no folder", {"MODEL_PATH": "/nowhere/model"}, "/nowhere/model"),
    ("model", "no tokenizer", model_file("tokenizer.json", None), "no tokenizer"),
    (
        "model",
        "a torn tokenizer",
        model_file("tokenizer.json", '{"version": "1.0", "mod'),
        "tokenizer.json: cannot be loaded",
    ),
    ("model", "no chat template", model_file("tokenizer_config.json", "{}"), "chat template"),
    ("model", "no weights", model_file("model.safetensors", None), "weights"),
    ("model", "weights cut short", model_file("model.safetensors", 1), "model.safetensors: not a whole"),
    (
        "model",
        "weights that are a pointer of Git LFS",
        model_file("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4000\n"),
        "model.safetensors: not a whole",
    ),
    (
        "model",
        "a shard that the index names and is not there",
        model_file(
            "model.safetensors.index.json", '{"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}'
        ),
        "model-2.safetensors: missing",
    ),
    ("model", "weights beside the shards", weights_beside_shards, "remove the stale one"),
    ("model", "more ids than the embedding", ids_beyond_the_embedding, "has ids up to 900"),
    ("model", "an end that the template never writes", template("{{ messages }}", "<|end|>"), "never writes eos_token"),
    ("model", "a think block opened", template(CHATML + THINK), "opens a <think> block"),
    ("model", "a name of the Hub, offline", {"MODEL_PATH": "o/m", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1"),
    ("settings", "an unknown logger", {"LOGGER": "wanbd"}, "LOGGER=wanbd: verl has no such logger; wandb is meant?"),
    ("settings", "a logger that is not installed", {"LOGGER": "swanlab"}, "pip install swanlab"),
    ("settings", "an unknown schedule", "optim.lr_scheduler=constant", "has cosine and wsd"),
    (
        "settings",
        "an unknown key",
        "optim.learning_rate=1e-5",
        "no such key in verl's sft_trainer.yaml; optim.lr is the nearest",
    ),
    ("settings", "a key of another place", "optim.seed=1", "trainer.seed is the nearest"),
    ("precision", "masters in fp16", {"MODEL_DTYPE": "fp16"}, "MODEL_DTYPE=fp16"),
    ("devices", "fewer GPUs than processes", {"DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "0"}, "GPUs for 2 processes"),
    ("memory", "a model larger than the GPUs", larger_than_the_gpus, "79.2 GiB are free"),
    ("disk", "one that is too small", larger_than_the_disk, "MAX_CKPT_TO_KEEP"),
    ("shm", "less than the loader's workers need", {"MAX_LENGTH": "1000000000"}, "--shm-size="),
    ("port", "one in use", port_in_use, "choose another"),
    ("port", "one that is none", TWO_NODES | {"MASTER_PORT": "http"}, "MASTER_PORT=http"),
]
ENGINE_CASES: list[tuple[str, str, Break, str]] = [
    ("batch", "packs shorter than a row", {"MAX_TOKENS_PER_GPU": "2048"}, "data.max_token_len_per_gpu=2048"),
    (
        "batch",
        "a size that does not divide by the processes",
        {"NPROC": "3"},
        "data.train_batch_size=8 does not divide by 3",
    ),
    ("batch", "a size that is no number", {"TRAIN_BATCH_SIZE": "many"}, "TRAIN_BATCH_SIZE"),
    ("settings", "an unknown schedule", "optim.lr_scheduler_type=linear", "has constant and cosine"),
    ("val", "fewer rows than a batch", rows(count=7, side="VAL"), "needs 8"),
    ("kernels", "flash attention that is not installed", ATTENTION + "flash_attention_2", "pip install flash-attn"),
    ("memory", "a model larger than the GPUs", larger_than_the_gpus, "79.2 GiB are free"),
]


def each(cases: list[tuple[str, str, Break, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("check", "broken", "named"),
        [(c, b, n) for c, _, b, n in cases],
        ids=[f"{c}: {what}" for c, what, _, _ in cases],
    )


@each(CASES)
def test_a_check_refuses_what_it_is_for_and_names_the_cause(env, tmp_path, monkeypatch, check, broken, named):
    if isinstance(broken, dict):
        env |= broken
    elif callable(broken):
        broken(env, tmp_path)
    for name, value in env.items():  # the machine's GPUs are looked up in this process's own environment
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput) as refused:
        CHECKS[check](job_of(env, *([broken] if isinstance(broken, str) else [])))
    assert named in str(refused.value)


@each(ENGINE_CASES)
def test_a_check_of_the_engine_trainer_refuses_too(env, tmp_path, monkeypatch, check, broken, named):
    env["TRAINER"] = "engine"
    test_a_check_refuses_what_it_is_for_and_names_the_cause(env, tmp_path, monkeypatch, check, broken, named)


STARTS: list[tuple[str, str, Break, str]] = [
    ("train", "no file", {"TRAIN_FILE": "/nowhere/train.parquet"}, "/nowhere/train.parquet"),
    ("model", "weights cut short", model_file("model.safetensors", 1), "model.safetensors: not a whole"),
    ("model", "names of a compiled model", saved_while_compiled, "a wrapper's prefix '_orig_mod.'"),
    ("wandb", "not installed", without_wandb, "pip install wandb"),
]


@pytest.mark.slow
@each(STARTS)
def test_a_start_is_refused_before_torch_loads_or_a_file_is_written(env, tmp_path, check, broken, named):
    if isinstance(broken, dict):
        env |= broken
    else:
        broken(env, tmp_path)
    done = run_sft(env)
    assert done.returncode == 2, done.stdout + done.stderr
    assert any(line.startswith(f"fail  {check} ") and named in line for line in done.stderr.splitlines()), done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "was imported" not in done.stdout + done.stderr
    assert not Path(env["CKPT_DIR"]).exists() and not Path(env["OUTPUT_DIR"]).exists()


def test_all_checks_pass_or_warn_without_torch(env):
    done = run_sft(env, "--dry_run")
    assert done.returncode == 0 and "was imported" not in done.stdout + done.stderr
    assert [line.split()[1] for line in done.stderr.splitlines()] == list(CHECKS)


def test_a_batch_that_cannot_be_divided_ends_the_checks_that_count_with_it(env):
    assert [(c.name, c.failed) for c in run_checks(job_of(env | {"TRAIN_BATCH_SIZE": "10"}))] == [("batch", True)]


@pytest.mark.slow
def test_a_verl_without_platforms_is_too_old_for_the_engine_trainer(env, engine_verl, tmp_path):
    site = shutil.copytree(engine_verl, tmp_path / "site")
    shutil.rmtree(site / "verl" / "plugin")
    done = run_sft(env | {"PYTHONPATH": str(site)})
    assert done.returncode == 2 and "requirements-latest.txt" in done.stderr.splitlines()[-1]


PASSING: list[tuple[str, str, Break, str]] = [
    ("batch", "groups of processes", "ulysses_sequence_parallel_size=2", "8 rows a step = 1 processes"),
    ("train", "rows that fit", {"MAX_LENGTH": "64"}, "none of more than 64 tokens"),
    ("messages", "a tools column of nulls", column("tools", None), ""),
    ("messages", "an images column of empty lists", column("images", []), ""),
    ("messages", "columns that verl does not read", column("meta", {"a": 1}), ""),
    ("model", "the end that the template writes", template(CHATML, "<|im_end|>"), "parameters"),
    ("model", "a think block closed", template(CHATML + THINK.replace("<think>", "<think></think>")), "parameters"),
    ("model", "a folder, offline", {"HF_HUB_OFFLINE": "1"}, "parameters"),
    ("settings", "verl's loggers", {"LOGGER": "console,file"}, "overrides resolved"),
    ("settings", "its other schedule", "optim.lr_scheduler=wsd", "overrides resolved"),
    ("settings", "another key, and one added", "+optim.more=1", "overrides resolved"),
    ("disk", "two checkpoints kept", {"MAX_CKPT_TO_KEEP": "2"}, "GB free"),
    ("shm", "rows of the usual length", {"MAX_LENGTH": "64"}, "for verl's loader workers"),
]


@each(PASSING)
def test_what_stands_beside_a_refused_case_passes(env, tmp_path, check, broken, named):
    if isinstance(broken, dict):
        env |= broken
    elif callable(broken):
        broken(env, tmp_path)
    found = CHECKS[check](job_of(env, *([broken] if isinstance(broken, str) else [])))
    assert found.status != "fail" and named in found.detail


def test_one_checkpoint_kept_is_warned_about_and_never_advised(env, tmp_path, monkeypatch):
    """By verl 0.7.0, which runs here; the later ones remove the old one when the new one is whole."""
    env |= {"SAVE_FREQ": "1"}
    found = CHECKS["disk"](job_of(env | {"MAX_CKPT_TO_KEEP": "1"}))
    assert found.status == "warn" and "a save that fails loses everything" in found.detail
    assert " 2 x " in f" {found.detail}"
    monkeypatch.setattr(disk_and_port, "removes_last_before_saving", lambda verl: False)
    found = CHECKS["disk"](job_of(env | {"MAX_CKPT_TO_KEEP": "1"}))
    assert found.status == "pass" and " 3 x " in f" {found.detail}"  # the old one, the new one, and the best
    larger_than_the_disk(env, tmp_path)
    with pytest.raises(BadInput) as refused:
        CHECKS["disk"](job_of(env | {"MAX_CKPT_TO_KEEP": "2"}))
    assert "MAX_CKPT_TO_KEEP" not in str(refused.value)


def test_a_dry_run_prints_the_command_also_where_a_check_fails(env):
    done = run_sft(env, "--dry_run", "optim.learning_rate=1e-5")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: optim.learning_rate: no such key")
    assert "torch.distributed.run" in done.stdout and done.stdout.endswith("optim.learning_rate=1e-5\n")


def test_every_check_has_a_case_that_fails_or_warns():
    # Hours are for people to judge; the trainer has tests of its own below, the host's memory in test_saving.py.
    elsewhere = {"time", "trainer", "host"}
    assert {check for check, *_ in CASES + ENGINE_CASES + STARTS} | elsewhere == set(CHECKS)


def test_the_time_is_estimated_and_padding_is_warned_about(env, tmp_path, monkeypatch):
    shape = {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
    }
    write_tiny_model(Path(env["MODEL_PATH"]), **shape)
    report = {
        "tokens": {"p100": 3900},
        "padding_share_at_max_length": 0.815,
        "stamp": {"arguments": {"max_length": 4096}},
    }
    Path(env["TRAIN_FILE"]).with_name("sft_report.json").write_text(json.dumps(report))
    env |= {"DEVICE": "cuda"}
    monkeypatch.setenv("PATH", pretend_gpus(tmp_path))
    found = CHECKS["time"](job_of(env))
    assert found.status == "warn" and "GPU hours" in found.detail and "82% of it on padding" in found.detail
    (tmp_path / "bin" / "nvidia-smi").unlink()
    monkeypatch.setenv("PATH", pretend_gpus(tmp_path, name="NVIDIA Voodoo2"))
    assert "the peak of NVIDIA Voodoo2 is not in the table" in CHECKS["time"](job_of(env)).detail


def test_rows_in_another_form_than_the_evaluations_are_warned_about(env):
    found = CHECKS["messages"](job_of(env))
    said = "64 of 64 rows without the evaluation's system prompt, 64 answers without <code>"
    assert found.status == "warn" and said in found.detail
    rows = [chat("Add 1 and 2.", answer("print(3)"))] * 64
    pd.DataFrame({"messages": rows}).to_parquet(env["TRAIN_FILE"])
    assert CHECKS["messages"](job_of(env)).status == "pass"


def test_rows_that_are_cut_are_counted_and_those_left_without_an_answer(env, tmp_path):
    def words(*counts):
        return [{"role": r, "content": "w " * n} for r, n in zip(("system", "user", "assistant"), counts, strict=True)]

    rows = [words(1, 1, 1)] * 61 + [
        words(10, 10, 29),
        words(10, 10, 30),
        words(10, 42, 30),
    ]  # 15 tokens of ChatML a row
    pd.DataFrame({"messages": rows}).to_parquet(env["TRAIN_FILE"])
    found = CHECKS["train"](job_of(env | {"MAX_LENGTH": "64"}))
    said = (
        f"64 rows in {env['TRAIN_FILE']}; 2 have more than 64 tokens and lose their end, 1 of them before the answer "
        "begins"
    )
    assert found.status == "warn" and found.detail.startswith(said), found
    assert CHECKS["train"](job_of(env | {"MAX_LENGTH": "128"})).status == "pass"


def test_memory_counts_with_the_gpus_that_share_one_copy(env, engine_verl):
    env |= {"TRAINER": "engine", "PYTHONPATH": str(engine_verl), "NNODES": "2", "NPROC": "8", "MASTER_ADDR": "10.0.0.1"}
    assert shards(job_of(env)) == 16
    for given, counted in ((8, 8), (-1, 16), (64, 16)):
        assert shards(job_of(env, f"engine.fsdp_size={given}")) == counted


def test_memory_counts_with_a_compiler_only_where_there_is_one(env, engine_verl, tmp_path, monkeypatch):
    shape = {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "intermediate_size": 4864,
        "vocab_size": 151936,
    }
    Path(env["MODEL_PATH"], "config.json").write_text(json.dumps(shape))
    monkeypatch.setenv("PATH", pretend_gpus(tmp_path))
    env |= {"DEVICE": "cuda"}
    said = {
        t: [gpu_memory(job_of(env | {"TRAINER": t, "PYTHONPATH": str(engine_verl), "COMPILE": c})) for c in ("0", "1")]
        for t in ("fsdp", "engine")
    }
    assert said["fsdp"][0] == said["fsdp"][1] and said["engine"][0] != said["engine"][1]


def test_an_unreachable_wandb_is_warned_about(env):
    online = {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": "online"}
    found = CHECKS["wandb"](job_of(env | online | {"LOGGER": "wandb"}))
    assert found.status == "warn" and found.detail.startswith("127.0.0.1 cannot be reached")


@pytest.mark.parametrize(
    ("trainer", "overrides", "said"),
    [
        ("engine", [], "pass  kernels   attention: torch's own variable-length FlashAttention-2; loss: fused"),
        ("engine", [ATTENTION + "sdpa"], "warn  kernels   attention: sdpa with a dense mask"),
        ("fsdp", [], "flash-attn is not installed"),
    ],
    ids=["engine", "engine, sdpa", "fsdp"],
)
def test_the_preflight_says_which_kernels_will_run(env, engine_verl, tmp_path, trainer, overrides, said):
    env |= {"PYTHONPATH": f"{engine_verl}:{tmp_path}", "DEVICE": "cuda", "PATH": pretend_gpus(tmp_path)}
    (tmp_path / "triton").mkdir()  # CPU builds of torch come without it
    (tmp_path / "triton" / "__init__.py").touch()
    assert said in run_sft(env | {"TRAINER": trainer}, "--dry_run", *overrides).stderr


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
    assert (
        done.returncode == 0
        and "warn  precision" in done.stderr
        and "model.fsdp_config.model_dtype=bf16" in done.stdout
    )


@pytest.mark.parametrize("override", ["optim.lr==3", "no_equals_sign", "trainer.project_name=a,b"])
def test_an_override_that_hydra_cannot_read_is_named(env, override):
    done = run_sft(env, "--dry_run", override)
    assert done.returncode == 2 and repr(override) in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_unknown_flag_is_refused(env):
    assert run_sft(env, "--smokey").returncode == 2


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_lives(env):
    Path(env["CKPT_DIR"]).mkdir()
    with subprocess.Popen(
        ["flock", f"{env['CKPT_DIR']}/.train_node0.lock", "sleep", "60"], start_new_session=True
    ) as holder:
        while subprocess.run(["flock", "-n", f"{env['CKPT_DIR']}/.train_node0.lock", "true"]).returncode == 0:
            pass
        done = run_sft(env | {"LOCK_WAIT": "0"})
        os.killpg(holder.pid, 9)
    assert done.returncode == 2 and env["CKPT_DIR"] in done.stderr and "another training run" in done.stderr
