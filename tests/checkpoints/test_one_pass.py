"""phase1.checkpoints.one_pass: what a pass does, and what one failure does to the rest of it."""

import struct
import time
from types import SimpleNamespace

import pytest

from phase1.checkpoints import child, evaluate_all
from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.find import find_checkpoints
from phase1.files import fingerprint, read_json
from tests.checkpoints.made import make_checkpoint, write_eval
from tests.tiny_model import tiny_shapes, write_float32


def test_dry_run_says_what_it_would_do_and_why_the_rest_is_skipped(place):
    for step in (500, 1000, 2000):
        make_checkpoint(place.checkpoints, step)
    make_checkpoint(place.checkpoints, 2500, latest=2000)
    write_eval(place.outputs, 500, 0.5, 0.1)
    run = place.evaluate("--dry_run")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "step 500: skipped, evaluated",
        "step 2500: skipped, still being written",
        "step 1000: evaluating codecontests_valid mbpp_reg",
        "step 2000: evaluating codecontests_valid mbpp_reg codecontests_valid_big",
    ]
    assert not (place.outputs / "best_checkpoint.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--batch_size", "many"], ["--wach", "600"]], ids=" ".join)
def test_a_flag_that_phase1_eval_refuses_ends_the_pass_and_counts_against_no_checkpoint(place, flags):
    """Three passes with a slip in the cron line would else give every checkpoint up."""
    for step in (500, 1000):
        make_checkpoint(place.checkpoints, step)
    run = place.evaluate(*flags)
    assert run.returncode == 2 and "error: phase1_eval.py: " in run.stderr
    assert flags[-1] in run.stderr and run.stderr.count("\n") == 1
    attempts = Attempts(place.outputs)
    assert [attempts.failures(c) for c in find_checkpoints(place.checkpoints)] == [[], []]


@pytest.mark.slow
def test_a_checkpoint_that_fails_does_not_stop_the_others_and_the_best_is_still_published(place):
    make_checkpoint(place.checkpoints, 500)
    make_checkpoint(place.checkpoints, 1000)
    write_eval(place.outputs, 1000, 0.5, 0.1)
    run = place.evaluate("--vllm_python", "/nowhere/python")  # a flag that is not ours goes to phase1_eval.py
    assert run.returncode == 1, run.stdout + run.stderr
    said = "step 500: attempt 1 of 3 failed: phase1_eval.py: exit code 2, error: --vllm_python /nowhere/python"
    assert said in run.stderr
    best = read_json(place.outputs / "best_checkpoint.json")
    assert best["best_step"] == 1000 and list(best["all_checkpoints"]) == ["1000"] and best["stamp"]["host"]


@pytest.mark.parametrize("evaluated", [False, True], ids=["not evaluated", "evaluated before it was known"])
def test_weights_that_are_not_the_configs_are_named_and_neither_evaluated_nor_chosen_nor_pruned(place, evaluated):
    for step in (500, 1000, 1500):
        make_checkpoint(place.checkpoints, step)
    broken = place.checkpoints / "global_step_500" / "huggingface"
    write_float32(broken / "model.safetensors", {f"_orig_mod.{n}": shape for n, shape in tiny_shapes().items()})
    for step in (1000, 1500):
        write_eval(place.outputs, step, 0.5, 0.1)
    if evaluated:
        write_eval(place.outputs, 500, 0.0, 0.0)
    run = place.evaluate("--prune", "--keep_best", 0)
    assert "step 500 stays" in run.stdout and broken.is_dir(), run.stdout
    if not evaluated:
        assert run.returncode == 1 and "step 500: attempt 1 of 3 failed: huggingface/" in run.stderr
        assert "_orig_mod.model.embed_tokens.weight" in run.stderr and "take it off every name" in run.stderr
        assert not (place.outputs / "eval_step_500").exists()
    assert read_json(place.outputs / "best_checkpoint.json")["best_step"] == 1000


@pytest.mark.parametrize("again", [False, True], ids=["as evaluated", "saved again"])
def test_what_was_saved_again_since_its_evaluation_is_not_pruned(place, again):
    for step in (500, 1000, 1500):
        model = make_checkpoint(place.checkpoints, step)
        known = {"path": str(model), "fingerprint": fingerprint(model)}
        write_eval(place.outputs, step, 0.5 + (step == 1000) / 4, 0.1, model=known)
    folder = place.checkpoints / "global_step_500"
    if again:
        weights = folder / "huggingface" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + struct.pack("<f", 2.0))
    run = place.evaluate("--prune", "--keep_best", 0)
    assert run.returncode == 0 and folder.is_dir() == again, run.stdout + run.stderr
    said = "stays: not evaluated" if again else "deleted"
    assert f"step 500 {said}" in run.stdout


def test_it_waits_for_disk_space_and_says_so_when_there_is_none(place, monkeypatch):
    make_checkpoint(place.checkpoints, 100)
    clock = [0.0]

    async def sleep(seconds):
        clock[0] += seconds

    monkeypatch.setattr(evaluate_all, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(evaluate_all.asyncio, "sleep", sleep)
    run = place.evaluate("--min_free_gb", 10**9, "--max_wait", 70)
    assert run.returncode == 2 and run.stdout.count("waiting for disk space") == 3  # at 0, 30 and 60 s
    assert "--min_free_gb asks for 1e+09" in run.stderr and run.stderr.count("\n") == 1


def test_tier_2_is_evaluated_at_the_steps_that_tier2_every_names(place):
    for step in (500, 1000):
        make_checkpoint(place.checkpoints, step)
    assert place.evaluate("--dry_run", "--tier2_every", 1000).stdout.splitlines() == [
        "step 500: evaluating codecontests_valid mbpp_reg",
        "step 1000: evaluating codecontests_valid mbpp_reg codecontests_valid_big",
    ]


def test_what_an_evaluation_leaves_to_the_pass_outlives_it_and_ends_with_the_pass(place, tmp_path, monkeypatch):
    """Each evaluation of two starts a process that listens, as a vLLM server's keeper does, and goes."""
    for step in (500, 1000):
        make_checkpoint(place.checkpoints, step)
    said = tmp_path / "said"
    listener = f"import sys; sys.stdin.read(); open({str(said)!r}, 'a').write('ended\\n')"
    (tmp_path / "phase1_eval.py").write_text(
        "import os, subprocess, sys\npipe, folder = os.environ['PHASE1_KEPT_SERVERS'].split(' ', 1)\n"
        f"open({str(said)!r}, 'a').write(f'in {{folder}}\\n')\n"
        f"subprocess.Popen([sys.executable, '-c', {listener!r}], stdin=int(pipe), start_new_session=True)\n"
    )
    monkeypatch.setattr(child, "ROOT", tmp_path)
    run = place.evaluate("--settle", "0")
    assert run.returncode == 0, run.stderr
    deadline = time.monotonic() + 60
    while len(said.read_text().split("\n")) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert said.read_text().splitlines() == [f"in {place.outputs / 'servers'}"] * 2 + ["ended"] * 2
