"""The one reader of the step line; tests/train/test_verl_version.py holds it against verl's own loggers."""

import json
import math

import pytest

from phase1.files import BadInput
from phase1.train.step_log import MOST_POINTS, Point, Step, console_steps, drawable, drop_later_steps, read_train_log

LINES = {
    "0.7.0": (
        "step:3 - train/loss:1.5 - train/lr(1e-3):0.02 - train/grad_norm:2.0",
        [Step(3, {"train/loss": 1.5, "train/lr": 2e-5, "train/grad_norm": 2.0})],
    ),
    "0.9.1": (
        "step:3 - train/loss:1.5 - train/lr:2e-05 - train/global_tokens:1024",
        [Step(3, {"train/loss": 1.5, "train/lr": 2e-5, "train/global_tokens": 1024.0})],
    ),
    "after a progress bar": (
        "Epoch 1/2:  17%|█▋  | 1/6 [00:00<00:01,  3.56it/s]step:2 - train/loss:nan - train/total_tokens(B):1e-06\n",
        [Step(2, {"train/loss": math.nan, "train/total_tokens(B)": 1e-6})],
    ),
    "before a progress bar": ("step:2 - train/loss:1.5Epoch 1/2:  17%|█▋", [Step(2, {"train/loss": 1.5})]),
    "in colour": (
        "\x1b[36m(rank 0)\x1b[0m \x1b[32mstep:4 - train/loss:\x1b[1m1.5\x1b[0m - train/grad_norm:0.25\x1b[0m",
        [Step(4, {"train/loss": 1.5, "train/grad_norm": 0.25})],
    ),
    "two steps on a line": (
        "step:1 - train/loss:1.5step:2 - train/loss:1.25 - train/grad_norm:3.0",
        [Step(1, {"train/loss": 1.5}), Step(2, {"train/loss": 1.25, "train/grad_norm": 3.0})],
    ),
    "numpy scalars": (
        "step:7 - train/loss:np.float64(2.25) - n:np.int64(3)",
        [Step(7, {"train/loss": 2.25, "n": 3.0})],
    ),
    "a value that is no number": ("step:7 - ok:True - train/loss:-inf", [Step(7, {"train/loss": -math.inf})]),
    "validation": ("step:6 - val/loss:1.67", [Step(6, {"val/loss": 1.67})]),
    "words": ("(step:6) nothing", []),
    "words with a dash": ("step:6 - nothing to see", []),
    "another word": ("Total training steps: 12 - substep:3 - x:1", []),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_of_the_console_gives_its_steps_and_nothing_else(kind):
    line, expected = LINES[kind]
    found = console_steps(line)
    assert [s.number for s in found] == [s.number for s in expected]
    for got, wanted in zip(found, expected, strict=True):
        assert got.values == pytest.approx(wanted.values, nan_ok=True)


def test_logs_of_verl_and_json_lines_are_read_and_a_resumed_step_counts_once(tmp_path):
    (tmp_path / "a.log").write_text(
        "noise\r\x1b[32mstep:1 - train/loss:2.5 - train/lr(1e-3):0.02 - train/grad_norm:1.5e+00\nEpoch 1:  3%|##\n"
        "(rank0) step:2 - train/loss:np.float64(2.25) - train/grad_norm:nan\nstep:2 - val/loss:3.0\n"
    )
    (tmp_path / "b.jsonl").write_text(
        '{"run": "x", "step": 2, "time": 5, "train/loss": 2.0, "tokens_per_s": 9}\n{"step": 3, "train/loss": 1, "torn\n'
    )
    series = read_train_log([tmp_path / "a.log", tmp_path / "b.jsonl"])
    assert series["train/loss"] == [(1, 2.5), (2, 2.0)] and series["val/loss"] == [(2, 3.0)]
    assert series["train/grad_norm"][0] == (1, 1.5) and series["train/lr"] == [(1, pytest.approx(2e-5))]
    assert series["tokens_per_s"] == [(2, 9.0)] and not {"run", "step", "time"} & series.keys()


def test_a_log_without_a_step_is_refused_or_passed_over(tmp_path):
    (tmp_path / "empty.log").write_text("nothing\n")
    (tmp_path / "a.log").write_text("step:1 - train/loss:2.5\n")
    for name in ("empty.log", "missing.log"):
        with pytest.raises(BadInput, match=name):
            read_train_log([tmp_path / "a.log", tmp_path / name])
        assert read_train_log([tmp_path / "a.log", tmp_path / name], skip_empty=True) == {"train/loss": [(1, 2.5)]}


def test_a_run_is_read_without_the_others_in_its_file(tmp_path):
    rows = [{"run": "a", "step": 1, "train/loss": 1.0}, {"run": "b", "step": 2, "train/loss": 2.0}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_train_log([tmp_path / "m.jsonl"], run="b") == {"train/loss": [(2, 2.0)]}


def test_what_is_drawn_is_finite_above_0_on_a_log_scale_and_not_more_than_can_be_seen():
    points = [Point(1, 2.0), Point(2, math.nan), Point(3, 0.0), Point(4, math.inf)]
    assert drawable({"k": points}, "k") == [(1, 2.0), (3, 0.0)] and drawable({"k": points}, "other") == []
    assert drawable({"k": points}, "k", log_scale=True) == [(1, 2.0)]
    many = drawable({"k": [Point(s, 1.0) for s in range(10 * MOST_POINTS)]}, "k")
    assert len(many) == MOST_POINTS and many[0].step == 0


def test_steps_done_again_after_a_resume_stand_once_and_other_runs_stay(tmp_path):
    rows = [{"run": "a", "step": s} for s in (1, 2, 3)] + [{"run": "smoke_test", "step": 9}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    drop_later_steps(tmp_path / "m.jsonl", "a", from_step=2)
    assert [json.loads(x) for x in (tmp_path / "m.jsonl").read_text().splitlines()] == [rows[0], rows[1], rows[3]]


TORN = [b'{"run": "a", "step": 2', b"\xff\xfe", b"[1]", b"{}", b"\0" * 40, b'{"step": 1e999}', b"[" * 20_000]


@pytest.mark.parametrize("torn", TORN, ids=lambda torn: str(torn[:12]))
def test_a_line_torn_by_a_crash_does_not_stop_the_next_start(tmp_path, torn):
    (tmp_path / "m.jsonl").write_bytes(b'{"run": "a", "step": 1}\n' + torn)
    drop_later_steps(tmp_path / "m.jsonl", "a", from_step=5)
    assert (tmp_path / "m.jsonl").read_text() == '{"run": "a", "step": 1}\n'
