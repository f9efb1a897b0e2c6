"""The watcher of the training log: what it writes, and that it never harms the training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.train.estimate import ModelShape
from phase1.train.watch import Rate

ROOT = Path(__file__).resolve().parents[2]


def test_the_share_of_the_peak_is_the_models_arithmetic_over_the_gpus():
    shape = ModelShape(896, 24, 14, 2, 4864, 151936, True)
    got = Rate(shape, 2 * 989.4e12, 32).of_step({"train/global_tokens": 24_000}, 0.5)
    assert got["tokens_per_s"] == 48_000
    assert got["mfu"] == pytest.approx(24_000 * (6 * 494e6 + 6 * 24 * 896 * 750) / 0.5 / (2 * 989.4e12), rel=0.01)
    assert (
        "mfu" not in Rate(shape, None, 32).of_step({"train/global_tokens": 1}, 1.0)
        and Rate(None, None, 1).of_step({}, None) == {}
    )


def watch(folder: Path, text: str, *args: str, screen: str = "/dev/stdout") -> subprocess.CompletedProcess:
    """The watcher as run_sft.sh starts it: a child of a shell, the trainer's output on its standard input."""
    (folder / "ckpt").mkdir()
    stamp = {"arguments": {"model.partial_pretrain": "none/here", "data.train_batch_size": 8}}
    (folder / "ckpt" / "train_run.json").write_text(
        json.dumps(
            {
                "status": "running",
                "expected_steps": 9,
                "world_size": 1,
                "shape": {},
                "sessions": [{"started": "2026-01-01T00:00:00+00:00", "from_step": 0}],
                "command": [],
                "stamp": stamp,
            }
        )
    )
    command = [
        sys.executable,
        "-m",
        "phase1.train.watch",
        "--log",
        str(folder / "log"),
        "--run_file",
        str(folder / "ckpt/train_run.json"),
        "--output_dir",
        str(folder),
        *args,
    ]
    return subprocess.run(
        ["bash", "-c", 'trap "echo asked" TERM; "$@" > ' + screen + "; exit 0", "shell", *command],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"DEVICE": "cpu"},
    )


@pytest.mark.slow
def test_log_metrics_health_and_plot_are_written(tmp_path):
    text = (
        "hello\nstep:1 - train/loss:2.0 - train/grad_norm:1.0 - train/global_tokens:500\nstep:2 - train/loss:nan - "
        "train/grad_norm:1.0\nstep:2 - val/loss:1.5\n"
    )
    done = watch(tmp_path, text)
    assert done.stdout.splitlines()[0] == "hello" and "warning: step 2: train/loss is nan" in done.stdout, done.stderr
    assert (tmp_path / "log").read_text() == done.stdout
    rows = [json.loads(x) for x in (tmp_path / "train_metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 2] and rows[1]["train/loss"] is None  # JSON has no NaN
    health = json.loads((tmp_path / "train_health.json").read_text())
    assert health["status"] == "warned" and health["warnings"][0]["kind"] == "nan" and health["last_val_loss"] == 1.5
    assert (tmp_path / "train_curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_full_disk_costs_the_log_and_not_the_training(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    text = "hello\nstep:1 - train/loss:2.0 - train/grad_norm:1.0\nbye\n"
    done = watch(tmp_path, text)
    said = [line for line in done.stdout.splitlines() if "warning: " not in line]
    assert said == text.splitlines(), done.stderr
    assert done.stdout.count("No space left on device") == 1 and str(tmp_path / "log") in done.stdout
    assert json.loads((tmp_path / "train_metrics.jsonl").read_text())["step"] == 1


@pytest.mark.slow
def test_a_screen_that_went_away_costs_neither_log_nor_training(tmp_path):
    text = "hello\n" * 5000 + "step:1 - train/loss:2.0 - train/grad_norm:1.0\n"
    watch(tmp_path, text, screen="/dev/full")
    assert (tmp_path / "log").read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize(("args", "stopped"), [((), False), (("--stop_on", "nan"), True)])
def test_the_run_is_ended_at_the_first_nan_only_if_asked(tmp_path, args, stopped):
    done = watch(tmp_path, "step:1 - train/loss:nan - train/grad_norm:1.0\n", *args)
    assert ("asked" in done.stdout.splitlines()) == stopped
