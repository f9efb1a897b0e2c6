"""A checkpoint on its way from memory to the disk: the copier as a process of its own, and those who wait for it."""

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from phase1.checkpoints.find import find_checkpoints
from phase1.contract.state.tracker import TRACKER, read_tracker
from phase1.files import BadInput
from phase1.model import writing
from phase1.train import copy_save
from phase1.train.job import launch_command
from phase1.train.preflight.checks import CHECKS
from phase1.train.record import report_end, report_stop
from phase1.train.saving import (
    Inventory,
    copier_command,
    copy_ended,
    failure_of,
    forget_copied,
    inventory,
    make_staging,
    memory_filled,
    no_room,
    open_lock,
    ready_to_start,
    staging_folder,
    take_lock,
)
from tests.train.sft_runs import ROOT, begin, job_of, stopping_copier

EVERYTHING = ["model", "optimizer", "extra", "hf_model"]


@pytest.fixture
def ckpt_dir(tmp_path) -> Iterator[Path]:
    """A folder with one checkpoint; what its copiers hold in memory is removed afterwards."""
    folder = tmp_path / "ckpt"
    (folder / "global_step_3").mkdir(parents=True)
    (folder / "global_step_3" / "model.pt").write_bytes(b"third")
    (folder / TRACKER).write_text("3")
    yield folder
    with contextlib.suppress(OSError):
        shutil.rmtree(staging_folder(folder))


def staged(ckpt_dir: Path, step: int = 6) -> Path:
    """A checkpoint in memory: a file of several pieces, an empty one, and a folder below."""
    staging = staging_folder(ckpt_dir)
    make_staging(staging)
    (staging / TRACKER).write_text(str(step))
    folder = staging / f"global_step_{step}"
    (folder / "huggingface").mkdir(parents=True)
    (folder / "model.pt").write_bytes(os.urandom(40 << 20) + b"the end")
    (folder / "empty").touch()
    (folder / "huggingface" / "config.json").write_text("{}")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def copier(
    folder: Path,
    ckpt_dir: Path,
    *,
    lock: int | None = None,
    path: str = "",
    most: int | None = None,
    handed_over: Inventory | None = None,
    add_weights: bool = False,
):
    """The copier, with the lock, disturbed (path), unable to write files of more than `most`, or told of other files
    than it finds."""
    return subprocess.Popen(
        copier_command(folder, ckpt_dir, handed_over or inventory(folder), add_weights=add_weights),
        env=os.environ | {"PYTHONPATH": f"{path}:{ROOT}"},
        pass_fds=() if lock is None else (lock,),
        preexec_fn=most and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))),
        stderr=subprocess.PIPE,
        text=True,
    )


def stopped_copier(folder: Path, ckpt_dir: Path, tmp_path: Path) -> subprocess.Popen:
    """One that the trainer gave the lock to, in the middle of its copy."""
    lock = open_lock(ckpt_dir)
    assert take_lock(lock, 0)
    process = copier(folder, ckpt_dir, lock=lock, path=stopping_copier(tmp_path))
    os.close(lock)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    return process


def test_a_copy_is_whole_and_the_tracker_names_no_step_before_it(ckpt_dir):
    folder = staged(ckpt_dir)
    wanted, process = contents(folder), copier(folder, ckpt_dir)
    told = set()
    while process.poll() is None:
        told.add((ckpt_dir / TRACKER).read_text())
        if "6" in told:
            assert contents(ckpt_dir / "global_step_6") == wanted
        else:
            assert {c.step for c in find_checkpoints(ckpt_dir)} <= {3, 6}  # no half copy is taken for a step
    assert process.returncode == 0 and told <= {"3", "6"} and read_tracker(ckpt_dir) == 6
    assert contents(ckpt_dir / "global_step_6") == wanted
    assert {p.name for p in ckpt_dir.iterdir()} == {"global_step_3", "global_step_6", TRACKER}
    assert not folder.parent.exists() and failure_of(folder.parent) == ""


@pytest.mark.parametrize("step", [6, 3], ids=["a new step", "a step saved before"])
def test_a_full_disk_publishes_nothing_and_says_which_disk_and_how_much(ckpt_dir, step):
    folder = staged(ckpt_dir, step)
    process = copier(folder, ckpt_dir, most=20 << 20)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert contents(ckpt_dir) == {"global_step_3/model.pt": b"third", TRACKER: b"3"}
    assert not list(ckpt_dir.glob(".*")) and not folder.exists()  # the memory is free again
    why = failure_of(folder.parent)
    assert f"error: {why}\n" == said and "\n" not in why
    assert f"global_step_{step} could not be written: File too large (a checkpoint of 0.04 GB" in why
    assert "free on the disk of /" in why
    ready_to_start(ckpt_dir, 0)
    assert failure_of(folder.parent) == ""


@pytest.mark.parametrize("shard", ["of another model", "torn", "missing"])
def test_a_checkpoint_whose_weights_cannot_be_made_is_published_and_the_run_is_told(ckpt_dir, base_model, shard):
    folder = staged(ckpt_dir)
    shutil.copy(base_model / "config.json", folder / "huggingface")
    path = folder / "model_world_size_1_rank_0.pt"
    if shard != "missing":
        torch.save({"model.embed_tokens.weight": torch.ones(3, 5)}, path)
    if shard == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    wanted, process = contents(folder), copier(folder, ckpt_dir, add_weights=True)
    assert process.wait() == 1 and "huggingface/ not made" in process.stderr.read()
    assert contents(ckpt_dir / "global_step_6") == wanted and read_tracker(ckpt_dir) == 6
    said = failure_of(staging_folder(ckpt_dir))
    assert "global_step_6 is saved" in said and "set BACKGROUND_SAVE=0" in said and len(said.splitlines()) == 1
    assert str(ckpt_dir / "global_step_6") in said.split("not made: ")[1] and "/dev/shm" not in said


@pytest.mark.parametrize("error", [BadInput("a shard\nchanged"), RuntimeError("torch"), MemoryError()])
def test_weights_that_are_half_made_are_not_published(ckpt_dir, base_model, monkeypatch, error):
    folder = staged(ckpt_dir)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(base_model / name, folder / "huggingface")
    torch.save(load_file(folder / "huggingface" / "model.safetensors"), folder / "model_world_size_1_rank_0.pt")
    (folder / "huggingface" / "model.safetensors").unlink()
    wanted = contents(folder)

    def half_made(directory, *args, **kwargs):
        (directory / "model.safetensors").write_bytes(bytes(1000))
        raise error

    monkeypatch.setattr(writing, "write_safetensors", half_made)
    assert copy_save.copy_save(folder, ckpt_dir, inventory(folder), add_weights=True) == 1
    assert contents(ckpt_dir / "global_step_6") == wanted and read_tracker(ckpt_dir) == 6
    said = failure_of(staging_folder(ckpt_dir))
    assert "its huggingface/ not made" in said and len(said.splitlines()) == 1


def test_a_step_saved_before_gives_way_to_a_whole_one_alone(ckpt_dir, tmp_path):
    folder = staged(ckpt_dir, 3)
    wanted, process = contents(folder), stopped_copier(folder, ckpt_dir, tmp_path)
    assert contents(ckpt_dir / "global_step_3") == {"model.pt": b"third"}
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0 and contents(ckpt_dir / "global_step_3") == wanted


def test_who_starts_or_ends_a_run_waits_for_a_copy_that_its_trainer_left_behind(ckpt_dir, tmp_path, capsys):
    process = stopped_copier(staged(ckpt_dir), ckpt_dir, tmp_path)
    process.terminate()  # as a batch system does with all processes of a job
    assert not copy_ended(ckpt_dir, 0.1)
    with pytest.raises(BadInput, match="LOCK_WAIT=seconds"):
        ready_to_start(ckpt_dir, 0)
    assert "global_step_6 is still being copied from memory" in capsys.readouterr().out
    process.send_signal(signal.SIGCONT)
    ready_to_start(ckpt_dir, 60)
    assert process.wait() == 0 and read_tracker(ckpt_dir) == 6


def test_a_killed_copier_leaves_the_older_checkpoint_and_the_next_start_cleans_up(ckpt_dir, tmp_path, capsys):
    folder = staged(ckpt_dir)
    process = stopped_copier(folder, ckpt_dir, tmp_path)
    process.kill()
    process.wait()
    assert "global_step_6 was not copied from memory to its end" in failure_of(folder.parent)
    assert [c.step for c in find_checkpoints(ckpt_dir)] == [3] and read_tracker(ckpt_dir) == 3
    capsys.readouterr()
    ready_to_start(ckpt_dir, 0)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        f"{ckpt_dir / '.global_step_6.incoming'}:",
        f"{folder.parent}:",
    ]
    assert contents(ckpt_dir).keys() == {"global_step_3/model.pt", TRACKER, ".saving.lock"}
    assert not folder.parent.exists()
    ready_to_start(ckpt_dir, 0)
    assert capsys.readouterr().out == ""


def test_a_copier_killed_between_its_two_renames_loses_no_checkpoint(ckpt_dir):
    os.rename(ckpt_dir / "global_step_3", ckpt_dir / ".global_step_3.replaced")
    (ckpt_dir / ".global_step_3.incoming").mkdir()
    ready_to_start(ckpt_dir, 0)
    assert contents(ckpt_dir) == {"global_step_3/model.pt": b"third", TRACKER: b"3"}


FULL = """
import errno, os, shutil, sys
def full(event, args):
    if {when}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
if "phase1.train.copy_save" in sys.orig_argv:
    sys.addaudithook(full)
"""


def full_disk(folder: Path, when: str) -> str:
    """A folder for PYTHONPATH: the copier finds a disk full at an event of Python's audit."""
    (folder / "full").mkdir()
    (folder / "full" / "sitecustomize.py").write_text(FULL.format(when=when))
    return str(folder / "full")


def test_a_disk_that_is_full_at_the_tracker_publishes_nothing_either(ckpt_dir, tmp_path):
    folder = staged(ckpt_dir)
    opened = f"event == 'open' and '.{TRACKER}.' in str(args[0])"
    assert copier(folder, ckpt_dir, path=full_disk(tmp_path, opened)).wait() == 1
    assert contents(ckpt_dir) == {"global_step_3/model.pt": b"third", TRACKER: b"3"}
    assert "global_step_6 could not be written: No space left" in failure_of(folder.parent)


def test_where_memory_is_full_too_the_checkpoint_in_it_gives_way_to_the_reason(ckpt_dir, tmp_path):
    folder = staged(ckpt_dir)
    both = f"'.incoming/' in str(args[0]) or 'failed' in str(args[0]) and os.path.exists({str(folder)!r})"
    opened = f"event == 'open' and ({both})"
    assert copier(folder, ckpt_dir, path=full_disk(tmp_path, opened)).wait() == 1
    assert "global_step_6 could not be written: No space left" in failure_of(folder.parent) and not folder.exists()


@pytest.mark.parametrize("gone", ["", "model.pt", "huggingface"], ids=["all of it", "a file", "a folder"])
def test_a_checkpoint_that_vanishes_from_memory_before_its_copy_is_not_published(ckpt_dir, gone):
    """Somebody clears /dev/shm, or systemd does at the user's last logout."""
    folder = staged(ckpt_dir)
    handed_over = inventory(folder)
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    process = copier(folder, ckpt_dir, handed_over=handed_over)
    assert process.wait() == 1
    assert contents(ckpt_dir) == {"global_step_3/model.pt": b"third", TRACKER: b"3"}
    assert "vanished from memory" in failure_of(folder.parent)


def test_a_copier_killed_once_it_has_published_is_no_failure_and_its_memory_is_freed(ckpt_dir, tmp_path):
    folder = staged(ckpt_dir)
    process = copier(
        folder, ckpt_dir, path=stopping_copier(tmp_path, "event == 'shutil.rmtree' and '/shm/' in str(args[0])")
    )
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    assert read_tracker(ckpt_dir) == 6 and folder.parent.exists()
    process.kill()
    process.wait()
    assert failure_of(folder.parent) == ""
    forget_copied(folder.parent)
    assert not folder.parent.exists()


def test_a_save_cut_short_is_told_from_a_copy_cut_short(ckpt_dir):
    folder = staged(ckpt_dir)
    assert "the copier was killed" in failure_of(folder.parent)
    (folder.parent / TRACKER).unlink()  # verl's last word on a save
    assert failure_of(folder.parent) == "global_step_6 was not saved to memory to its end"


def test_what_a_killed_copier_left_of_the_tracker_is_removed_by_the_next_start(ckpt_dir):
    (ckpt_dir / f".{TRACKER}.abc.tmp").mkdir()
    (ckpt_dir / f".{TRACKER}.abc.tmp" / TRACKER).write_text("6")
    ready_to_start(ckpt_dir, 0)
    assert contents(ckpt_dir) == {"global_step_3/model.pt": b"third", TRACKER: b"3"}


def test_the_lock_ends_with_the_last_process_that_has_it(ckpt_dir):
    lock = open_lock(ckpt_dir)
    assert take_lock(lock, 0)
    holder = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    os.close(lock)
    other = open_lock(ckpt_dir)
    try:
        assert not take_lock(other, 0.1)
        holder.kill()
        holder.wait()
        assert take_lock(other, 5)
        fcntl.flock(other, fcntl.LOCK_UN)
    finally:
        os.close(other)


def test_a_link_in_the_place_of_the_staging_folder_is_neither_used_nor_followed(ckpt_dir, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "failed.txt").write_text("kept")
    staging = staging_folder(ckpt_dir)
    staging.symlink_to(tmp_path / "mine")
    try:
        with pytest.raises(PermissionError):
            make_staging(staging)
        ready_to_start(ckpt_dir, 0)
        assert failure_of(staging) == "" and (tmp_path / "mine" / "failed.txt").read_text() == "kept"
    finally:
        staging.unlink()


def test_room_is_looked_for_before_memory_is_taken():
    assert "GB of /dev/shm are needed for a checkpoint" in no_room(10**15, 4, EVERYTHING)
    assert no_room(1000, 4, EVERYTHING) == ""


def test_memory_that_others_filled_during_a_save_is_told_from_another_fault(monkeypatch):
    assert memory_filled(6) == ""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=20_000_000))
    assert memory_filled(6) == "global_step_6 could not be saved to memory, 0.02 GB are free in /dev/shm"


# ------------------------------------------------------------------------------------------------ the job, before a GPU
@pytest.fixture
def engine(env, engine_verl) -> dict[str, str]:
    return env | {"TRAINER": "engine", "PYTHONPATH": str(engine_verl), "BACKGROUND_SAVE": "1"}


REFUSED = [
    {"BACKGROUND_SAVE": "yes"},
    {"TRAINER": "fsdp"},
    {"NNODES": "2"},
    {"MAX_CKPT_TO_KEEP": "1"},
]


@pytest.mark.parametrize("changed", REFUSED, ids=lambda changed: "=".join(*changed.items()))
def test_where_it_cannot_be_had_it_is_refused_by_name(engine, changed):
    with pytest.raises(BadInput) as refused:
        job_of(engine | changed)
    assert "BACKGROUND_SAVE=" in str(refused.value) and "=".join(*changed.items()) in str(refused.value)


@pytest.mark.parametrize("asked", ["0", "1"])
def test_the_trainer_is_told_the_staging_folder_where_it_is_asked_for(engine, asked):
    job = job_of(engine | {"BACKGROUND_SAVE": asked})
    command = launch_command(job, wandb_offline=False, schedule_steps=1)
    told = [word for word in command if word.startswith("PHASE1_BACKGROUND_SAVE=")]
    assert told == ([f"PHASE1_BACKGROUND_SAVE={staging_folder(job.ckpt_dir)}"] if asked == "1" else [])


def test_the_preflight_says_whether_a_checkpoint_fits_into_memory(engine, monkeypatch):
    assert "BACKGROUND_SAVE=0" in CHECKS["host"](job_of(engine | {"BACKGROUND_SAVE": "0"})).detail
    fits = CHECKS["host"](job_of(engine))
    assert fits.status == "pass" and "training goes on" in fits.detail
    monkeypatch.setattr("phase1.train.preflight.disk_and_port.count_parameters", lambda folder: 10**15)
    too_large = CHECKS["host"](job_of(engine))
    assert too_large.status == "warn" and "training waits for each save" in too_large.detail


def test_a_copy_that_failed_is_what_the_run_ends_with(engine, tmp_path, capsys):
    begin(engine)
    job = job_of(engine)
    assert report_end(job, "global_step_16 could not be written") == 1
    assert "step 0 of 16 (global_step_16 could not be written); run the same" in capsys.readouterr().err
    report_stop(job, tmp_path / "none.jsonl", None, "global_step_16 could not be written")
    assert capsys.readouterr().err == "error: global_step_16 could not be written\n"


def test_what_an_ended_run_left_in_memory_refuses_no_start_that_would_free_it(env, monkeypatch):
    job = job_of(env | {"MAX_LENGTH": "10000"})  # 41 MB for the loader's workers
    folder = staged(job.ckpt_dir)  # 42 MB
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    try:
        assert CHECKS["shm"](job).status == "pass"
    finally:
        shutil.rmtree(folder.parent)
    with pytest.raises(BadInput, match="--shm-size="):
        CHECKS["shm"](job)


def test_the_end_of_a_run_frees_the_memory_of_what_was_not_copied_and_says_why(engine, tmp_path):
    job = job_of(engine)
    begin(engine)
    folder = staged(job.ckpt_dir)
    (job.ckpt_dir / ".global_step_6.incoming").mkdir()
    command = [sys.executable, "-m", "phase1.train", "--stopped", str(tmp_path / "none.jsonl"), "--"]
    done = subprocess.run(command, cwd=ROOT, env=job.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "error: global_step_6 was not copied from memory to its end: the copier was killed\n"
    assert done.stdout.count("removed ") == 2 and not folder.parent.exists()
    assert not list(job.ckpt_dir.glob(".global_step_*"))
