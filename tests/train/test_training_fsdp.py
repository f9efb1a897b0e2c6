"""run_sft.sh with the real verl 0.7.0 on a CPU: two processes, FSDP2, the demo's base model, 48 rows, 12 steps.

The installed verl is copied and the copy patched, so that these tests run whether or not the set-up patched it.
"""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from phase1.handoff.export import export_model
from phase1.handoff.grpo import grpo_yaml
from tests.train.sft_runs import Run, addition, interrupted_after, members

ROOT = Path(__file__).resolve().parents[2]
STEPS, STEPS_PER_EPOCH, SAVE_FREQ = 12, 6, 3

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("training")]


@pytest.fixture(scope="module")
def env(tmp_path_factory, base_model) -> dict[str, str]:
    """Variables of a run of two epochs of six steps; CKPT_DIR and OUTPUT_DIR are each test's own."""
    spec = importlib.util.find_spec("verl")
    if spec is None:
        pytest.skip("verl is not installed")
    folder = tmp_path_factory.mktemp("phase_1_ SFT")  # the original project's folder has a space
    shutil.copytree(next(iter(spec.submodule_search_locations)), folder / "site" / "verl")  # with its compiled modules
    subprocess.run(
        [sys.executable, ROOT / "patches/apply_verl_patch.py", "--verl_dir", folder / "site" / "verl"], check=True
    )
    rng = random.Random(0)
    for name, rows in (("train", 48), ("val", 8)):
        pd.DataFrame({"messages": [addition(rng) for _ in range(rows)]}).to_parquet(folder / f"{name}.parquet")
    return {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(folder / "site"),
        "MODEL_PATH": str(base_model),
        "TRAIN_FILE": str(folder / "train.parquet"),
        "VAL_FILE": str(folder / "val.parquet"),
        "MAX_LENGTH": "256",
        "TRAIN_BATCH_SIZE": "8",
        "MICRO_BATCH_SIZE": "4",
        "LR": "1e-2",
        "EPOCHS": "2",
        "SAVE_FREQ": str(SAVE_FREQ),
        "TEST_FREQ": "6",
        "LOGGER": "console",
        "DEVICE": "cpu",
        "NPROC": "2",
    }


@pytest.fixture(scope="module")
def whole(env, tmp_path_factory) -> Run:
    """Two processes, all twelve steps."""
    return Run(env, tmp_path_factory.mktemp("whole") / "ckpt").wait()


@pytest.fixture(scope="module")
def single(env, tmp_path_factory) -> Run:
    """One process, the same global batches: DistributedSampler deals each batch out row by row."""
    return Run(env | {"MICRO_BATCH_SIZE": "8", "NPROC": "1"}, tmp_path_factory.mktemp("single") / "ckpt").wait()


def test_training_ends_with_exit_0_at_its_last_step(whole):
    assert whole.process.returncode == 0, whole.output
    record = json.loads((whole.ckpt_dir / "train_run.json").read_text())
    assert (record["status"], record["final_step"], record["expected_steps"]) == ("complete", STEPS, STEPS)
    assert record["stamp"]["versions"]["verl"] == "0.7.0"


def test_the_console_log_is_kept_whole(whole):
    assert whole.log() in whole.output  # on the screen and in the file


def test_every_step_logs_the_metrics_that_are_monitored(whole):
    assert list(whole.steps()) == list(range(1, STEPS + 1))
    for metrics in whole.steps().values():
        assert set(metrics) == {"train/loss", "train/lr(1e-3)", "train/grad_norm", "train/global_tokens"}
        assert float(metrics["train/grad_norm"]) > 0
    assert re.findall(r"step:(\d+) - val/loss", whole.log()) == ["6", "12"]


def test_the_model_learns(whole):
    losses = [float(m["train/loss"]) for m in whole.steps().values()]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.parametrize(("metric", "tolerance"), [("train/grad_norm", 0.01), ("train/loss", 0.001)])
def test_two_processes_log_what_one_process_logs_for_the_same_global_batch(whole, single, metric, tolerance):
    assert single.process.returncode == 0, single.output
    assert len(single.steps()) == STEPS
    for step, metrics in single.steps().items():
        assert float(whole.steps()[step][metric]) == pytest.approx(float(metrics[metric]), rel=tolerance)


@pytest.mark.parametrize("world", [1, 2])
def test_a_checkpoint_holds_what_the_contract_lists(whole, single, world):
    whole = (single, whole)[world - 1]
    shards = {
        f"{kind}_world_size_{world}_rank_{rank}.pt"
        for kind in ("model", "optim", "extra_state")
        for rank in range(world)
    }
    assert {p.name for p in whole.ckpt_dir.glob("global_step_*")} == {f"global_step_{s}" for s in (3, 6, 9, 12)}
    for folder in whole.ckpt_dir.glob("global_step_*"):
        assert {p.name for p in folder.iterdir()} == shards | {"fsdp_config.json", "data.pt", "huggingface"}
        assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {
            p.name for p in (folder / "huggingface").iterdir()
        }
    assert (whole.ckpt_dir / "latest_checkpointed_iteration.txt").read_text() == str(STEPS)


@pytest.mark.parametrize("world", [1, 2])
def test_a_finished_job_started_again_trains_nothing(whole, single, world):
    whole = (single, whole)[world - 1]
    files = {p: p.stat().st_mtime_ns for p in whole.ckpt_dir.rglob("*") if p.is_file()}
    again = Run(whole.env, whole.ckpt_dir).wait()
    assert again.process.returncode == 0 and "nothing is trained" in again.output
    assert {p: p.stat().st_mtime_ns for p in whole.ckpt_dir.rglob("*") if p.is_file()} == files


def test_a_killed_run_leaves_no_process_and_resumes_past_a_torn_checkpoint_with_equal_losses(env, whole, tmp_path):
    killed = Run(env, tmp_path / "ckpt")
    deadline = time.monotonic() + 300
    while 8 not in killed.steps() and time.monotonic() < deadline and killed.process.poll() is None:
        time.sleep(0.1)
    killed.process.kill()  # SIGKILL to run_sft.sh alone: nothing it could pass on
    killed.wait()
    assert not killed.outlived_by(seconds=120)

    last = int(
        (tmp_path / "ckpt" / "latest_checkpointed_iteration.txt").read_text()
    )  # 6, or 9 if the step at work was saved
    torn = tmp_path / "ckpt" / f"global_step_{last}" / "optim_world_size_2_rank_1.pt"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])  # as if it had been killed while saving
    resumed = Run(env, tmp_path / "ckpt").wait()
    assert resumed.process.returncode == 0, resumed.output
    before = last - SAVE_FREQ
    assert f"resuming from global_step_{before}" in resumed.output
    assert resumed.steps() == {s: m for s, m in whole.steps().items() if s > before}
    sessions = json.loads((tmp_path / "ckpt" / "train_run.json").read_text())["sessions"]
    assert [s["from_step"] for s in sessions] == [0, before]


def test_a_run_interrupted_at_an_epochs_end_goes_on_with_the_losses_of_the_uninterrupted_one(single, tmp_path):
    """There verl itself trains nothing and exits 0 (verl#7401). The killed run above goes on in mid-epoch."""
    resumed = Run(single.env, interrupted_after(STEPS_PER_EPOCH, single.ckpt_dir, tmp_path / "ckpt")).wait()
    assert resumed.process.returncode == 0, resumed.output
    assert resumed.steps() == {s: m for s, m in single.steps().items() if s > STEPS_PER_EPOCH}


def test_a_training_whose_torchrun_is_killed_leaves_no_process_and_its_status_says_that_it_failed(env, tmp_path):
    """As by the kernel, when memory runs out."""
    stopped = Run(env | {"EPOCHS": "1000"}, tmp_path / "ckpt", "1")
    while "dataset len" not in stopped.log() and stopped.process.poll() is None:
        time.sleep(0.1)
    launcher = next(pid for pid, line in members(stopped.ckpt_dir).items() if "torch.distributed.run" in line)
    os.kill(launcher, signal.SIGKILL)
    stopped.wait()
    assert stopped.process.returncode not in (0, 2)
    assert ("run the same command again" in stopped.output) == ("step:1 - train" in stopped.log())
    assert not stopped.outlived_by(seconds=60)


def test_a_trainer_whose_torchrun_was_killed_while_it_imported_ends_too(env):
    """The kernel tells of no death that came before it was asked to."""
    script = """
import os, subprocess, time
from phase1_resume import die_with_the_launcher
def fate(launcher):
    os.environ["PHASE1_LAUNCHER"] = str(launcher.pid)
    if not (child := os.fork()):
        die_with_the_launcher()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
alive, gone, zombie = (subprocess.Popen(["sleep", seconds]) for seconds in ("60", "0", "0"))
gone.wait()
time.sleep(1)  # nobody waits for the zombie
assert (fate(alive), fate(gone), fate(zombie)) == (0, -9, -9)
alive.kill()
"""
    env = env | {"PYTHONPATH": str(ROOT / "patches"), "TORCHELASTIC_RUN_ID": "none"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_data_loader_resumes_in_mid_epoch_and_starts_anew_after_its_end(env):
    """Without workers (as on a CPU) and with them (as on GPUs), whose states differ in form."""
    script = """
from phase1_resume import ResumableDataLoader, batches_handed_out
for workers in (0, 2):
    loader = lambda: ResumableDataLoader(list(range(12)), batch_size=2, num_workers=workers)
    running, states = loader(), []
    for batches, _ in enumerate(running, 1):
        states.append(running.state_dict())
        assert batches_handed_out(states[-1]) == batches, states[-1]
    for batches, state in enumerate(states, 1):
        resumed = loader()
        resumed.load_state_dict(state)
        assert [b.tolist() for b in resumed] == [b.tolist() for b in loader()][batches % 6:], (workers, batches)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=env | {"PYTHONPATH": str(ROOT / "patches")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_process_group_ends_the_epoch_between_two_steps(env, asked):
    """torchrun signals a worker's whole process group, in which are the loader's own workers, as on GPUs."""
    script = """
import time
from phase1_resume import ResumableDataLoader, stop_between_steps
stop_between_steps()
for number, _ in enumerate(ResumableDataLoader(list(range(1000)), batch_size=2, num_workers=2)):
    print("begin", number, flush=True)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass
    print("end", number, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=env | {"PYTHONPATH": str(ROOT / "patches")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = [process.stdout.readline() for _ in range(3)]  # the first step is over, the second begun
    os.killpg(process.pid, asked)
    rest, _ = process.communicate(timeout=60)
    assert "".join(lines) + rest == "begin 0\nend 0\nbegin 1\nend 1\n" and process.returncode == 128 + asked


@pytest.fixture(scope="module")
def smoke(env, base_model, tmp_path_factory) -> Run:
    """--smoke, from an exported model as the hand-off's configuration names it, in a path with a space."""
    asked = {"TRAIN_BATCH_SIZE", "SAVE_FREQ", "TEST_FREQ", "NPROC", "LOGGER"}  # what --smoke sets unless told otherwise
    folder = tmp_path_factory.mktemp("phase 1")
    exported = export_model(base_model, folder / "model")
    model = yaml.safe_load(grpo_yaml(exported, ROOT))["model"]["partial_pretrain"]
    assert model == str(exported)
    kept = {k: v for k, v in env.items() if k not in asked}
    return Run(kept | {"LR": "1e-3", "MODEL_PATH": model}, folder / "ckpt", "--smoke").wait()


def test_the_smoke_test_takes_ten_steps_and_saves_twice(smoke):
    assert smoke.process.returncode == 0, smoke.output
    assert {p.name for p in smoke.ckpt_dir.glob("global_step_*")} == {"global_step_5", "global_step_10"}
    assert "step 10 of 10 is saved" in smoke.output


def test_verls_sft_trainer_trains_a_step_from_the_exported_path(smoke):
    assert smoke.process.returncode == 0, smoke.output
    assert "step:1 - train/loss" in smoke.output
    named = json.loads((smoke.ckpt_dir / "train_run.json").read_text())["stamp"]["arguments"]["model.partial_pretrain"]
    assert named == smoke.env["MODEL_PATH"]
    assert (smoke.ckpt_dir / "global_step_5/huggingface/config.json").exists()
