"""run_sft.sh --preset small: what it chooses lets every row count, passes the preflight and is said; the contract's
numbers stay wherever they fit."""

import json
import subprocess
import sys

import pytest

from phase1.files import BadInput
from phase1.train.schedule import schedule_of
from phase1.train.small_data import FITTED, fit_to_rows
from tests.conftest import ROOT
from tests.train.sft_runs import job_of, job_variables, write_rows


@pytest.fixture
def env(tmp_path, patched_verl):
    """A job with the contract's numbers; the smallest model, no GPU."""
    found = job_variables(tmp_path, patched_verl)
    for name in ("TRAIN_BATCH_SIZE", "MICRO_BATCH_SIZE"):
        del found[name]
    return found


def fitted(env, tmp_path, rows, val, processes, *given):
    env |= {"NPROC": str(processes)}
    write_rows(tmp_path / "train.parquet", rows), write_rows(tmp_path / "val.parquet", val)
    return {one.variable: one.value for one in fit_to_rows(job_of(env), given)}


@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize("rows", [8, 9, 27, 30, 100, 127, 128, 500, 1023, 1024, 5000])
def test_what_it_chooses_can_be_trained_with(env, tmp_path, rows, processes):
    """By the counts that the preflight makes."""
    chosen = fitted(env, tmp_path, rows, max(processes, rows // 50), processes)
    job = job_of(env | chosen)
    batch, micro = job.number("data.train_batch_size"), job.number("data.micro_batch_size_per_gpu")
    assert batch % (processes * micro) == 0 and max(processes, rows // 50) >= processes * micro
    schedule = schedule_of(job)
    assert schedule.saves >= min(3, schedule.total_steps)
    assert schedule.warmup_steps >= (2 if schedule.total_steps >= 10 else 0)
    if rows >= 8 * processes:
        assert schedule.steps_per_epoch >= 8
        assert schedule.steps_per_epoch * batch > rows * 0.6, "a dropped last batch is a small share"
    assert job.number("trainer.test_freq") <= job.number("trainer.save_freq")


@pytest.mark.parametrize(
    ("rows", "val", "changed"),
    [(93_717, 1_912, set()), (47_000, 900, {"SAVE_FREQ", "TEST_FREQ"})],  # 1,464 steps; 734, saved once before the end
)
def test_the_contracts_numbers_stay_where_they_fit(env, tmp_path, rows, val, changed):
    assert set(fitted(env, tmp_path, rows, val, 8)) == changed


def test_the_engine_validates_by_whole_batches(env, tmp_path):
    chosen = fitted(env | {"TRAINER": "engine"}, tmp_path, 270, 5, 1)
    assert chosen["TRAIN_BATCH_SIZE"] == "5" and "MICRO_BATCH_SIZE" not in chosen


def test_the_shell_tells_which_of_them_are_given():
    assert f"for name in {' '.join(FITTED)}; do" in (ROOT / "run_sft.sh").read_text()


def test_what_the_user_has_set_stays(env, tmp_path):
    assert fitted(env, tmp_path, 27, 3, 1, *FITTED) == {}
    assert "SAVE_FREQ" not in fitted(env, tmp_path, 27, 3, 1, "SAVE_FREQ")
    assert fitted(env, tmp_path, 100, 8, 2, "MICRO_BATCH_SIZE")["TRAIN_BATCH_SIZE"] == "12"


def test_the_length_that_rows_are_padded_to_is_the_reports(env, tmp_path):
    report = {
        "tokens": {"mean": 90.0, "p100": 130},
        "padding_share_at_max_length": 0.8,
        "stamp": {"arguments": {"max_length": 4096}},
    }
    (tmp_path / "sft_report.json").write_text(json.dumps(report))
    assert fitted(env, tmp_path, 27, 3, 1)["MAX_LENGTH"] == "192"


@pytest.mark.parametrize(("rows", "val", "short"), [(30, 1, "val"), (1, 8, "train")])
def test_fewer_rows_than_processes_are_refused_with_the_number_to_start(env, tmp_path, rows, val, short):
    with pytest.raises(BadInput, match=rf"{short}\.parquet: 1 rows for 2 processes.*\./run_sft\.sh 1 --preset small"):
        fitted(env, tmp_path, rows, val, 2)


@pytest.mark.slow
def test_the_shell_says_what_it_chose_and_the_command_has_it(env, tmp_path):
    write_rows(tmp_path / "train.parquet", 27), write_rows(tmp_path / "val.parquet", 3)
    words = ["bash", ROOT / "run_sft.sh", "1", "--preset", "small", "--dry_run", "trainer.test_freq=7"]
    done = subprocess.run(words, env=env | {"SAVE_FREQ": "6"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[0]
    assert said.startswith("preset small, for 27 rows: TRAIN_BATCH_SIZE=3 instead of 128 (8 steps an epoch)"), said
    assert "SAVE_FREQ" not in said and "TEST_FREQ" not in said
    command = done.stdout.split()
    for word in ("data.train_batch_size=3", "data.micro_batch_size_per_gpu=1", "trainer.save_freq=6"):
        assert word in command, command
    assert f"{sys.executable}" in command
