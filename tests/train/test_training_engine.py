"""run_sft.sh with TRAINER=engine: the real verl 0.9.1 and transformers 5 on a CPU, FSDP2, the demo's base model, 48
rows, 12 steps.

Runs in .venv-latest, which run_tests.sh makes; skipped where it is missing. Its own copy of the fixture data keeps each
run to 12 steps of 8 short rows; most of a run's time is verl's import.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from phase1.train.saving import MEMORY_DISK, copier_command, inventory, staging_folder
from tests.train.saved import contents
from tests.train.sft_runs import Run, addition, interrupted_after, members, stopping_copier, wait_until

ROOT = Path(__file__).resolve().parents[2]
STEPS, STEPS_PER_EPOCH = 12, 6
LATEST = Path(os.environ.get("VENV_LATEST", ROOT / ".venv-latest"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("training"),
    pytest.mark.skipif(
        not list(LATEST.glob("ready-*")),
        reason=f"{LATEST} is missing: REQUIREMENTS=requirements-latest-cpu.txt VENV={LATEST} bash setup_cpu.sh",
    ),
]


@pytest.fixture(scope="module")
def env(tmp_path_factory, base_model) -> dict[str, str]:
    """Two epochs of six steps by two processes; packs of 300 tokens, so that a step has several of them."""
    folder = tmp_path_factory.mktemp("engine SFT")
    rng = random.Random(0)
    for name, rows in (("train", 48), ("val", 8)):
        pd.DataFrame({"messages": [addition(rng) for _ in range(rows)]}).to_parquet(folder / f"{name}.parquet")
    return {
        **os.environ,
        "PYTHON": str(LATEST / "bin" / "python"),
        "PYTHONPATH": "",
        "TRAINER": "engine",
        "MODEL_PATH": str(base_model),
        "TRAIN_FILE": str(folder / "train.parquet"),
        "VAL_FILE": str(folder / "val.parquet"),
        "MAX_LENGTH": "256",
        "MAX_TOKENS_PER_GPU": "300",
        "TRAIN_BATCH_SIZE": "8",
        "LR": "1e-2",
        "EPOCHS": "2",
        "SAVE_FREQ": "3",
        "TEST_FREQ": "6",
        "LOGGER": "console",
        "DEVICE": "cpu",
        "NPROC": "2",
    }


# The reference: one process, the loss from all logits (a switch of the hook), transformers' own attention.
ALL_LOGITS = {"NPROC": "1", "PHASE1_FUSED_LOSS": "0"}
SDPA = "model.override_config.attn_implementation=sdpa"
# The two processes build torch.compile's C++ themselves: a pool of helpers for each would import torch again. And of
# plain loops: vector instructions take longer to build, and trials of which of them the compiler knows go before.
SMALL_BUILD = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_VEC_ISA_OK": "0"}


def exact(run: Run) -> dict[int, tuple[float, float, float]]:
    """(loss, gradient norm, learning rate) of each step."""
    lines = (run.output_dir / "train_metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "train/loss" in row]
    return {row["step"]: (row["train/loss"], row["train/grad_norm"], row["train/lr"]) for row in rows}


@pytest.fixture(scope="module")
def whole(env, tmp_path_factory) -> Run:
    return Run(env, tmp_path_factory.mktemp("whole") / "ckpt").wait()


@pytest.fixture(scope="module")
def single(env, tmp_path_factory) -> Run:
    return Run(env | {"NPROC": "1"}, tmp_path_factory.mktemp("single") / "ckpt").wait()


def test_training_ends_with_exit_0_at_its_last_step_and_learns(whole):
    assert whole.process.returncode == 0, whole.output
    record = json.loads((whole.ckpt_dir / "train_run.json").read_text())
    assert (record["status"], record["final_step"], record["shape"]["trainer"]) == ("complete", STEPS, "engine")
    losses = [loss for loss, _, _ in exact(whole).values()]
    assert len(losses) == STEPS and sum(losses[-3:]) < 0.5 * sum(losses[:3])


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU: apt-get install g++"
)
def test_a_compiled_run_computes_the_same_whatever_it_recomputes(env, whole, tmp_path):
    """Two processes, so that weights are sharded again between a layer's forward and its backward."""
    compiled = SMALL_BUILD | {"COMPILE": "1", "TOTAL_STEPS": "2", "ACTIVATION_MEMORY_BUDGET": "0.3"}
    run = Run(env | compiled, tmp_path / "ckpt").wait()
    assert run.process.returncode == 0, run.output
    plain, again = exact(whole), exact(run)
    assert list(again) == [1, 2]
    for step, (loss, norm, _) in again.items():
        assert (loss, norm) == pytest.approx(plain[step][:2], rel=1e-4)


@pytest.mark.parametrize("world", [1, 2])
def test_a_checkpoint_holds_what_the_contract_lists(whole, single, world):
    whole = (single, whole)[world - 1]
    kinds = [f"{kind}_world_size_{world}" for kind in ("model", "optim", "extra_state")]
    shards = {f"{kind}_rank_{rank}.pt" for kind in kinds for rank in range(world)} | {
        f"data_{rank}.pt" for rank in range(world)
    }
    assert {p.name for p in whole.ckpt_dir.glob("global_step_*")} == {f"global_step_{s}" for s in (3, 6, 9, 12)}
    for folder in whole.ckpt_dir.glob("global_step_*"):
        assert {p.name for p in folder.iterdir()} >= shards | {"fsdp_config.json", "huggingface"}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
            p.name for p in (folder / "huggingface").iterdir()
        }


def test_two_processes_log_what_one_process_logs_for_the_same_global_batch(whole, single):
    assert single.process.returncode == 0, single.output
    one, two = exact(single), exact(whole)
    assert list(one) == list(two) == list(range(1, STEPS + 1))
    for step in one:
        assert two[step] == pytest.approx(one[step], rel=2e-3)


def test_loss_and_gradient_are_those_of_full_logits_and_transformers_attention(env, single, tmp_path):
    """Without the fused loss and with transformers' own attention: other kernels, the same numbers."""
    plain = Run(env | ALL_LOGITS | {"TOTAL_STEPS": "3"}, tmp_path / "ckpt", SDPA).wait()
    assert plain.process.returncode == 0, plain.output
    for step, values in exact(plain).items():
        assert values == pytest.approx(exact(single)[step], rel=1e-3)  # the schedule spans both epochs in either


def test_an_untied_head_under_two_processes_has_the_loss_and_gradient_of_full_logits_in_one(env, base_model, tmp_path):
    """A 7B's head is a parameter of its own, which FSDP gathers; verl's own fused kernels fail there."""
    untied = tmp_path / "model"
    shutil.copytree(base_model, untied)
    config, weights = json.loads((untied / "config.json").read_text()), load_file(untied / "model.safetensors")
    (untied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    save_file(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"].flip(0).contiguous()},
        untied / "model.safetensors",
        metadata={"format": "pt"},
    )
    env = env | {"MODEL_PATH": str(untied), "TOTAL_STEPS": "3"}
    runs = [
        Run(env, tmp_path / "fused", outputs="outputs_fused").wait(),
        Run(env | ALL_LOGITS, tmp_path / "plain", SDPA, outputs="outputs_plain").wait(),
    ]
    assert [run.process.returncode for run in runs] == [0, 0], runs[0].output + runs[1].output
    fused, plain = map(exact, runs)
    assert list(fused) == [1, 2, 3]
    for step, values in fused.items():
        assert values == pytest.approx(plain[step], rel=2e-3)


@pytest.mark.parametrize("world", [1, 2])
def test_a_finished_job_started_again_trains_nothing(whole, single, world):
    whole = (single, whole)[world - 1]
    again = Run(whole.env, whole.ckpt_dir).wait()
    assert again.process.returncode == 0 and "nothing is trained" in again.output


def test_a_checkpoint_without_one_ranks_loader_state_gives_way_to_the_one_before(env, whole, tmp_path):
    ckpt_dir = tmp_path / "ckpt"
    shutil.copytree(whole.ckpt_dir, ckpt_dir)
    (ckpt_dir / "global_step_12" / "data_1.pt").unlink()
    said = subprocess.run(
        [ROOT / "run_sft.sh", "--dry_run"], env=env | {"CKPT_DIR": str(ckpt_dir)}, capture_output=True, text=True
    )
    assert "no whole data_1.pt: resuming from global_step_9" in said.stderr


def test_a_changed_schedule_is_refused_by_name(env, whole):
    done = subprocess.run(
        [ROOT / "run_sft.sh", "--dry_run"],
        env=env | {"CKPT_DIR": str(whole.ckpt_dir), "LR": "1e-3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "optim.lr was 0.01, is 0.001" in done.stderr


# ---------------------------------------------------------------------------------------------------- BACKGROUND_SAVE=1
@pytest.mark.skipif(shutil.disk_usage(MEMORY_DISK).free < 1 << 30, reason=f"{MEMORY_DISK} has less than 1 GiB free")
def test_a_checkpoint_in_memory_outlives_its_trainer_and_is_that_of_a_direct_save(env, whole, tmp_path, request):
    """The copier of step 3 stops in the middle of a file; the trainer goes on and is killed, torchrun and all."""
    env = env | {"BACKGROUND_SAVE": "1"}
    ckpt_dir, staging = tmp_path / "ckpt", staging_folder(tmp_path / "ckpt")

    def leave_nothing() -> None:  # a test that fails must not leave a stopped copier and its trainer
        for pid in members(ckpt_dir):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(staging, ignore_errors=True)

    request.addfinalizer(leave_nothing)
    first = Run(env | {"PYTHONPATH": stopping_copier(tmp_path)}, ckpt_dir, outputs="first")
    half = ckpt_dir / ".global_step_3.incoming"
    wait_until(lambda: ("step:5 " in first.log() and half.exists()) or first.process.poll() is not None)
    assert first.process.poll() is None, first.output
    copiers = {pid for pid, line in members(ckpt_dir).items() if "phase1.train.copy_save" in line}
    assert len(copiers) == 1 and list(ckpt_dir.glob("*global_step_*")) == [half]
    for pid in members(ckpt_dir).keys() - copiers:
        os.kill(pid, signal.SIGKILL)
    first.wait()
    wait_until(lambda: members(ckpt_dir).keys() == copiers)

    impatient = Run(env | {"LOCK_WAIT": "1"}, ckpt_dir, outputs="impatient").wait()
    assert impatient.process.returncode == 2 and "LOCK_WAIT" in impatient.output.splitlines()[-1]
    assert "global_step_3 is still being copied" in impatient.output
    os.kill(*copiers, signal.SIGCONT)
    wait_until(lambda: not members(ckpt_dir))
    assert (ckpt_dir / "latest_checkpointed_iteration.txt").read_text() == "3" and not staging.exists()

    # Another copier is stopped in its middle and killed.
    staging.mkdir()
    shutil.copytree(ckpt_dir / "global_step_3", staging / "global_step_6")
    staged = staging / "global_step_6"
    command = copier_command(staged, ckpt_dir, inventory(staged), add_weights=False)
    killed = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": f"{stopping_copier(tmp_path)}:{ROOT}"})
    os.waitpid(killed.pid, os.WUNTRACED)
    killed.kill()
    killed.wait()

    second = Run(env, ckpt_dir, outputs="second").wait()
    assert second.process.returncode == 0, second.output
    assert "removed" in second.output and ".global_step_6.incoming" in second.output
    assert "training goes on while global_step_9 is copied" in second.log()
    assert exact(second) == {step: v for step, v in exact(whole).items() if step > 3}
    for step in (3, 6, 9, 12):
        assert contents(ckpt_dir / f"global_step_{step}") == contents(whole.ckpt_dir / f"global_step_{step}")
    assert not staging.exists() and not list(ckpt_dir.glob(".global_step_*"))


def two_nodes(env: dict[str, str], ckpt_dir: Path, outputs: str) -> list[Run]:
    """torchrun's rendezvous at MASTER_ADDR:MASTER_PORT, a process on each node, a shared checkpoint folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = env | {"NPROC": "1", "NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [Run(nodes | {"NODE_RANK": str(rank)}, ckpt_dir, outputs=f"{outputs}_{rank}") for rank in (0, 1)]


def test_one_preempted_node_ends_the_others_between_two_steps_and_both_go_on_from_the_checkpoint(env, single, tmp_path):
    """The steps that are done twice have equal losses. From an epoch's end, where verl itself would train nothing and
    exit 0 (verl#7401); the killed trainer above goes on in mid-epoch."""
    env = env | {"EPOCHS": "1000", "SAVE_FREQ": "2", "MAX_CKPT_TO_KEEP": "20"}
    runs = two_nodes(env, tmp_path / "ckpt", "first")
    while "step:8 " not in runs[0].log() and runs[0].process.poll() is None:
        time.sleep(0.1)
    runs[1].process.send_signal(signal.SIGTERM)
    for run in runs:
        assert run.wait().process.returncode not in (0, 2)
        assert "RuntimeError" not in run.output, run.output  # of a collective whose other end went away
    assert "steps after it are lost" in runs[0].output.splitlines()[-1]
    assert "the first node says" in runs[1].output.splitlines()[-1]
    assert "run the same command again" in runs[0].output
    assert not runs[0].outlived_by(seconds=60)
    before = exact(runs[0])
    assert before[1][:2] == pytest.approx(exact(single)[1][:2], rel=2e-3)  # the learning rate plays no part as yet

    # As if the epoch's end had been saved last, so that steps are done again.
    ckpt_dir, last = interrupted_after(STEPS_PER_EPOCH, tmp_path / "ckpt", tmp_path / "again"), STEPS_PER_EPOCH + 2
    resumed = [run.wait() for run in two_nodes(env | {"TOTAL_STEPS": str(last)}, ckpt_dir, "second")]
    assert [run.process.returncode for run in resumed] == [0, 0], resumed[0].output + resumed[1].output
    sessions = json.loads((ckpt_dir / "train_run.json").read_text())["sessions"]
    assert [session["from_step"] for session in sessions] == [0, STEPS_PER_EPOCH]
    again = exact(resumed[0])
    assert list(again) == [last - 1, last]
    for step, values in again.items():
        assert values == pytest.approx(before[step], rel=1e-4)
