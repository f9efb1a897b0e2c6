"""run_sft.sh up to the moment torch would load: the command it builds, what it refuses, where it resumes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from phase1.files import BadInput
from phase1.train.job import SETTINGS, TRAINERS, hydra_text, parse_override
from phase1.train.run import (
    ResumePoint,
    checkpoint_fault,
    record_start,
    refuse_changes,
    report_end,
    report_stop,
    resume_point,
    run_shape,
)
from tests.train.sft_runs import job_of, pretend_gpus, run_sft, words, write_rows

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------------------ the command
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
    assert done.returncode == 0, done.stderr
    ckpt = f"{project}/checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder"
    assert shlex.split(done.stdout) == [
        "env",
        "VERL_USE_EXTERNAL_MODULES=phase1_verl_hook",
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


def test_every_key_of_the_command_is_one_of_verls_own_config(env):
    """Composed by Hydra from the installed verl's config folder, as the trainer does it."""
    import importlib.util

    from hydra import compose, initialize_config_dir

    package = Path(next(iter(importlib.util.find_spec("verl").submodule_search_locations)))
    overrides = [
        w for w in words(env)[words(env).index("verl.trainer.fsdp_sft_trainer") + 1 :] if not w.startswith("hydra.")
    ]
    with initialize_config_dir(str(package / "trainer" / "config"), version_base=None):
        config = compose("sft_trainer", overrides)
    assert config.trainer.default_local_dir == env["CKPT_DIR"] and config.data.train_batch_size == 8
    assert config.optim.lr == 2e-5 and list(config.optim.betas) == [0.9, 0.95]


HOSTILE = [
    "/a/phase_1_ SFT/x",
    "a=b",
    "a,b",
    "a, b",
    "it's",
    'a"b',
    "'quoted'",
    "back\\slash",
    "trail\\",
    "a\\'b",
    "${oc.env:HOME}",
    "\\${x}",
    "1e3",
    "12",
    "true",
    "null",
    " lead",
    "trail ",
    "~/x",
    "a#b",
    "{a:1}",
    "[a]",
    "(x)",
    "a:b",
    "é 漢",
    "a\tb",
    "%s $HOME",
    "nan",
    "@x",
    "a;b&c|d",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_any_shape_survives_hydras_grammar(text):
    from omegaconf import OmegaConf

    value = parse_override(f"key={hydra_text(text)}")["key"]
    assert OmegaConf.create({"key": value}).key == text


@pytest.mark.parametrize(
    "text", ["/a/phase_1_ SFT/x", "Qwen/Qwen2.5-Coder-7B-Instruct", "/data/sft_train.parquet", "a b"]
)
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
    assert {
        "--nproc_per_node=1",
        "data.train_batch_size=4",
        "trainer.total_training_steps=10",
        "trainer.save_freq=5",
        "trainer.logger=[console]",
    } <= set(got)
    assert next(w for w in got if w.startswith("trainer.default_local_dir=")).endswith("/smoke_test")


def test_several_nodes_meet_at_the_master_address(env):
    got = words(env | {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "NPROC": "1"})
    assert {"--nnodes=2", "--node_rank=1", "--master_addr=10.0.0.1", "--master_port=29500"} <= set(
        got
    ) and "--standalone" not in got
    assert run_sft(env | {"NNODES": "2", "NPROC": "1"}, "--dry_run").returncode == 2  # nobody to meet


MISSPELT = [
    {"COMPILE": "True"},
    {"FUSED_LOSS": "yes"},
    {"GRADIENT_CHECKPOINTING": "no"},
    {"RESHARD": "off"},
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


@pytest.mark.parametrize("knobs", MISSPELT, ids=str)
def test_a_misspelt_value_is_refused_in_one_line_and_not_taken_for_another(env, engine_verl, knobs):
    done = run_sft(env | {"TRAINER": "engine", "PYTHONPATH": str(engine_verl)} | knobs)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert list(knobs.values())[-1] in done.stderr and not Path(env["CKPT_DIR"]).exists()


def test_another_checkpoint_folder_than_the_locked_one_is_refused(env, tmp_path):
    done = run_sft(env, f"trainer.default_local_dir={tmp_path}/elsewhere")
    assert done.returncode == 2 and "set CKPT_DIR instead" in done.stderr


def test_a_checkpoint_without_a_part_that_was_meant_is_refused(env):
    for contents in ("[model,optimiser]", "null"):
        done = run_sft(env, f"trainer.checkpoint.save_contents={contents}")
        assert (
            done.returncode == 2
            and "model, optimizer, extra, hf_model" in done.stderr
            and len(done.stderr.splitlines()) == 1
        )


def test_what_it_cannot_stop_on_is_refused(env):
    for done in (run_sft(env, "--stop_on"), run_sft(env, "--stop_on", "inf"), run_sft(env | {"STOP_ON": "inf"})):
        assert (
            done.returncode == 2
            and done.stderr.startswith("error: --stop_on ")
            and not Path(env["OUTPUT_DIR"]).exists()
        )


def test_wandb_without_a_login_logs_offline_and_says_so(env):
    done = run_sft(env | {"LOGGER": "console,wandb", "HOME": env["OUTPUT_DIR"]}, "--dry_run")
    assert "WANDB_MODE=offline" in shlex.split(done.stdout) and "offline" in done.stderr
    assert "WANDB_MODE=offline" not in words(env | {"LOGGER": "console,wandb", "WANDB_API_KEY": "k"})


# ----------------------------------------------------------------------------------------------------------- resume
def make_checkpoint(ckpt_dir: str, step: int, world_size: int = 2) -> Path:
    """A folder with whole (empty) shards, as verl names them."""
    folder = Path(ckpt_dir) / f"global_step_{step}"
    folder.mkdir(parents=True)
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world_size}))
    shards = [
        f"{k}_world_size_{world_size}_rank_{r}.pt" for k in ("model", "optim", "extra_state") for r in range(world_size)
    ]
    for name in [*shards, "data.pt"]:
        with zipfile.ZipFile(folder / name, "w") as z:
            z.writestr("data.pkl", "x" * 2000)
    return folder


def tracker(env: dict[str, str]) -> Path:
    return Path(env["CKPT_DIR"]) / "latest_checkpointed_iteration.txt"


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


def test_a_named_checkpoint_is_gone_on_from_unless_resuming_is_off(env, tmp_path):
    named = f"trainer.resume_from_path={make_checkpoint(str(tmp_path / 'elsewhere'), 4)}"
    assert resume_point(job_of(env, named)).step == 4
    assert resume_point(job_of(env | {"RESUME_MODE": "disable"}, named)).step == 0
    for job in (job_of(env | {"RESUME_MODE": "resume_path"}), job_of(env, "trainer.resume_from_path=/somewhere")):
        with pytest.raises(BadInput, match="global_step_N"):
            resume_point(job)


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


CHANGES = {
    "TRAIN_FILE": "data.train_files",
    "LR": "optim.lr",
    "EPOCHS": "trainer.total_epochs",
    "MAX_LENGTH": "data.max_length",
    "TRAIN_BATCH_SIZE": "data.train_batch_size",
    "MODEL_PATH": "model.partial_pretrain",
}


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


# -------------------------------------------------------------------------------------------------- the two trainers
@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_setting_is_a_key_of_the_trainers_own_schema(trainer):
    """verl 0.7.0's and 0.9.1's configuration as Hydra composes it: a key that is not there would be refused at the
    start."""
    site = Path({"fsdp": sys.prefix, "engine": os.environ.get("VENV_LATEST", ROOT / ".venv-latest")}[trainer])
    config = {"fsdp": "sft_trainer", "engine": "sft_trainer_engine"}[trainer]
    found = list(site.glob(f"lib/python3*/site-packages/verl/trainer/config/{config}.yaml"))
    if not found:
        pytest.skip(f"{site} is not there: setup_cpu.sh makes it")
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(found[0].parent), version_base=None):
        schema = compose(config)
    keys = [s.key_of(trainer) for s in SETTINGS if s.key_of(trainer)]
    assert len(keys) > 30
    for key in keys:
        *sections, last = key.removeprefix("+").split(".")
        node = schema
        for section in sections:
            assert section in node, f"{trainer} has no {key}"
            node = node[section]
        assert key.startswith("+") or last in node, (
            f"{trainer} has no {key}"
        )  # +: added to a section that takes anything


def test_both_trainers_get_the_same_hyperparameters(env, engine_verl):
    """By the spec's names; what only one of them has is listed here, so that nothing is left to a trainer's own
    default."""
    jobs = {t: job_of(env | {"TRAINER": t, "PYTHONPATH": str(engine_verl)}).config for t in TRAINERS}
    assert jobs["fsdp"].keys() - jobs["engine"].keys() == {"data.multiturn.enable"}
    extra = {s.key.removeprefix("+") for s in SETTINGS if s.only == "engine"}
    assert jobs["engine"].keys() - jobs["fsdp"].keys() == extra
    shared = jobs["fsdp"].keys() & jobs["engine"].keys()
    assert {k: jobs["fsdp"][k] for k in shared} == {k: jobs["engine"][k] for k in shared} and len(shared) > 28


def test_the_engine_trainers_command_names_its_own_module_hook_and_keys(env, engine_verl):
    got = words(env | {"PYTHONPATH": str(engine_verl)})  # a verl without the fsdp trainer: engine is the default
    assert {
        "VERL_USE_EXTERNAL_MODULES=phase1_engine_hook",
        "PHASE1_FUSED_LOSS=1",
        "PHASE1_COMPILE=0",
        "PHASE1_ACTIVATION_MEMORY_BUDGET=0",
        "PHASE1_BALANCE=1",
        "PHASE1_SCHEDULE_STEPS=16",
        "verl.trainer.sft_trainer",
        f"model.path={env['MODEL_PATH']}",
        "optim.lr_scheduler_type=cosine",
        "optim.lr=2e-5",
        "optim.betas=[0.9,0.95]",
        "engine.strategy=fsdp2",
        "engine.model_dtype=fp32",
        "data.pad_mode=no_padding",
        "checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    } <= set(got)
    assert not {w for w in got if w.startswith(("model.partial_pretrain", "optim.lr_scheduler="))}


def test_rows_are_dealt_out_as_they_come_where_asked_for(env, engine_verl):
    assert "PHASE1_BALANCE=0" in words(env | {"PYTHONPATH": str(engine_verl)}, "data.balance_dp_token=False")


def test_an_override_in_the_engine_trainers_spelling_reaches_the_checks(env, engine_verl):
    done = run_sft(env | {"PYTHONPATH": str(engine_verl)}, "--dry_run", "engine.model_dtype=bf16")
    assert "warn  precision" in done.stderr


def test_checkpoints_of_one_trainer_are_refused_to_the_other(env, engine_verl):
    begin(env)
    job = job_of(env | {"TRAINER": "engine", "PYTHONPATH": str(engine_verl)})
    with pytest.raises(BadInput, match="trainer was fsdp, is engine"):
        refuse_changes(job, run_shape(job))


def test_what_a_stopped_run_lost_is_said(env, tmp_path, capsys):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("4")
    (tmp_path / "m.jsonl").write_text(json.dumps({"run": "ckpt", "step": 7}) + "\n")
    assert report_stop(job_of(env), tmp_path / "m.jsonl") == 0
    assert "trained up to step 7, saved up to step 4: 3 steps after it are lost" in capsys.readouterr().out
    with open(tmp_path / "m.jsonl", "a") as f:
        f.write('{"run": "ckpt", "st')  # torn by the crash that is reported
    assert report_stop(job_of(env), tmp_path / "m.jsonl") == 0
    assert "trained up to step 7" in capsys.readouterr().out


def test_a_checkpoint_of_broken_weights_is_named_before_the_next_start_goes_on_from_it(env, tmp_path, capsys):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("4")
    for first, named in ((5, True), (6, False)):  # weights saved at 4 gave the loss of 5
        rows = [{"run": "ckpt", "step": s, "train/loss": 1.0 if s < first else None} for s in range(1, 8)]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        report_stop(job_of(env), tmp_path / "m.jsonl")
        *before, last = capsys.readouterr().out.splitlines()
        assert last.startswith("trained up to step 7, saved up to step 4: 3 steps") and bool(before) == named
        assert not named or "global_step_4 and later hold broken weights" in before[0]


def test_each_node_keeps_a_record_of_its_own_in_the_folder_they_share(env, tmp_path, capsys):
    nodes = [
        job_of(env | {"NNODES": "2", "NODE_RANK": str(r), "NPROC": "1", "MASTER_ADDR": "127.0.0.1"}) for r in (0, 1)
    ]
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("4")
    for step in (0, 4):
        for job in nodes:
            record_start(job, run_shape(job), ["torchrun"], step=step, total=16)
    for name in ("train_run.json", "train_run_node1.json"):
        assert [s["from_step"] for s in json.loads((Path(env["CKPT_DIR"]) / name).read_text())["sessions"]] == [0, 4]
    assert report_stop(nodes[1], tmp_path / "none") == 0
    assert "trained up to step" not in capsys.readouterr().out  # steps are logged on the first node
