"""phase1.checkpoints: nothing half-written is evaluated, the best is the contract's best, one evaluator at a time."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phase1.checkpoints import choose_best, evaluated_steps, find_checkpoints
from phase1.files import only_one, read_json, sha256_file, write_json
from phase1.problems import manifest_path, read_manifest

from .conftest import ROOT, SAMPLES

MANIFESTS = SAMPLES / "manifests"


def make_checkpoint(ckpt_dir: Path, step: int, latest: int | None = None) -> Path:
    model = ckpt_dir / f"global_step_{step}" / "huggingface"
    model.mkdir(parents=True)
    save_file({"a": torch.zeros(8)}, model / "model.safetensors")
    for name in ("config.json", "tokenizer_config.json"):
        (model / name).write_text("{}")
    (ckpt_dir / "latest_checkpointed_iteration.txt").write_text(str(step if latest is None else latest))
    return model


def cut(path: Path, n: int = 1) -> None:
    path.write_bytes(path.read_bytes()[:-n])


def make_shards(model: Path, present: int) -> None:
    (model / "model.safetensors").unlink()
    write_json(model / "model.safetensors.index.json", {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})
    for i in range(1, present + 1):
        save_file({"a": torch.zeros(8)}, model / f"m-{i}.safetensors")


@pytest.mark.parametrize(("damage", "problem"), [
    (lambda m: None, ""),
    (lambda m: make_shards(m, 2), ""),
    (lambda m: make_shards(m, 1), "no whole safetensors"),
    (lambda m: cut(m / "model.safetensors"), "no whole safetensors"),
    (lambda m: (m / "model.safetensors").write_bytes(b""), "no whole safetensors"),
    (lambda m: (m / "model.safetensors").write_bytes(b"\xff" * 100), "no whole safetensors"),
    (lambda m: (m / "model.safetensors").unlink(), "no whole safetensors"),
    (lambda m: (m / "tokenizer_config.json").unlink(), "huggingface/tokenizer_config.json is missing"),
    (lambda m: (m / "config.json").unlink(), "huggingface/config.json is missing"),
    (lambda m: m.rename(m.with_name("hf")), "no huggingface/; convert it with convert_fsdp_to_hf.py"),
])  # fmt: skip
def test_what_is_not_whole_is_said(tmp_path, damage, problem):
    damage(make_checkpoint(tmp_path, 5))
    [checkpoint] = find_checkpoints(tmp_path)
    assert problem in checkpoint.problem and bool(checkpoint.problem) == bool(problem)


def test_a_step_that_verl_has_not_marked_as_finished_is_still_being_written(tmp_path):
    make_checkpoint(tmp_path, 5)
    make_checkpoint(tmp_path, 10, latest=5)
    (tmp_path / "global_step_x").mkdir()
    assert [(c.step, c.problem) for c in find_checkpoints(tmp_path)] == [(5, ""), (10, "still being written")]


def write_eval(output_dir: Path, step: int, rate, accepted, status: str = "complete", sets=("codecontests_valid", "mbpp_reg"), problems: int | None = None, **run) -> None:
    """What an evaluation of these sets leaves; `problems`: only so many of each, as with --limit."""
    folder = output_dir / f"eval_step_{step}"
    hashes = {d: {"manifest_sha256": sha256_file(manifest_path(MANIFESTS, d)), "problems": problems or len(read_manifest(MANIFESTS, d))} for d in sets}
    write_json(folder / "run.json", {"status": status, "model": {"path": f"ckpt/global_step_{step}/huggingface"}, "datasets": hashes, **run})
    metrics = {"exec_success_rate": rate, "accepted_at_1": accepted, "total_problems": hashes[sets[0]]["problems"]}
    write_json(folder / "summary.json", {"datasets": {"codecontests_valid": metrics}})


def test_best_checkpoint_equals_a_brute_force_choice_over_many_random_runs(tmp_path):
    rng = random.Random(0)
    for run in range(50):
        output_dir, expected = tmp_path / str(run), None
        for step in rng.sample(range(500, 20000, 500), 8):
            rate, accepted = rng.choice([None, 0.5, 0.6, 0.6]), rng.choice([None, 0.1, 0.2, 0.2])
            status = rng.choice(["complete", "complete", "running", "incomplete"])
            write_eval(output_dir, step, rate, accepted, status)
            if status == "complete" and rate is not None:
                better = expected is None or rate > expected[0]
                tie = expected is not None and rate == expected[0]
                if better or (tie and ((accepted or 0) > (expected[1] or 0) or ((accepted or 0) == (expected[1] or 0) and step < expected[2]))):
                    expected = (rate, accepted, step)
        best = choose_best(evaluated_steps(output_dir))
        assert (best and (best["best_exec_success_rate"], best["best_accepted_at_1"], best["best_step"])) == expected
        if best:
            assert best["model_path"] == f"ckpt/global_step_{best['best_step']}/huggingface"
            assert best["selection_metric"] == "summary.datasets.codecontests_valid.exec_success_rate"


@pytest.mark.parametrize("other", [{"problems": 2}, {"sampling": {"max_new_tokens": 16}}, {"judge": {"run_timeout": 1}}, {"prompts_sha256": "x"}])
def test_an_evaluation_that_was_measured_otherwise_is_not_ranked_and_named(tmp_path, other):
    write_eval(tmp_path, 500, 0.5, 0.1)
    write_eval(tmp_path, 1000, 0.6, 0.1)
    write_eval(tmp_path, 1500, 1.0, 1.0, **other)
    best = choose_best(evaluated_steps(tmp_path))
    assert best["best_step"] == 1000 and best["not_comparable"] == [1500] and list(best["all_checkpoints"]) == ["500", "1000"]


@pytest.mark.parametrize("partial", [{"problems": 2}, {"sets": ("codecontests_valid",)}, {"status": "incomplete"}])
def test_a_partial_evaluation_does_not_count_as_evaluated(tmp_path, partial):
    make_checkpoint(tmp_path / "ck pt", 500)
    write_eval(tmp_path / "out puts", 500, 0.5, 0.1, **partial)
    assert "step 500: evaluating codecontests_valid mbpp_reg" in run_script(tmp_path, "--dry_run").stdout


def test_no_evaluation_gives_no_best(tmp_path):
    assert choose_best(evaluated_steps(tmp_path)) is None


def test_the_lock_lets_one_in_and_dies_with_its_holder(tmp_path):
    lock = tmp_path / "eval.lock"
    program = "import sys, time; from pathlib import Path; from phase1.files import only_one\nwith only_one(Path(sys.argv[1])) as mine:\n    print(mine, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, lock], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with only_one(lock) as mine:
        assert not mine
    assert f"process {holder.pid} since" in lock.read_text()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_one(lock) as mine:
        assert mine


def run_script(tmp_path, *args):
    env = os.environ | {"CKPT_DIR": str(tmp_path / "ck pt"), "OUTPUT_DIR": str(tmp_path / "out puts"), "PYTHON": sys.executable, "MANIFEST_DIR": str(MANIFESTS)}
    return subprocess.run(["bash", ROOT / "run_eval_checkpoints.sh", *args], cwd=tmp_path, env=env, capture_output=True, text=True)


def test_dry_run_says_what_it_would_do_and_why_the_rest_is_skipped(tmp_path):
    for step in (500, 1000, 2000):
        make_checkpoint(tmp_path / "ck pt", step)
    make_checkpoint(tmp_path / "ck pt", 2500, latest=2000)
    write_eval(tmp_path / "out puts", 500, 0.5, 0.1)
    run = run_script(tmp_path, "--dry_run")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[1:] == [
        "step 500: skipped, evaluated",
        "step 1000: evaluating codecontests_valid mbpp_reg",
        "step 2000: evaluating codecontests_valid mbpp_reg codecontests_valid_big",
        "step 2500: skipped, still being written",
    ]
    assert not (tmp_path / "out puts" / "best_checkpoint.json").exists()


def test_a_second_start_says_who_is_at_work_and_exits_0(tmp_path):
    make_checkpoint(tmp_path / "ck pt", 500)
    with only_one(tmp_path / "out puts" / "eval.lock") as mine:
        assert mine
        run = run_script(tmp_path)
    assert run.returncode == 0 and f"another evaluation is at work (process {os.getpid()} since" in run.stdout


def test_a_checkpoint_that_fails_does_not_stop_the_others_and_the_best_is_still_published(tmp_path):
    make_checkpoint(tmp_path / "ck pt", 500)  # no loadable model: phase1_eval.py fails on it
    write_eval(tmp_path / "out puts", 1000, 0.5, 0.1)
    run = run_script(tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "step 500: phase1_eval.py exited with 2" in run.stdout
    best = read_json(tmp_path / "out puts" / "best_checkpoint.json")
    assert best["best_step"] == 1000 and list(best["all_checkpoints"]) == ["1000"] and best["stamp"]["host"]


def test_a_missing_folder_is_one_line(tmp_path):
    run = run_script(tmp_path)
    assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1


def test_status_shows_steps_that_are_gone_from_disk(tmp_path):
    make_checkpoint(tmp_path / "ck", 1000)
    write_eval(tmp_path / "out", 500, 0.9, 0.1)
    run = subprocess.run([sys.executable, "-m", "phase1.checkpoints", "status", "--checkpoint_dir", tmp_path / "ck", "--output_dir", tmp_path / "out"],
                         cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "gone" in run.stdout and "90.0%" in run.stdout and "whole" in run.stdout
