"""The watcher of the training log: what it reads, what it warns about, what it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.train.estimate import ModelShape
from phase1.train.health import Health
from phase1.train.watch import Rate, drop_later_steps, parse_step

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "step:3 - train/loss:1.5 - train/lr(1e-3):0.02 - train/grad_norm:2.0",
            (3, {"train/loss": 1.5, "train/lr": 2e-5, "train/grad_norm": 2.0}),
        ),
        (
            "Epoch 1/2:  17%|█▋  | 1/6 [00:00<00:01,  3.56it/s]step:2 - train/loss:nan - train/total_tokens(B):1e-06\n",
            (2, {"train/loss": float("nan"), "train/total_tokens(B)": 1e-6}),
        ),
        ("step:6 - val/loss:1.67", (6, {"val/loss": 1.67})),
        ("step:7 - train/loss:np.float64(2.25)", (7, {"train/loss": 2.25})),
        ("(step:6) nothing", None),
        ("Total training steps: 12", None),
    ],
)
def test_a_step_line_of_either_trainer_is_read(line, expected):
    got = parse_step(line)
    if expected is None:
        assert got is None
    else:
        assert got[0] == expected[0] and got[1] == pytest.approx(expected[1], nan_ok=True)


def warned(steps: list[dict[str, float]]) -> list[str]:
    health = Health()
    for number, values in enumerate(steps, 1):
        health.update(number, values)
    return [w["kind"] for w in health.warnings]


WELL = {"train/loss": 1.0, "train/grad_norm": 1.0, "tokens_per_s": 1000.0}


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ([WELL] * 40, []),
        ([{"train/loss": 10 * 0.97**i, "train/grad_norm": 1.0} for i in range(40)], []),
        ([WELL, WELL | {"train/loss": float("nan")}], ["nan"]),
        ([WELL] * 12 + [WELL | {"train/loss": 1.6}] + [WELL] * 3, ["spike"]),
        ([WELL] * 3 + [WELL | {"train/loss": 1.6}], []),  # too early to say
        ([WELL | {"train/loss": 0.004}] * 12 + [WELL | {"train/loss": 0.009}], []),  # nothing is left to learn
        (
            [WELL | {"train/loss": 0.4 + 0.1 * (i % 3 - 1)} for i in range(24)] + [WELL | {"train/loss": 0.7}],
            [],
        ),  # small batches scatter
        ([WELL | {"train/loss": 0.4 + 0.1 * (i % 3 - 1)} for i in range(24)] + [WELL | {"train/loss": 1.3}], ["spike"]),
        ([WELL | {"train/grad_norm": 101.0}], ["grad_norm"]),
        ([WELL | {"train/grad_norm": 0.0}], ["grad_norm"]),
        ([WELL | {"train/grad_norm": float("nan")}] * 5, ["grad_norm"]),  # once, while it lasts
        ([WELL] * 10 + [WELL | {"tokens_per_s": 300.0}] * 2 + [WELL], []),  # a save, a validation
        ([WELL] * 10 + [WELL | {"tokens_per_s": 300.0}] * 4, ["slow"]),
        ([{"val/loss": x} for x in (1.0, 1.1, 1.05, 1.2)], []),
        ([{"val/loss": x} for x in (1.0, 1.1, 1.2)], ["val_rising"]),
        ([{"val/loss": float("nan")}], ["val_nan"]),
    ],
)
def test_warnings_name_what_goes_wrong_and_nothing_else(steps, kinds):
    assert warned(steps) == kinds


def test_lines_of_training_and_of_validation_do_not_end_each_others_warnings():
    low, high = {"val/loss": float("nan")}, WELL | {"train/grad_norm": 500.0}
    assert warned([high, low, high, low, high, low]) == ["grad_norm", "val_nan"]


def test_a_warning_that_went_away_is_given_again():
    assert warned([WELL | {"train/grad_norm": 500.0}, WELL, WELL | {"train/grad_norm": 500.0}]) == ["grad_norm"] * 2


def test_the_share_of_the_peak_is_the_models_arithmetic_over_the_gpus():
    shape = ModelShape(896, 24, 14, 2, 4864, 151936, True)
    got = Rate(shape, 2 * 989.4e12, 32).of_step({"train/global_tokens": 24_000}, 0.5)
    assert got["tokens_per_s"] == 48_000
    assert got["mfu"] == pytest.approx(24_000 * (6 * 494e6 + 6 * 24 * 896 * 750) / 0.5 / (2 * 989.4e12), rel=0.01)
    assert (
        "mfu" not in Rate(shape, None, 32).of_step({"train/global_tokens": 1}, 1.0)
        and Rate(None, None, 1).of_step({}, None) == {}
    )


def test_steps_done_again_after_a_resume_stand_once_and_other_runs_stay(tmp_path):
    rows = [{"run": "a", "step": s} for s in (1, 2, 3)] + [{"run": "smoke_test", "step": 9}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    drop_later_steps(tmp_path / "m.jsonl", "a", from_step=2)
    assert [json.loads(x) for x in (tmp_path / "m.jsonl").read_text().splitlines()] == [rows[0], rows[1], rows[3]]


@pytest.mark.parametrize("torn", [b'{"run": "a", "step": 2', b"\xff\xfe", b"[1]", b"{}", b"\0" * 40])
def test_a_line_torn_by_a_crash_does_not_stop_the_next_start(tmp_path, torn):
    (tmp_path / "m.jsonl").write_bytes(b'{"run": "a", "step": 1}\n' + torn)
    drop_later_steps(tmp_path / "m.jsonl", "a", from_step=5)
    assert (tmp_path / "m.jsonl").read_text() == '{"run": "a", "step": 1}\n'


def watch(folder: Path, text: str, *args: str, screen: str = "/dev/stdout") -> subprocess.CompletedProcess:
    """The watcher as run_sft.sh starts it: a child of a shell, the trainer's output on its standard input."""
    (folder / "ckpt").mkdir()
    stamp = {"arguments": {"model.partial_pretrain": "none/here", "data.train_batch_size": 8}}
    (folder / "ckpt" / "train_run.json").write_text(
        json.dumps({"sessions": [{"from_step": 0}], "expected_steps": 9, "world_size": 1, "stamp": stamp})
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


def test_a_full_disk_costs_the_log_and_not_the_training(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    text = "hello\nstep:1 - train/loss:2.0 - train/grad_norm:1.0\nbye\n"
    done = watch(tmp_path, text)
    said = [line for line in done.stdout.splitlines() if "warning: " not in line]
    assert said == text.splitlines(), done.stderr
    assert done.stdout.count("No space left on device") == 1 and str(tmp_path / "log") in done.stdout
    assert json.loads((tmp_path / "train_metrics.jsonl").read_text())["step"] == 1


def test_a_screen_that_went_away_costs_neither_log_nor_training(tmp_path):
    text = "hello\n" * 5000 + "step:1 - train/loss:2.0 - train/grad_norm:1.0\n"
    watch(tmp_path, text, screen="/dev/full")
    assert (tmp_path / "log").read_text() == text


@pytest.mark.parametrize(("args", "stopped"), [((), False), (("--stop_on", "nan"), True)])
def test_the_run_is_ended_at_the_first_nan_only_if_asked(tmp_path, args, stopped):
    done = watch(tmp_path, "step:1 - train/loss:nan - train/grad_norm:1.0\n", *args)
    assert ("asked" in done.stdout.splitlines()) == stopped
