"""Real verl training with max_ckpt_to_keep=2 past the best step, beside the evaluator: what is kept outlives the
rotation.

Goes on from the demo's last checkpoint, which solves problems, with a learning rate that spoils it again.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from phase1.files import read_json
from tests.conftest import ROOT, first_problems

DEMO = ROOT / "outputs" / "demo"
SMALL = ["--max_new_tokens", "96", "--dtype", "float32", "--batch_size", "32"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("training"),
    pytest.mark.skipif(
        not (DEMO / "best_checkpoint.json").exists(), reason="bash run_demo.sh has not been run to its end here"
    ),
]


@pytest.fixture(scope="module")
def manifests(tmp_path_factory) -> Path:
    return first_problems(tmp_path_factory.mktemp("data"), 12)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """However long it takes on a busy machine, but no longer than the process lives that is to bring it about."""
    while not condition():
        assert process.poll() is None, f"it ended with exit code {process.returncode}"
        time.sleep(0.1)


def signal_tree(pid: int, number: signal.Signals) -> None:
    """To a process and all below it: torchrun starts its workers in sessions of their own."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.send_signal(number)


def rates(folder: Path) -> dict:
    return {
        d: {k: m[k] for k in ("exec_success_rate", "accepted_at_1", "pass_ratio_mean", "total_problems")}
        for d, m in read_json(folder / "summary.json")["datasets"].items()
    }


def test_the_best_model_still_loads_and_gives_the_same_metrics_after_verl_has_rotated_its_checkpoint_away(
    tmp_path, manifests
):
    checkpoints, outputs = tmp_path / "checkpoints", tmp_path / "outputs"
    steps = read_json(DEMO / "best_checkpoint.json")["best_step"]
    base = next(DEMO.glob(f"checkpoints/*/*/global_step_{steps}/huggingface"))
    env = os.environ | {
        "PYTHON": sys.executable,
        "MODEL_PATH": str(base),
        "TRAIN_FILE": str(DEMO / "data/sft_train.parquet"),
        "VAL_FILE": str(DEMO / "data/sft_val.parquet"),
        "CKPT_DIR": str(checkpoints),
        "OUTPUT_DIR": str(outputs),
        "MANIFEST_DIR": str(manifests),
        "MAX_LENGTH": "240",
        "TRAIN_BATCH_SIZE": "16",
        "MICRO_BATCH_SIZE": "8",
        "LR": "1e-1",
        "EPOCHS": "4",
        "TOTAL_STEPS": "12",
        "SAVE_FREQ": "2",
        "TEST_FREQ": "1000",
        "MAX_CKPT_TO_KEEP": "2",
        "LOGGER": "console",
        "GRADIENT_CHECKPOINTING": "False",
        "DEVICE": "cpu",
    }
    saved = checkpoints / "latest_checkpointed_iteration.txt"
    with open(tmp_path / "training.txt", "wb") as screen:
        training = subprocess.Popen(
            ["bash", ROOT / "run_sft.sh", "1"], env=env, stdout=screen, stderr=screen, start_new_session=True
        )
    try:
        wait_until(lambda: saved.exists() and int(saved.read_text()) >= 2, training)
        signal_tree(training.pid, signal.SIGSTOP)  # the evaluator is the slower one here; on GPUs it is not
        step = int(saved.read_text())
        weights = checkpoints / f"global_step_{step}" / "huggingface" / "model.safetensors"
        weights.unlink()  # as with save_contents that leave out hf_model: it is converted first
        night = subprocess.run(
            ["bash", ROOT / "run_eval_checkpoints.sh", *SMALL], env=env, capture_output=True, text=True
        )
        assert night.returncode == 0, night.stdout + night.stderr
        assert f"step {step}: converting" in night.stdout
    finally:
        signal_tree(training.pid, signal.SIGCONT)
        code = training.wait()
    assert code == 0, (tmp_path / "training.txt").read_text()[-3000:]
    assert sorted(int(p.name.split("_")[-1]) for p in checkpoints.glob("global_step_*")) == [
        10,
        12,
    ]  # verl kept the newest two

    night = subprocess.run(
        ["bash", ROOT / "run_eval_checkpoints.sh", "--steps", "12", *SMALL],
        env=env,
        capture_output=True,
        text=True,
    )
    assert night.returncode == 0, night.stdout + night.stderr
    best = read_json(outputs / "best_checkpoint.json")
    assert best["best_step"] == step and not (checkpoints / f"global_step_{step}").exists()
    assert (
        best["best_exec_success_rate"]
        > read_json(outputs / "eval_step_12" / "summary.json")["datasets"]["codecontests_valid"]["exec_success_rate"]
    )

    command = [
        sys.executable,
        ROOT / "phase1_eval.py",
        "--model_path",
        outputs / "best_model",
        "--manifest_dir",
        manifests,
        "--output_dir",
        outputs / "again",
        *SMALL,
    ]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert rates(outputs / "again") == rates(outputs / f"eval_step_{step}")
    assert rates(outputs / "again")["codecontests_valid"]["accepted_at_1"] > 0.5  # not nothing against nothing
