"""run_sft.sh up to the moment torch would load: the command it builds, what it refuses, where it resumes."""

import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from phase1.files import BadInput
from phase1.preflight import CHECKS
from phase1.sft import ResumePoint, checkpoint_fault, record_start, refuse_changes, report_end, resume_point, run_shape
from phase1.sft_job import Job, hydra_text, parse_override, read_job

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = [{"role": r, "content": r} for r in ("system", "user", "assistant")]


def write_rows(path: Path, rows: int) -> Path:
    pd.DataFrame({"messages": [MESSAGES] * rows}).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def patched_verl(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH: the trainer's file of the installed verl, patched, and a torch that refuses to load."""
    import importlib.util

    spec = importlib.util.find_spec("verl")
    if spec is None:
        pytest.skip("verl is not installed")
    installed = Path(next(iter(spec.submodule_search_locations)))
    site = tmp_path_factory.mktemp("site")
    for name in ("__init__.py", "version/version", "trainer/fsdp_sft_trainer.py"):
        (site / "verl" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(installed / name, site / "verl" / name)
    for name in ("verl", "torch"):
        (site / name).mkdir(exist_ok=True)
        (site / name / "__init__.py").write_text(f"raise SystemExit('{name} was imported')")
    patch(site)
    return site


def patch(site: Path, *args: str) -> None:
    subprocess.run([sys.executable, ROOT / "patches" / "apply_verl_patch.py", *args, "--verl_dir", site / "verl"], check=True)


@pytest.fixture
def env(tmp_path, patched_verl) -> dict[str, str]:
    """Variables of a run that passes every check: 64 rows, a model folder with an empty tensor or two, no GPU."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    (model / "tokenizer.json").write_text("{}")
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    header = json.dumps({"w": {"dtype": "F32", "shape": [250, 4], "data_offsets": [0, 4000]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4000))
    return {
        **{k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ},
        "PYTHON": sys.executable,
        "PYTHONPATH": str(patched_verl),
        "TRAIN_FILE": str(write_rows(tmp_path / "train.parquet", 64)),
        "VAL_FILE": str(write_rows(tmp_path / "val.parquet", 8)),
        "MODEL_PATH": str(model),
        "CKPT_DIR": str(tmp_path / "ckpt"),
        "OUTPUT_DIR": str(tmp_path / "outputs"),
        "NPROC": "2",
        "TRAIN_BATCH_SIZE": "8",
        "MICRO_BATCH_SIZE": "2",
        "LOGGER": "console",
        "DEVICE": "cpu",
    }


def run_sft(env: dict[str, str], *args: str) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "run_sft.sh", *args], env=env, capture_output=True, text=True)


def words(env: dict[str, str], *args: str) -> list[str]:
    done = run_sft(env, "--dry_run", *args)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


# ------------------------------------------------------------------------------------------------------ the command
def test_the_command_at_defaults_is_the_specs_token_for_token(tmp_path, patched_verl):
    gpus = tmp_path / "bin" / "nvidia-smi"  # eight GPUs to the preflight, which only counts them
    gpus.parent.mkdir()
    # Slowly: a reader that leaves at the first line ends it by SIGPIPE, which once made DEVICE=cpu of eight GPUs.
    gpus.write_text("#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7; do echo \"GPU $i: NVIDIA H100\" || exit 1; sleep 0.02; done\n")
    gpus.chmod(0o755)
    project = tmp_path / "coding_model_project" / "phase_1_ SFT"  # the folder's name in the original project
    project.mkdir(parents=True)
    for name in ("run_sft.sh", "phase1", "patches"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, project / name)
    (project / "data").mkdir()
    write_rows(project / "data" / "sft_train.parquet", 93_717)
    write_rows(project / "data" / "sft_val.parquet", 1_912)
    env = {"PATH": f"{gpus.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "PYTHON": sys.executable, "PYTHONPATH": str(patched_verl)}
    done = subprocess.run(["bash", project / "run_sft.sh", "--dry_run"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ckpt = f"{project}/checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder"
    assert shlex.split(done.stdout) == [
        "env", "VERL_USE_EXTERNAL_MODULES=phase1_verl_hook", "PYTHONUNBUFFERED=1", "PYTHONSAFEPATH=1",
        f"PYTHONPATH={project}/patches:{project}:{patched_verl}", "WANDB_MODE=offline",
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=8",
        "-m", "verl.trainer.fsdp_sft_trainer",
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
    ]  # fmt: skip
    assert not (project / "checkpoints").exists() and not (project / "outputs").exists()  # a dry run writes nothing


def test_every_key_of_the_command_is_one_of_verls_own_config(env):
    """Composed by Hydra from the installed verl's config folder, as the trainer does it."""
    import importlib.util

    from hydra import compose, initialize_config_dir

    package = Path(next(iter(importlib.util.find_spec("verl").submodule_search_locations)))
    overrides = [w for w in words(env)[words(env).index("verl.trainer.fsdp_sft_trainer") + 1 :] if not w.startswith("hydra.")]
    with initialize_config_dir(str(package / "trainer" / "config"), version_base=None):
        config = compose("sft_trainer", overrides)
    assert config.trainer.default_local_dir == env["CKPT_DIR"] and config.data.train_batch_size == 8
    assert config.optim.lr == 2e-5 and list(config.optim.betas) == [0.9, 0.95]


HOSTILE = ["/a/phase_1_ SFT/x", "a=b", "a,b", "a, b", "it's", 'a"b', "'quoted'", "back\\slash", "trail\\", "a\\'b", "${oc.env:HOME}", "\\${x}", "1e3", "12",
           "true", "null", " lead", "trail ", "~/x", "a#b", "{a:1}", "[a]", "(x)", "a:b", "é 漢", "a\tb", "%s $HOME", "nan", "@x", "a;b&c|d"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_any_shape_survives_hydras_grammar(text):
    from omegaconf import OmegaConf

    value = parse_override(f"key={hydra_text(text)}")["key"]
    assert OmegaConf.create({"key": value}).key == text


@pytest.mark.parametrize("text", ["/a/phase_1_ SFT/x", "Qwen/Qwen2.5-Coder-7B-Instruct", "/data/sft_train.parquet", "a b"])
def test_a_text_that_hydra_reads_as_it_stands_is_not_quoted(text):
    assert hydra_text(text) == text


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
    assert {"--nproc_per_node=1", "data.train_batch_size=4", "trainer.total_training_steps=10", "trainer.save_freq=5", "trainer.logger=[console]"} <= set(got)
    assert next(w for w in got if w.startswith("trainer.default_local_dir=")).endswith("/smoke_test")


def test_several_nodes_meet_at_the_master_address(env):
    got = words(env | {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "NPROC": "1"})
    assert {"--nnodes=2", "--node_rank=1", "--master_addr=10.0.0.1", "--master_port=29500"} <= set(got) and "--standalone" not in got
    assert run_sft(env | {"NNODES": "2", "NPROC": "1"}, "--dry_run").returncode == 2  # nobody to meet


def test_wandb_without_a_login_logs_offline_and_says_so(env):
    done = run_sft(env | {"LOGGER": "console,wandb", "HOME": env["OUTPUT_DIR"]}, "--dry_run")
    assert "WANDB_MODE=offline" in shlex.split(done.stdout) and "offline" in done.stderr
    assert "WANDB_MODE=offline" not in words(env | {"LOGGER": "console,wandb", "WANDB_API_KEY": "k"})


# --------------------------------------------------------------------------------------------------------- refusals
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
    if what == "fewer GPUs than processes":
        env["DEVICE"] = "cuda"
        env["CUDA_VISIBLE_DEVICES"] = "0"
        return "GPUs for 2 processes"
    if what == "a full disk":
        header = json.dumps({"w": {"dtype": "F32", "shape": [10**13], "data_offsets": [0, 0]}}).encode()
        (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        return "MAX_CKPT_TO_KEEP"
    if what == "an unreadable override":
        return "optim.lr==3"
    raise ValueError(what)


CASES = {"batch": ["batch size that does not divide", "batch size that is no number"],
         "train": ["no training file", "torn training file", "training rows as JSON strings", "another column name"],
         "schedule": ["fewer training rows than a batch", "more steps than the epochs have", "save_freq 0"],
         "val": ["too few validation rows for a micro batch a process"],
         "model": ["no model folder", "no tokenizer", "no chat template", "no weights"],
         "devices": ["fewer GPUs than processes"], "disk": ["a full disk"]}  # fmt: skip


@pytest.mark.parametrize(("check", "what"), [(c, w) for c, cases in CASES.items() for w in cases])
def test_preflight_refuses_before_torch_loads_and_names_the_cause(env, tmp_path, check, what):
    named = broken(env, tmp_path, what)
    done = run_sft(env)
    assert done.returncode == 2, done.stdout + done.stderr
    assert any(line.startswith(f"fail  {check} ") and named in line for line in done.stderr.splitlines()), done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "was imported" not in done.stdout + done.stderr
    assert not Path(env["CKPT_DIR"]).exists() and not Path(env["OUTPUT_DIR"]).exists()


def test_every_check_has_a_case_that_fails_or_warns():
    tested_apart = {"precision", "trainer", "wandb"}
    assert set(CASES) | tested_apart == set(CHECKS)


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
    done = run_sft(env | {"PYTHONPATH": str(site)})
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


# ----------------------------------------------------------------------------------------------------------- resume
def make_checkpoint(ckpt_dir: str, step: int, world_size: int = 2) -> Path:
    """A folder with whole (empty) shards, as verl names them."""
    folder = Path(ckpt_dir) / f"global_step_{step}"
    folder.mkdir(parents=True)
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world_size}))
    shards = [f"{k}_world_size_{world_size}_rank_{r}.pt" for k in ("model", "optim", "extra_state") for r in range(world_size)]
    for name in [*shards, "data.pt"]:
        with zipfile.ZipFile(folder / name, "w") as z:
            z.writestr("data.pkl", "x" * 2000)
    return folder


def tracker(env: dict[str, str]) -> Path:
    return Path(env["CKPT_DIR"]) / "latest_checkpointed_iteration.txt"


def job_of(env: dict[str, str]) -> Job:
    """The job that run_sft.sh would describe: its own block of defaults, read by bash."""
    block = f"HERE={ROOT}; source <(sed -n '/^# ---- data/,/^export PYTHONPATH/p' {ROOT}/run_sft.sh); env -0"
    listed = subprocess.run(["bash", "-c", block], env=env, capture_output=True, text=True, check=True).stdout
    return read_job(dict(line.split("=", 1) for line in listed.split("\0") if line), [])


def begin(env: dict[str, str]) -> None:
    """Record the start of a first run, as run_sft.sh does before torchrun."""
    record_start(job_of(env), run_shape(job_of(env)), ["torchrun"], step=0, total=16)


DAMAGES = {
    "torn shard": lambda last: (last / SHARD).write_bytes((last / SHARD).read_bytes()[:1000]),
    "missing shard": lambda last: (last / SHARD).unlink(),
    "no data.pt": lambda last: (last / "data.pt").unlink(),
    "no fsdp_config.json": lambda last: (last / "fsdp_config.json").unlink(),
    "torn fsdp_config.json": lambda last: (last / "fsdp_config.json").write_text('{"FSDP_version": 2, "world'),
    "folder removed": shutil.rmtree,
}
SHARD = "optim_world_size_2_rank_1.pt"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_gives_way_to_the_whole_one_before(env, damage):
    make_checkpoint(env["CKPT_DIR"], 4)
    last = make_checkpoint(env["CKPT_DIR"], 8)
    tracker(env).write_text("8")
    DAMAGES[damage](last)
    resume = resume_point(job_of(env))
    assert resume.step == 4 and str(last) in resume.note
    resume.settle(Path(env["CKPT_DIR"]))
    assert tracker(env).read_text() == "4"  # which is all that verl looks at


def test_a_checkpoint_newer_than_the_tracker_does_not_count(env):
    for step in (4, 8):
        make_checkpoint(env["CKPT_DIR"], step)
    tracker(env).write_text("4")
    assert resume_point(job_of(env)).step == 4


def test_without_any_whole_checkpoint_training_starts_over(env):
    (make_checkpoint(env["CKPT_DIR"], 4) / "data.pt").unlink()
    tracker(env).write_text("4")
    resume = resume_point(job_of(env))
    resume.settle(Path(env["CKPT_DIR"]))
    assert resume.step == 0 and not tracker(env).exists()


@pytest.mark.parametrize("text", [None, "", "four"])
def test_a_lost_or_unreadable_tracker_is_written_again(env, text):
    make_checkpoint(env["CKPT_DIR"], 4)
    if text is not None:
        tracker(env).write_text(text)
    resume_point(job_of(env)).settle(Path(env["CKPT_DIR"]))
    assert tracker(env).read_text() == "4"


def test_a_fresh_folder_starts_at_step_0_without_a_word(env):
    assert resume_point(job_of(env)) == ResumePoint(0, None, "")


def test_a_finished_job_trains_nothing_and_exits_0(env):
    make_checkpoint(env["CKPT_DIR"], 16)  # 64 rows / 8 x 2 epochs
    tracker(env).write_text("16")
    done = run_sft(env)
    assert done.returncode == 0 and "finished already: step 16 of 16" in done.stdout
    assert not list((Path(env["OUTPUT_DIR"]) / "logs").iterdir())


def test_another_world_size_is_refused_with_the_way_out(env):
    make_checkpoint(env["CKPT_DIR"], 4, world_size=4)
    tracker(env).write_text("4")
    done = run_sft(env)
    assert done.returncode == 2 and "saved by 4 processes" in done.stderr and "huggingface" in done.stderr


def test_a_refused_resume_is_exit_2_and_leaves_the_tracker(env):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("8")
    done = run_sft(env | {"LR": "1e-3"})
    assert done.returncode == 2 and "optim.lr was 2e-05, is 0.001" in done.stderr
    assert tracker(env).read_text() == "8"


CHANGES = {"TRAIN_FILE": "data.train_files", "LR": "optim.lr", "EPOCHS": "trainer.total_epochs", "MAX_LENGTH": "data.max_length",
           "TRAIN_BATCH_SIZE": "data.train_batch_size", "MODEL_PATH": "model.partial_pretrain"}  # fmt: skip


@pytest.mark.parametrize("knob", CHANGES)
def test_changed_data_or_schedule_is_refused_by_name_unless_allowed(env, tmp_path, knob):
    begin(env)
    refuse_changes(job_of(env), run_shape(job_of(env)))  # nothing changed yet
    write_rows(tmp_path / "other.parquet", 65)
    shutil.copytree(env["MODEL_PATH"], tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Other"]}')
    changed = {"TRAIN_FILE": tmp_path / "other.parquet", "MODEL_PATH": tmp_path / "other", "LR": "1e-3"}
    job = job_of(env | {knob: str(changed.get(knob, 16))})
    with pytest.raises(BadInput, match=re.escape(CHANGES[knob])):
        refuse_changes(job, run_shape(job))
    job.environ["ALLOW_CHANGED_DATA"] = "1"
    refuse_changes(job, run_shape(job))


def test_a_moved_model_and_moved_data_are_the_same_run(env, tmp_path):
    begin(env)
    for name in ("MODEL_PATH", "TRAIN_FILE"):
        env[name] = str(Path(env[name]).rename(tmp_path / f"moved_{Path(env[name]).name}"))
    refuse_changes(job_of(env), run_shape(job_of(env)))


def test_an_end_before_the_expected_step_is_exit_1(env, capsys):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 8)
    tracker(env).write_text("8")
    assert report_end(job_of(env)) == 1
    assert "step 8 of 16" in capsys.readouterr().err
    assert json.loads((Path(env["CKPT_DIR"]) / "train_run.json").read_text())["status"] == "running"


def test_an_end_at_the_expected_step_with_a_torn_checkpoint_is_exit_1(env):
    begin(env)
    DAMAGES["torn shard"](make_checkpoint(env["CKPT_DIR"], 16))
    tracker(env).write_text("16")
    assert report_end(job_of(env)) == 1


def test_a_whole_checkpoint_has_no_fault(tmp_path):
    assert checkpoint_fault(make_checkpoint(str(tmp_path), 1)) is None


def test_parse_override_reads_deletions_and_refuses_sweeps():
    assert parse_override("~trainer.logger") == {}
    with pytest.raises(BadInput, match="sweep"):
        parse_override("optim.lr=1,2")
