"""run_sft.sh up to the command: what it builds, what it refuses."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.files import BadInput
from phase1.train.hydra_grammar import parse_override
from tests.train.sft_runs import job_of, job_variables, pretend_gpus, run_sft, words, write_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_command_at_defaults_is_the_specs_token_for_token(tmp_path, patched_verl):
    # Slowly listed: a reader that leaves at the first line ends nvidia-smi by SIGPIPE, which once made DEVICE=cpu of
    # eight GPUs.
    path = pretend_gpus(tmp_path)
    project = tmp_path / "coding_model_project" / "phase_1_ SFT"  # the folder's name in the original project
    project.mkdir(parents=True)
    for name in ("run_sft.sh", "phase1", "patches"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, project / name)
    (project / "data").mkdir()
    write_rows(project / "data" / "sft_train.parquet", 93_717)
    write_rows(project / "data" / "sft_val.parquet", 1_912)
    env = {"PATH": path, "HOME": str(tmp_path), "PYTHON": sys.executable, "PYTHONPATH": str(patched_verl)}
    done = subprocess.run(["bash", project / "run_sft.sh", "--dry_run"], env=env, capture_output=True, text=True)
    failed = [line for line in done.stderr.splitlines() if line.startswith("fail")]
    assert all("Qwen/Qwen2.5-Coder-7B-Instruct is not on this machine" in line for line in failed), done.stderr
    assert done.returncode == (2 if failed else 0), done.stderr  # a network or a cache decides
    ckpt = f"{project}/checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder"
    assert shlex.split(done.stdout) == [
        "env",
        "VERL_USE_EXTERNAL_MODULES=phase1_fsdp_hook",
        "PYTHONUNBUFFERED=1",
        "PYTHONSAFEPATH=1",
        f"PYTHONPATH={project}/patches:{project}:{patched_verl}",
        "WANDB_MODE=offline",
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nnodes=1",
        "--nproc_per_node=8",
        "-m",
        "verl.trainer.fsdp_sft_trainer",
        f"data.train_files={project}/data/sft_train.parquet",
        f"data.val_files={project}/data/sft_val.parquet",
        "data.multiturn.enable=true",
        "data.multiturn.messages_key=messages",
        "data.max_length=4096",
        "data.truncation=right",
        "data.train_batch_size=128",
        "data.micro_batch_size_per_gpu=2",
        "data.balance_dp_token=True",
        "model.partial_pretrain=Qwen/Qwen2.5-Coder-7B-Instruct",
        "model.trust_remote_code=True",
        "model.enable_gradient_checkpointing=True",
        "model.strategy=fsdp2",
        "model.fsdp_config.model_dtype=fp32",
        "optim.lr=2e-5",
        "optim.betas=[0.9,0.95]",
        "optim.weight_decay=0.01",
        "optim.lr_warmup_steps_ratio=0.05",
        "optim.clip_grad=1.0",
        "optim.lr_scheduler=cosine",
        "trainer.total_epochs=2",
        "trainer.save_freq=500",
        "trainer.test_freq=500",
        "trainer.max_ckpt_to_keep=5",
        "trainer.logger=[console,wandb]",
        "trainer.seed=42",
        "trainer.resume_mode=auto",
        "trainer.project_name=rlvr_coding_model",
        "trainer.experiment_name=phase1_sft_qwen7b_coder",
        f"trainer.default_local_dir={ckpt}",
        "trainer.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        f"hydra.run.dir={ckpt}/hydra",
    ]
    assert not (project / "checkpoints").exists() and not (project / "outputs").exists()  # a dry run writes nothing


def test_a_hostile_path_reaches_verl_and_our_own_checks_alike(env, tmp_path):
    folder = tmp_path / "it's a=b, {c}"
    folder.mkdir()
    env["TRAIN_FILE"] = shutil.copy(env["TRAIN_FILE"], folder / "t.parquet")
    word = next(w for w in words(env) if w.startswith("data.train_files="))
    assert parse_override(word) == {"data.train_files": str(folder / "t.parquet")}


def test_knobs_and_trailing_overrides_reach_the_command_the_override_last(env):
    got = words(env | {"LR": "1e-3", "EPOCHS": "4"}, "2", "optim.lr=5e-4", "+trainer.note=x")
    assert got.index("optim.lr=1e-3") < got.index("optim.lr=5e-4") and "+trainer.note=x" in got
    assert "trainer.total_epochs=4" in got and "--nproc_per_node=2" in got and "trainer.device=cpu" in got


def test_the_checks_count_with_the_trailing_overrides(env):
    done = run_sft(env, "--dry_run", "data.train_batch_size=6")
    assert done.returncode == 2 and "data.train_batch_size=6 does not divide" in done.stderr


def test_smoke_is_ten_steps_of_four_rows_in_one_process_saved_every_five(env):
    for name in ("NPROC", "TRAIN_BATCH_SIZE", "CKPT_DIR", "LOGGER"):
        del env[name]
    got = words(env, "--smoke")
    assert {
        "--nproc_per_node=1",
        "data.train_batch_size=4",
        "trainer.total_training_steps=10",
        "trainer.save_freq=5",
        "trainer.logger=[console]",
    } <= set(got)
    assert next(w for w in got if w.startswith("trainer.default_local_dir=")).endswith("/smoke_test")


@pytest.mark.slow
def test_several_nodes_meet_at_the_master_address(env):
    got = words(env | {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "NPROC": "1"})
    assert {"--nnodes=2", "--node_rank=1", "--master_addr=10.0.0.1", "--master_port=29500"} <= set(
        got
    ) and "--standalone" not in got
    assert run_sft(env | {"NNODES": "2", "NPROC": "1"}, "--dry_run").returncode == 2  # nobody to meet


MISSPELT = [
    {"COMPILE": "True"},
    {"GRADIENT_CHECKPOINTING": "no"},
    {"LR": "fast"},
    {"LR": "nan"},
    {"LR": "True"},
    {"WARMUP_RATIO": "5%"},
    {"RESUME_MODE": "never"},
    {"COMPILE": "1", "ACTIVATION_MEMORY_BUDGET": "half"},
    {"COMPILE": "1", "ACTIVATION_MEMORY_BUDGET": "nan"},
    {"COMPILE": "0", "ACTIVATION_MEMORY_BUDGET": "0.1"},
    {"NODE_RANK": "1"},
    {"NNODES": "2", "NODE_RANK": "two"},
]


@pytest.mark.parametrize("knobs", MISSPELT, ids=lambda knobs: "=".join(list(knobs.items())[-1]))
def test_a_misspelt_value_is_refused_and_not_taken_for_another(env, engine_verl, knobs):
    with pytest.raises(BadInput) as refused:
        job_of(env | {"TRAINER": "engine", "PYTHONPATH": str(engine_verl)} | knobs)
    assert list(knobs.values())[-1] in str(refused.value)


@pytest.mark.parametrize(
    ("knobs", "args", "named"),
    [
        ({"DEVICE": "tpu"}, (), "DEVICE=tpu: expected cuda or cpu"),
        ({"WARMUP_RATIO": "5"}, (), "optim.lr_warmup_steps_ratio=5"),
        ({"PYTHON": "/nope"}, (), "PYTHON=/nope: no such program"),
        ({"CKPT_DIR": "/dev/null"}, (), "CKPT_DIR=/dev/null: /dev/null is a file"),
        ({"CKPT_DIR": "/dev/null/ckpt"}, (), "/dev/null is a file"),
        ({}, ("two",), "'two': neither a number of processes"),
        ({}, ("-x",), "-x: unknown flag"),
    ],
    ids=["device", "warm-up", "python", "a file", "under a file", "a word", "a flag"],
)
def test_what_cannot_be_meant_is_one_line_and_exit_2(env, knobs, args, named):
    done = run_sft(env | knobs, *args)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ") and named in done.stderr and not Path(env["OUTPUT_DIR"]).exists()


def test_help_is_the_usage_and_exit_0(env):
    done = run_sft(env, "-h")
    assert done.returncode == 0 and done.stdout.startswith("Train: ") and done.stdout == run_sft(env, "--help").stdout


def test_a_misspelt_value_is_one_line_and_exit_2_before_a_file_is_written(env):
    done = run_sft(env | {"LR": "fast"})
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "optim.lr=fast" in done.stderr
    assert not Path(env["CKPT_DIR"]).exists()


@pytest.mark.parametrize("override", ["engine.reshard_after_forward=off_", "model.enable_gradient_checkpointing=1"])
def test_a_misspelt_override_is_refused_too(env, engine_verl, override):
    with pytest.raises(BadInput, match=override.split("=")[0]):
        job_of(env | {"TRAINER": "engine", "PYTHONPATH": str(engine_verl)}, override)


LORA = [
    "model.lora_rank=8",
    "+model.lora_rank=8",
    "++model.lora_rank=8",
    "model.lora_rank='8'",
    "model.lora_adapter_path=/adapters/a",
    "model.lora.rank=8",
    "+model.lora={rank:8,alpha:16}",
    "model={lora_rank:8}",
    "actor_rollout_ref.model.lora_rank=8",
    "+engine.override.lora.r=8",
]


@pytest.mark.parametrize("override", LORA)
@pytest.mark.parametrize("trainer", ["fsdp", "engine"])
def test_lora_is_refused_by_name_in_every_spelling(env, engine_verl, trainer, override):
    site = engine_verl if trainer == "engine" else env["PYTHONPATH"]
    with pytest.raises(BadInput, match="LoRA is not trained here"):
        job_of(env | {"TRAINER": trainer, "PYTHONPATH": str(site)}, override)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.lora_rank=0"],
        ["model.lora_alpha=32", "model.lora_adapter_path=null"],
        ["model.lora_rank=8", "model.lora_rank=0"],
        ["trainer.experiment_name=lora_rank"],
    ],
    ids=" ".join,
)
def test_what_leaves_lora_off_is_no_lora(env, overrides):
    assert job_of(env, *overrides).overrides[-1] == overrides[-1]


def test_a_lora_run_is_refused_before_a_file_is_written(env):
    done = run_sft(env, "model.lora_rank=8")
    assert done.returncode == 2 and done.stderr.startswith("error: model.lora_rank=8: LoRA is not trained here")
    assert not Path(env["CKPT_DIR"]).exists() and not Path(env["OUTPUT_DIR"]).exists()


def test_the_engine_trainers_attention_and_resharding_are_verls_own_keys(env, engine_verl):
    wanted = "model.override_config.attn_implementation=sdpa", "engine.reshard_after_forward=False"
    job = job_of(env | {"TRAINER": "engine", "PYTHONPATH": str(engine_verl)}, *wanted)
    assert job.config["model.override_config.attn_implementation"] == "sdpa"
    assert job.config["engine.reshard_after_forward"] is False and set(wanted) <= set(job.overrides)


def test_another_checkpoint_folder_than_the_locked_one_is_refused(env, tmp_path):
    done = run_sft(env, f"trainer.default_local_dir={tmp_path}/elsewhere")
    assert done.returncode == 2 and "set CKPT_DIR instead" in done.stderr


@pytest.mark.slow
def test_a_checkpoint_without_a_part_that_was_meant_is_refused(env):
    for contents in ("[model,optimiser]", "null"):
        done = run_sft(env, f"trainer.checkpoint.save_contents={contents}")
        assert (
            done.returncode == 2
            and "model, optimizer, extra, hf_model" in done.stderr
            and len(done.stderr.splitlines()) == 1
        )


def test_what_it_cannot_stop_on_is_refused(env):
    for done in (run_sft(env, "--stop_on"), run_sft(env, "--stop_on", "inf")):
        assert (
            done.returncode == 2
            and done.stderr.startswith("error: --stop_on ")
            and not Path(env["OUTPUT_DIR"]).exists()
        )


@pytest.mark.slow
def test_wandb_without_a_login_logs_offline_and_says_so(env):
    done = run_sft(env | {"LOGGER": "console,wandb", "HOME": env["OUTPUT_DIR"]}, "--dry_run")
    assert "WANDB_MODE=offline" in shlex.split(done.stdout) and "offline" in done.stderr
    assert "WANDB_MODE=offline" not in words(env | {"LOGGER": "console,wandb", "WANDB_API_KEY": "k"})


@pytest.mark.slow
def test_rows_are_dealt_out_as_they_come_where_asked_for(env, engine_verl):
    assert "PHASE1_BALANCE=0" in words(env | {"PYTHONPATH": str(engine_verl)}, "data.balance_dp_token=False")


def test_an_override_in_the_engine_trainers_spelling_reaches_the_checks(env, engine_verl):
    done = run_sft(env | {"PYTHONPATH": str(engine_verl)}, "--dry_run", "engine.model_dtype=bf16")
    assert "warn  precision" in done.stderr


def test_a_change_of_run_sft_while_it_runs_does_not_disturb_it(env, tmp_path):
    """bash reads a script as it goes: an update of the toolkit during a training could end it with a wrong status."""
    script = Path(shutil.copy(ROOT / "run_sft.sh", tmp_path))
    python = tmp_path / "python"  # stands for the job's own module: rewrites the script, and leaves nothing to train
    python.write_text(f"#!/bin/bash\nyes '))' | head -c 20000 > {script}\n")
    python.chmod(0o755)
    done = subprocess.run(["bash", script], env=env | {"PYTHON": str(python)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("room", ["full", "missing"])
def test_a_folder_for_temporary_files_without_room_is_named_and_no_run_is_recorded(tmp_path, patched_verl, room):
    """Once, train_run.json said that the run had begun, and the message named no file."""
    env = job_variables(tmp_path, patched_verl) | {"TMPDIR": str(tmp_path / "tmp")}
    if room == "full":
        shim = tmp_path / "mktemp"  # what it names is a link to where every write fails for want of room
        shim.write_text(f"#!/bin/sh\nln -s /dev/full {tmp_path}/argv && echo {tmp_path}/argv\n")
        shim.chmod(0o755)
        env["PATH"] = f"{tmp_path}{os.pathsep}{env['PATH']}"
    done = run_sft(env)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: /") and "TMPDIR" in last, done.stderr
    assert not list(Path(env["CKPT_DIR"]).glob("train_run*"))


STUB = """#!/bin/sh
case "$*" in
  *watch*) exec cat ;;
  *--argv_file*) printf 'sh\\0-c\\0echo ready $(($$ - PHASE1_LAUNCHER)); exec sleep 60\\0' >"$4" ;;
esac
"""


@pytest.mark.parametrize(
    ("asked", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=lambda x: str(int(x))
)
def test_a_run_that_was_asked_to_stop_is_not_said_to_have_failed(tmp_path, asked, code):
    """The shell alone: a stub stands for the interpreter, and for torchrun a process that waits. Its status counts even
    where it ends before the shell, whose own wait a signal ends with the signal's number, looks again."""
    python, looks_late = tmp_path / "python", tmp_path / "looks_late.sh"
    python.write_text(STUB)
    python.chmod(0o755)
    looks_late.write_text("""trap '[[ "$BASH_COMMAND" != "kill -0"* ]] || sleep 0.2' DEBUG\n""")
    folders = {name: str(tmp_path / name) for name in ("CKPT_DIR", "OUTPUT_DIR")}
    env = {"PATH": os.environ["PATH"], "PYTHON": str(python), "BASH_ENV": str(looks_late), **folders}
    command = ["bash", ROOT / "run_sft.sh", "1"]
    run = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(asked, signal.SIG_DFL),  # under nohup SIGHUP is ignored, and bash keeps that
    )
    lines = iter(run.stdout.readline, "")
    assert next(line for line in lines if "ready" in line) == "ready 0\n", "torchrun's number is told to its processes"
    run.send_signal(asked)
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == code and "training was stopped; see" in rest and "failed" not in rest, rest


def test_a_run_that_is_asked_to_stop_while_it_starts_torchrun_stops_too(tmp_path):
    """The signal comes when torchrun runs and the shell does not know its number yet."""
    python, at_that_moment = tmp_path / "python", tmp_path / "at_that_moment.sh"
    python.write_text(STUB)
    python.chmod(0o755)
    at_that_moment.write_text("""trap '[[ "$BASH_COMMAND" != "torchrun=\\$!" ]] || kill -TERM $$' DEBUG\n""")
    folders = {name: str(tmp_path / name) for name in ("CKPT_DIR", "OUTPUT_DIR")}
    env = {"PATH": os.environ["PATH"], "PYTHON": str(python), "BASH_ENV": str(at_that_moment), **folders}
    done = subprocess.run(["bash", ROOT / "run_sft.sh", "1"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and "training was stopped; see" in done.stdout, done


@pytest.mark.parametrize("args", [(), ("--dry_run",)])
def test_a_model_that_cannot_be_downloaded_is_refused_before_the_training_starts(env, args):
    """Each process would ask the Hub for it for a minute and a half, and end in a traceback."""
    done = run_sft(env | {"MODEL_PATH": "owner/model", "HF_ENDPOINT": "http://127.0.0.1:9"}, *args)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: owner/model is not on this machine"), done.stderr
    assert not Path(env["CKPT_DIR"]).exists()
