"""phase1.checkpoints: nothing half-written is evaluated, the best is the contract's best, one evaluator at a time."""

import argparse
import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phase1.checkpoints import attempts as checkpoint_attempts
from phase1.checkpoints import command as checkpoints
from phase1.checkpoints import one_pass as checkpoint_night
from phase1.checkpoints import status as checkpoint_status
from phase1.checkpoints.attempts import Attempts, Gone, hold, try_one
from phase1.checkpoints.choose import against_runner_up, choose_best, evaluated_steps, ranking
from phase1.checkpoints.find import find_checkpoints, settled
from phase1.checkpoints.gpus import choose_gpus
from phase1.checkpoints.keep import keep, kept_model, point_best_model, release, user_of
from phase1.contract.problems import manifest_path, read_manifest
from phase1.files import BadInput, only_one, read_json, sha256_file, write_json
from phase1.handoff.export import export_model
from tests.conftest import ROOT, SAMPLES
from tests.report.fake_evaluations import IMPROVED, PHASE0, Fake, write_evaluation

MANIFESTS = SAMPLES / "manifests"


def make_checkpoint(ckpt_dir: Path, step: int, latest: int | None = None) -> Path:
    model = ckpt_dir / f"global_step_{step}" / "huggingface"
    model.mkdir(parents=True)
    save_file({"a": torch.zeros(8)}, model / "model.safetensors")
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
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


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda m: None, ""),
        (lambda m: make_shards(m, 2), ""),
        (lambda m: make_shards(m, 1), "no whole safetensors"),
        (lambda m: cut(m / "model.safetensors"), "no whole safetensors"),
        (lambda m: (m / "model.safetensors").write_bytes(b""), "no whole safetensors"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\xff" * 100), "no whole safetensors"),
        (lambda m: (m / "model.safetensors").unlink(), "no weights in huggingface/ and nothing to convert"),
        (lambda m: (m / "config.json").write_text('{"a": '), "huggingface/config.json is not readable"),
        (lambda m: (m / "tokenizer.json").unlink(), "huggingface/tokenizer.json is missing"),
        (lambda m: (m / "tokenizer.json").rename(m / "vocab.json"), ""),
        (lambda m: (m / "tokenizer_config.json").unlink(), "huggingface/tokenizer_config.json is missing"),
        (lambda m: (m / "config.json").unlink(), "huggingface/config.json is missing"),
        (lambda m: m.rename(m.with_name("hf")), "nothing to convert"),
    ],
)
def test_what_is_not_whole_is_said(tmp_path, damage, problem):
    damage(make_checkpoint(tmp_path, 5))
    [checkpoint] = find_checkpoints(tmp_path)
    assert problem in checkpoint.problem and bool(checkpoint.problem) == checkpoint.damaged == bool(problem)
    assert not checkpoint.convert


def test_a_step_that_verl_has_not_marked_as_finished_is_still_being_written(tmp_path):
    make_checkpoint(tmp_path, 5)
    make_checkpoint(tmp_path, 10, latest=5)
    (tmp_path / "global_step_x").mkdir()
    assert [(c.step, c.problem) for c in find_checkpoints(tmp_path)] == [(5, ""), (10, "still being written")]


def write_eval(
    output_dir: Path,
    step: int,
    rate,
    accepted,
    status: str = "complete",
    sets=("codecontests_valid", "mbpp_reg"),
    problems: int | None = None,
    **run,
) -> None:
    """What an evaluation of these sets leaves; `problems`: only so many of each, as with --limit."""
    folder = output_dir / f"eval_step_{step}"
    hashes = {
        d: {
            "manifest_sha256": sha256_file(manifest_path(MANIFESTS, d)),
            "problems": problems or len(read_manifest(MANIFESTS, d)),
        }
        for d in sets
    }
    write_json(
        folder / "run.json",
        {"status": status, "model": {"path": f"ckpt/global_step_{step}/huggingface"}, "datasets": hashes, **run},
    )
    metrics = {"exec_success_rate": rate, "accepted_at_1": accepted, "total_problems": hashes[sets[0]]["problems"]}
    write_json(folder / "summary.json", {"datasets": {"codecontests_valid": metrics}})


@pytest.mark.parametrize("seed", range(4))
def test_best_checkpoint_equals_a_brute_force_choice_over_fifty_evaluations(tmp_path, seed):
    """With ties, nulls, a missing metric, a missing data set, and evaluations that are not complete."""
    rng, expected = random.Random(seed), None
    for step in rng.sample(range(500, 100_000, 500), 50):
        rate, accepted = rng.choice([None, 0.5, 0.6, 0.6]), rng.choice([None, 0.1, 0.2, 0.2])
        status = rng.choice(["complete", "complete", "running", "incomplete"])
        write_eval(tmp_path, step, rate, accepted, status)
        lost = rng.choice(["", "", "exec_success_rate", "accepted_at_1", "the data set"])
        summary = read_json(tmp_path / f"eval_step_{step}" / "summary.json")
        summary["datasets"]["codecontests_valid"].pop(lost, None)
        if lost == "the data set":
            summary["datasets"].clear()
        write_json(tmp_path / f"eval_step_{step}" / "summary.json", summary)
        rate, accepted = (
            (None if lost in ("exec_success_rate", "the data set") else rate),
            (0 if lost == "accepted_at_1" else accepted or 0),
        )
        if (
            status == "complete"
            and rate is not None
            and (
                expected is None
                or rate > expected[0]
                or (
                    rate == expected[0] and (accepted > expected[1] or (accepted == expected[1] and step < expected[2]))
                )
            )
        ):
            expected = (rate, accepted, step)
    best = choose_best(evaluated_steps(tmp_path))
    assert (best["best_exec_success_rate"], best["best_accepted_at_1"] or 0, best["best_step"]) == expected
    assert best["model_path"] == f"ckpt/global_step_{best['best_step']}/huggingface"
    assert best["selection_metric"] == "summary.datasets.codecontests_valid.exec_success_rate"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", '{"datasets": '),
        ("summary.json", '{"datasets": []}'),
        ("summary.json", "[]"),
        ("run.json", "[]"),
        ("run.json", '{"status": "complete", "model": "a name"}'),
        ("run.json", '{"status": "complete", "datasets": ["codecontests_valid"]}'),
        ("run.json", '{"status": "complete", "datasets": {"codecontests_valid": 117}}'),
    ],
)
def test_a_damaged_evaluation_hides_none_of_the_others(tmp_path, capsys, name, text):
    for step in (500, 1500):
        write_eval(tmp_path, step, 0.5, 0.1)
    (tmp_path / "eval_step_500" / name).write_text(text)
    assert list(evaluated_steps(tmp_path)) == [1500] and choose_best(evaluated_steps(tmp_path))["best_step"] == 1500
    assert capsys.readouterr().err.count("left out, not a whole evaluation") == 2


def test_an_evaluation_whose_run_json_says_little_is_ranked_and_done_again(tmp_path):
    make_checkpoint(tmp_path / "ck pt", 500)
    write_eval(tmp_path / "out puts", 500, 0.5, 0.1)
    write_json(
        tmp_path / "out puts" / "eval_step_500" / "run.json",
        {"status": "complete", "datasets": {"codecontests_valid": {}, "mbpp_reg": {}}},
    )
    assert choose_best(evaluated_steps(tmp_path / "out puts"))["best_step"] == 500
    assert "step 500: evaluating" in run_script(tmp_path, "--dry_run").stdout


@pytest.mark.parametrize(("rates", "beyond_noise"), [(IMPROVED, True), (PHASE0, False)])
def test_the_runner_up_is_tested_against_the_best_on_the_same_problems(tmp_path, rates, beyond_noise):
    sizes = {"codecontests_valid": 117}
    for seed, (step, fake) in enumerate([(500, PHASE0), (1000, rates)]):
        write_evaluation(tmp_path / f"eval_step_{step}", Fake(fake, sizes, seed=seed, step=step))
    order, _ = ranking(evaluated_steps(tmp_path))
    found = against_runner_up(tmp_path, order)
    assert found["problems"] == 117 and found["beyond_noise"] is beyond_noise is (found["p"] < 0.05)
    best, second = (summary_rate(tmp_path, s) for s in order)
    assert found["change"] == pytest.approx(best - second) and found["gained"] - found["lost"] == round(
        117 * (best - second)
    )
    assert (
        choose_best(evaluated_steps(tmp_path))["interval"][0]
        < best
        < choose_best(evaluated_steps(tmp_path))["interval"][1]
    )


def summary_rate(output_dir: Path, step: int) -> float:
    return read_json(output_dir / f"eval_step_{step}" / "summary.json")["datasets"]["codecontests_valid"][
        "exec_success_rate"
    ]


@pytest.mark.parametrize(
    "other",
    [{"problems": 2}, {"sampling": {"max_new_tokens": 16}}, {"judge": {"run_timeout": 1}}, {"prompts_sha256": "x"}],
)
def test_an_evaluation_that_was_measured_otherwise_is_not_ranked_and_named(tmp_path, other):
    write_eval(tmp_path, 500, 0.5, 0.1)
    write_eval(tmp_path, 1000, 0.6, 0.1)
    write_eval(tmp_path, 1500, 1.0, 1.0, **other)
    best = choose_best(evaluated_steps(tmp_path))
    assert (
        best["best_step"] == 1000
        and best["not_comparable"] == [1500]
        and list(best["all_checkpoints"]) == ["500", "1000"]
    )


@pytest.mark.parametrize("partial", [{"problems": 2}, {"sets": ("codecontests_valid",)}, {"status": "incomplete"}])
def test_a_partial_evaluation_does_not_count_as_evaluated(tmp_path, partial):
    make_checkpoint(tmp_path / "ck pt", 500)
    write_eval(tmp_path / "out puts", 500, 0.5, 0.1, **partial)
    assert "step 500: evaluating codecontests_valid mbpp_reg" in run_script(tmp_path, "--dry_run").stdout


# -------------------------------------------------------------------------------------------------------------- keeping
def test_what_is_kept_is_hard_links_and_the_best_model_moves_by_one_rename(tmp_path):
    models = {s: make_checkpoint(tmp_path / "ck", s) for s in (5, 10, 15)}
    for s, m in models.items():
        (m / "config.json").write_text(f'{{"step": {s}}}')
        point_best_model(tmp_path / "out", keep(m, tmp_path / "out", s))
    assert all((tmp_path / "out" / "best_model" / p.name).samefile(p) for p in models[15].iterdir())
    assert not Path(os.readlink(tmp_path / "out" / "best_model")).is_absolute()  # outputs/ can be moved
    release(tmp_path / "out", {10, 15})
    assert [bool(kept_model(tmp_path / "out", s)) for s in (5, 10, 15)] == [False, True, True]


def test_of_a_model_that_is_links_to_files_elsewhere_the_files_are_kept(tmp_path):
    """As in a hub cache: a hard link to a relative link would lead nowhere."""
    model = make_checkpoint(tmp_path / "ck", 5)
    (model / "config.json").rename(tmp_path / "blob")
    (model / "config.json").symlink_to("../../../blob")
    assert (keep(model, tmp_path / "out", 5) / "config.json").samefile(tmp_path / "blob")
    assert (export_model(model, tmp_path / "deep" / "er" / "model") / "config.json").samefile(tmp_path / "blob")


def test_a_kept_model_that_was_written_into_is_not_taken_for_the_kept_one(tmp_path):
    """verl writes in place when the same step is trained again, into the very file that is kept."""
    model = make_checkpoint(tmp_path / "ck", 5)
    assert keep(model, tmp_path / "out", 5)
    save_file({"a": torch.ones(8)}, model / "model.safetensors")
    with open(model / "config.json", "r+") as f:
        f.write("[]")
    assert kept_model(tmp_path / "out", 5) is None
    assert keep(model, tmp_path / "out", 5) and kept_model(tmp_path / "out", 5)


def test_a_folder_of_the_users_at_best_model_is_left_alone(tmp_path):
    (tmp_path / "out" / "best_model").mkdir(parents=True)
    with pytest.raises(BadInput, match="is no link of this script"):
        point_best_model(tmp_path / "out", make_checkpoint(tmp_path / "ck", 5))


def test_a_best_model_that_is_lost_is_an_error_once_and_then_a_warning(tmp_path):
    """Each pass would mail it again, and nothing brings it back."""
    make_checkpoint(tmp_path / "ck pt", 1500)
    for step, rate in ((500, 0.6), (1000, 0.5)):
        write_eval(tmp_path / "out puts", step, rate, 0.1)
    run = run_script(tmp_path, "--steps", "1")
    assert run.returncode == 1 and "step 500, the best, is not kept: " in run.stderr and "is gone" in run.stderr
    assert (
        read_json(tmp_path / "out puts" / "best_checkpoint.json")["best_step"],
        read_json(tmp_path / "out puts" / "best_checkpoint.json")["kept"],
    ) == (500, False)
    again = run_script(tmp_path, "--steps", "1")
    assert (again.returncode, again.stderr) == (0, "") and "warning: step 500 is not kept" in again.stdout
    (tmp_path / "out puts" / "best_checkpoint.json").write_text(
        "torn"
    )  # it is written anew, never read for what it says
    assert run_script(tmp_path, "--steps", "1").returncode == 1
    assert read_json(tmp_path / "out puts" / "best_checkpoint.json")["best_step"] == 500


@pytest.mark.parametrize("how", ["working directory", "relative path"])
def test_a_process_that_names_a_checkpoint_relative_to_where_it_runs_uses_it(tmp_path, how):
    model = make_checkpoint(tmp_path, 50)
    make_checkpoint(tmp_path, 500)
    program = [sys.executable, "-c", "input()", *(["global_step_50/huggingface"] if how == "relative path" else [])]
    process = subprocess.Popen(program, cwd=tmp_path if how == "relative path" else model, stdin=subprocess.PIPE)
    try:
        assert user_of(tmp_path / "global_step_50") == process.pid and user_of(tmp_path / "global_step_500") is None
    finally:
        process.communicate(b"\n")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (lambda m: None, "Kept (hard links) in"),
        (lambda m: (m / "config.json").write_text("[1]"), "CHANGED since it was kept."),
    ],
)
def test_the_banner_of_the_page_says_how_the_best_model_is_kept_now_and_not_at_the_last_pass(tmp_path, before, said):
    model = make_checkpoint(tmp_path / "ck pt", 500)
    write_eval(tmp_path / "out puts", 500, 0.5, 0.1)
    assert run_script(tmp_path, "--steps", "1").returncode == 0
    before(model)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "phase1.checkpoints",
            "status",
            "--checkpoint_dir",
            tmp_path / "ck pt",
            "--output_dir",
            tmp_path / "out puts",
        ],
        cwd=ROOT,
    )
    assert run.returncode == 0 and said in (tmp_path / "out puts" / "status.html").read_text()


def test_a_model_that_is_released_while_status_looks_is_shown_as_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_status, "kept_model", lambda *_: tmp_path)
    assert checkpoint_status.how_kept(tmp_path, 500) == ""


# ----------------------------------------------------------------------------------------------------------------- GPUs
@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """nvidia-smi's answer of a machine on which training holds GPU 0."""
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho '0, NVIDIA H100, 81559, 70123'\necho '1, NVIDIA H100, 81559, 4'\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("gpus", "force", "passed_on", "visible"),
    [
        ([1], False, [], {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        ([0, 1], True, [], {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        (None, True, [], {}),
        (None, False, ["--vllm_url", "http://elsewhere:8000/v1"], {}),
        ([0], False, [], "GPU 0 holds 70123 MiB, more than --max_gpu_mem_used 2000"),
        (None, False, [], "GPU 0 holds 70123 MiB"),
        ([7], False, [], "--gpus 7: no such GPU; nvidia-smi lists 0, 1"),
    ],
)
def test_busy_gpus_are_refused_unless_forced(two_gpus, gpus, force, passed_on, visible):
    if isinstance(visible, dict):
        assert choose_gpus(gpus, 2000, force, passed_on) == visible
    else:
        with pytest.raises(BadInput, match=visible):
            choose_gpus(gpus, 2000, force, passed_on)


def test_gpus_that_the_environment_hides_are_not_asked_about(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert choose_gpus(None, 2000, False, []) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # none at all: on the CPU
    assert choose_gpus(None, 2000, False, []) == {}


# ------------------------------------------------------------------------------------------------------------- attempts
def test_an_attempt_that_a_kill_cut_short_is_no_failure_but_waits_behind_the_others(tmp_path):
    make_checkpoint(tmp_path, 5)
    [c] = find_checkpoints(tmp_path)
    attempts = Attempts(tmp_path / "out")
    attempts.begin(c)
    attempts.end(attempts.begin(c), c, 2, "error: no")
    again = Attempts(tmp_path / "out")
    assert ([r["attempt"] for r in again.rows], len(again.failures(c)), again.cut_short(5)) == ([1, 2], 1, 1)
    (c.model_path / "config.json").write_text('{"mended": 1}')
    assert again.failures(c) == []


class OneTry:
    """A checkpoint that has settled, and try_one on it with a child that does what a test wants."""

    def __init__(self, tmp_path, monkeypatch, child, convert: bool = False):
        model = make_checkpoint(tmp_path, 5)
        if convert:
            (model / "model.safetensors").unlink()
            write_json(model.parent / "fsdp_config.json", {"world_size": 1})
            for name in ("model_world_size_1_rank_0.pt", "data.pt"):
                torch.save({}, model.parent / name)
        monkeypatch.setattr(checkpoint_attempts, "run_child", child)
        arguments = argparse.Namespace(
            output_dir=tmp_path / "out",
            checkpoint_dir=tmp_path,
            manifest_dir=MANIFESTS,
            keep_best=0,
            base_model=None,
            dtype=None,
            tier2_every=2000,
            max_attempts=3,
        )
        self.path, self.attempts, self.args = model.parent, Attempts(tmp_path / "out"), arguments

    def __call__(self) -> bool:
        [c] = settled(find_checkpoints(self.path.parent), 0)
        return try_one(c, self.args, [], self.attempts, {})


def test_killed_conversions_are_counted_and_leave_nothing_behind(tmp_path, monkeypatch):
    """Each leaves a temporary folder as large as the model, under a new name."""

    def killed(command, log, environment):
        (tmp_path / "global_step_5" / f".huggingface.{len(tries.attempts.rows)}.tmp").mkdir()
        (tmp_path / "global_step_5" / f".huggingface.{len(tries.attempts.rows)}.tmp" / "model.safetensors").write_bytes(
            b"0" * 1000
        )
        return "convert_fsdp_to_hf.py: killed by SIGKILL"

    tries = OneTry(tmp_path, monkeypatch, killed, convert=True)
    (tries.path / ".huggingface.0.tmp").mkdir()  # of a night in which the machine went down
    assert [tries() for _ in range(3)] == [False] * 3
    [c] = find_checkpoints(tmp_path)
    assert len(tries.attempts.failures(c)) == 3 and not list(tries.path.glob(".*"))


@pytest.mark.parametrize("convert", [False, True])
def test_an_attempt_that_fails_because_rotation_has_begun_is_no_failure_of_the_checkpoint(
    tmp_path, monkeypatch, convert
):
    def half_deleted(command, log, environment):
        (tries.path / ("data.pt" if convert else "huggingface/tokenizer.json")).unlink()
        return "exit code 1"

    tries = OneTry(tmp_path, monkeypatch, half_deleted, convert)
    assert (
        tries()
        and tries.attempts.rows[0]["error"] == "gone while it was looked at"
        and not tries.attempts.rows[0]["exit_code"]
    )


def test_a_model_that_changes_between_two_looks_while_it_is_linked_is_left_for_later(tmp_path, monkeypatch):
    make_checkpoint(tmp_path, 5)
    [c] = settled(find_checkpoints(tmp_path), 0)
    prints = iter("ab")
    monkeypatch.setattr("phase1.checkpoints.keep.fingerprint", lambda _: next(prints))
    with pytest.raises(Gone):
        hold(c, tmp_path / "out")
    assert not list((tmp_path / "out" / "kept").iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"attempts": 1}', '{"attempts": [1]}'])
def test_a_damaged_list_of_attempts_is_one_line(tmp_path, text):
    make_checkpoint(tmp_path / "ck pt", 500)
    (tmp_path / "out puts").mkdir()
    (tmp_path / "out puts" / "attempts.json").write_text(text)
    run = run_script(tmp_path)
    assert run.returncode == 2 and "attempts.json" in run.stderr and run.stderr.count("\n") == 1


def test_a_watch_outlives_a_file_system_that_does_not_answer(monkeypatch, capsys):
    answers = iter([OSError(5, "Input/output error", "/mnt/ck"), BadInput("no room"), KeyboardInterrupt()])

    def one_pass(*_):
        raise next(answers)

    monkeypatch.setattr(checkpoint_night, "one_pass", one_pass)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.evaluate(argparse.Namespace(watch=0.01), [])
    assert capsys.readouterr().err == "error: [Errno 5] Input/output error: '/mnt/ck'\nerror: no room\n"


def test_no_evaluation_gives_no_best(tmp_path):
    assert choose_best(evaluated_steps(tmp_path)) is None


def test_the_lock_lets_one_in_and_dies_with_its_holder(tmp_path):
    lock = tmp_path / "eval.lock"
    program = (
        "import sys, time; from pathlib import Path; from phase1.files import only_one\nwith "
        "only_one(Path(sys.argv[1])) as mine:\n    print(mine, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, lock], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with only_one(lock) as mine:
        assert not mine
    assert f"process {holder.pid} since" in lock.read_text()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_one(lock) as mine:
        assert mine


def test_a_full_disk_keeps_nobody_from_the_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("phase1.files.os.write", full)
    with only_one(tmp_path / "eval.lock") as mine:
        assert mine


def run_script(tmp_path, *args):
    env = os.environ | {
        "CKPT_DIR": str(tmp_path / "ck pt"),
        "OUTPUT_DIR": str(tmp_path / "out puts"),
        "PYTHON": sys.executable,
        "MANIFEST_DIR": str(MANIFESTS),
    }
    return subprocess.run(
        ["bash", ROOT / "run_eval_checkpoints.sh", "--settle", "0", *args],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )


def test_dry_run_says_what_it_would_do_and_why_the_rest_is_skipped(tmp_path):
    for step in (500, 1000, 2000):
        make_checkpoint(tmp_path / "ck pt", step)
    make_checkpoint(tmp_path / "ck pt", 2500, latest=2000)
    write_eval(tmp_path / "out puts", 500, 0.5, 0.1)
    run = run_script(tmp_path, "--dry_run")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[1:] == [
        "step 500: skipped, evaluated",
        "step 2500: skipped, still being written",
        "step 1000: evaluating codecontests_valid mbpp_reg",
        "step 2000: evaluating codecontests_valid mbpp_reg codecontests_valid_big",
    ]
    assert not (tmp_path / "out puts" / "best_checkpoint.json").exists()


def test_a_second_start_says_who_is_at_work_and_exits_0(tmp_path):
    make_checkpoint(tmp_path / "ck pt", 500)
    with only_one(tmp_path / "out puts" / "eval.lock") as mine:
        assert mine
        run = run_script(tmp_path)
    assert run.returncode == 0 and f"another evaluation is at work (process {os.getpid()} since" in run.stdout


@pytest.mark.parametrize("flags", [["--batch_size", "many"], ["--wach", "600"], ["500"]])
def test_a_flag_that_phase1_eval_refuses_ends_the_pass_and_counts_against_no_checkpoint(tmp_path, flags):
    """Three passes with a slip in the cron line would else give every checkpoint up."""
    for step in (500, 1000):
        make_checkpoint(tmp_path / "ck pt", step)
    run = run_script(tmp_path, *flags)
    assert (
        run.returncode == 2
        and "error: phase1_eval.py: error: " in run.stderr
        and flags[-1] in run.stderr
        and run.stderr.count("\n") == 1
    )
    attempts = Attempts(tmp_path / "out puts")
    assert [attempts.failures(c) for c in find_checkpoints(tmp_path / "ck pt")] == [[], []]


@pytest.mark.parametrize(
    "flag", ["--step", "--datasets", "--model_path=x", "--best_checkpoint", "--rejudge", "--recompute"]
)
def test_a_flag_that_would_evaluate_something_else_under_the_checkpoints_name_is_refused(tmp_path, flag):
    make_checkpoint(tmp_path / "ck pt", 500)
    run = run_script(tmp_path, "--dry_run", flag, "1000")
    assert run.returncode == 2 and run.stderr.startswith(f"error: {flag}: ") and run.stderr.count("\n") == 1


def test_a_checkpoint_that_fails_does_not_stop_the_others_and_the_best_is_still_published(tmp_path):
    make_checkpoint(tmp_path / "ck pt", 500)
    make_checkpoint(tmp_path / "ck pt", 1000)
    write_eval(tmp_path / "out puts", 1000, 0.5, 0.1)
    run = run_script(tmp_path, "--vllm_python", "/nowhere/python")  # a flag that is not ours goes to phase1_eval.py
    assert run.returncode == 1, run.stdout + run.stderr
    assert (
        "step 500: attempt 1 of 3 failed: phase1_eval.py: exit code 2, error: --vllm_python /nowhere/python"
        in run.stderr
    )
    best = read_json(tmp_path / "out puts" / "best_checkpoint.json")
    assert best["best_step"] == 1000 and list(best["all_checkpoints"]) == ["1000"] and best["stamp"]["host"]


def test_a_missing_folder_is_one_line(tmp_path):
    run = run_script(tmp_path)
    assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1


def status(tmp_path, *args):
    command = [
        sys.executable,
        "-m",
        "phase1.checkpoints",
        "status",
        "--checkpoint_dir",
        tmp_path / "ck",
        "--output_dir",
        tmp_path / "out",
        *args,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(("name", "text"), [("best_checkpoint.json", '{"best_step": 5}'), ("final/summary.json", "[]")])
def test_status_names_a_file_that_it_cannot_show(tmp_path, name, text):
    (tmp_path / "ck").mkdir()
    write_evaluation(tmp_path / "out" / "final", Fake(PHASE0, {"mbpp_reg": 9}))
    metrics = tmp_path / "out" / "final" / "metrics.json"
    run = status(tmp_path, "--phase0_metrics", metrics, "--phase1_metrics", metrics)
    assert run.returncode == 0 and "mbpp_reg" in run.stdout, run.stderr
    (tmp_path / "out" / name).write_text(text)
    run = status(tmp_path, "--phase0_metrics", metrics, "--phase1_metrics", metrics)
    assert run.returncode == 2 and name in run.stderr and run.stderr.count("\n") == 1, run.stderr


def test_status_shows_steps_that_are_gone_from_disk(tmp_path):
    make_checkpoint(tmp_path / "ck", 1000)
    write_eval(tmp_path / "out", 500, 0.9, 0.1)
    run = status(tmp_path)
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "out" / "status.html").read_text()
    assert page.count("<svg") == 1 and ">500<" in page  # one curve, of exec_success_rate; there is no training log here
    assert "gone" in run.stdout and "90.0%" in run.stdout and "whole" in run.stdout
