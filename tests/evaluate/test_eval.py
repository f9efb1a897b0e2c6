"""phase1_eval.py on the real small model and the real sandbox: nothing lost by a kill, nothing mixed, nothing
hidden."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from phase1.contract.problems import load_problems
from phase1.files import read_json, read_jsonl
from tests.conftest import ROOT, SAMPLES

ALL_SETS = ["codecontests_valid", "codecontests_valid_big", "codecontests_test", "humaneval", "mbpp_reg"]
SMALL = [
    "--manifest_dir",
    str(SAMPLES / "manifests"),
    "--max_new_tokens",
    "16",
    "--dtype",
    "float32",
    "--batch_size",
    "4",
]


def command(*args) -> list[str]:
    return [sys.executable, str(ROOT / "phase1_eval.py"), *SMALL, *map(str, args)]


def run_eval(*args) -> subprocess.CompletedProcess:
    return subprocess.run(command(*args), capture_output=True, text=True)


def lines(output_dir: Path, kind: str) -> list[dict]:
    return [row for path in sorted((output_dir / kind).glob("*.jsonl")) for _, row in read_jsonl(path)]


@pytest.fixture(scope="module")
def evaluated(base_model, tmp_path_factory) -> Path:
    """The base model on the first 6 problems of each set."""
    output_dir = tmp_path_factory.mktemp("eval") / "phase 0"
    run = run_eval("--model_path", base_model, "--output_dir", output_dir, "--datasets", *ALL_SETS, "--limit", 6)
    assert run.returncode == 0, run.stdout + run.stderr
    return output_dir


@pytest.mark.slow
def test_an_evaluation_leaves_every_file_of_the_contract(evaluated):
    run, metrics, summary = (read_json(evaluated / f) for f in ("run.json", "metrics.json", "summary.json"))
    assert run["status"] == "complete" and run["sandbox"] and run["stamp"]["versions"]["torch"]
    assert list(metrics) == list(summary["datasets"]) == list(run["datasets"]) == ALL_SETS
    assert all(m["total_problems"] == 6 for m in metrics.values())
    assert len(lines(evaluated, "results")) == len(lines(evaluated, "completions")) == 30
    assert {p.name for p in (evaluated / "qa_logs").iterdir()} == {f"{d}_qa.jsonl" for d in ALL_SETS} | {
        "qa_summary.json"
    }
    for path in evaluated.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
def test_a_second_run_generates_and_judges_nothing(evaluated, base_model):
    before = {p: p.read_bytes() for p in evaluated.rglob("*.jsonl")}
    metrics = read_json(evaluated / "metrics.json")
    run = run_eval("--model_path", base_model, "--output_dir", evaluated, "--datasets", *ALL_SETS, "--limit", 6)
    assert run.returncode == 0, run.stderr
    assert {p: p.read_bytes() for p in evaluated.rglob("*.jsonl")} == before
    assert read_json(evaluated / "metrics.json") == metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (["--limit", "5"], "datasets.codecontests_valid.problems"),
        (["--limit", "6", "--max_new_tokens", "17"], "sampling.max_new_tokens"),
        (["--limit", "6", "--run_timeout", "29"], "judge.run_timeout"),
        (["--limit", "6", "--compare", "exact"], "judge.compare"),
        (["--limit", "6", "--extraction", "reader"], "judge.extraction"),
    ],
)
def test_resuming_under_other_arguments_is_refused_by_name(evaluated, base_model, changed, field):
    before = {p: p.read_bytes() for p in evaluated.rglob("*.json*")}
    run = run_eval("--model_path", base_model, "--output_dir", evaluated, "--datasets", "codecontests_valid", *changed)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and field in run.stderr
    assert {p: p.read_bytes() for p in evaluated.rglob("*.json*")} == before


@pytest.mark.slow
def test_a_set_that_was_begun_and_left_out_of_the_rerun_keeps_the_evaluation_incomplete(
    evaluated, base_model, tmp_path
):
    shutil.copytree(evaluated, tmp_path / "e")
    path = tmp_path / "e" / "results" / "humaneval.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    run_json = read_json(tmp_path / "e" / "run.json")
    (tmp_path / "e" / "run.json").write_text(json.dumps(run_json | {"status": "running"}))
    run = run_eval("--model_path", base_model, "--output_dir", tmp_path / "e", "--datasets", "mbpp_reg", "--limit", 6)
    assert run.returncode == 1 and "humaneval: 4 problems were not begun" in run.stdout
    assert read_json(tmp_path / "e" / "run.json")["status"] == "incomplete"


@pytest.mark.slow
def test_a_second_evaluator_waits_for_the_first_and_does_no_problem_twice(base_model, tmp_path):
    args = ["--model_path", base_model, "--output_dir", tmp_path, "--datasets", "mbpp_reg", "--limit", 8]
    both = [
        subprocess.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    said = sorted(p.communicate()[0] for p in both)
    assert [p.returncode for p in both] == [0, 0], said
    assert sum("complete already" in text for text in said) == 1
    assert len(lines(tmp_path, "results")) == len(lines(tmp_path, "completions")) == 8


@pytest.mark.slow
def test_a_long_prompt_does_not_shorten_its_neighbours_answers(base_model, tmp_path):
    from phase1.generate.requests import prompt_ids
    from phase1.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(base_model)
    lengths = sorted(len(prompt_ids(tokenizer, p)) for p in load_problems(SAMPLES / "manifests", "mbpp_reg", limit=4))
    limit = lengths[-1] + 4  # the longest prompt leaves 4 tokens, the shorter ones more
    run = run_eval(
        "--model_path",
        base_model,
        "--output_dir",
        tmp_path,
        "--datasets",
        "mbpp_reg",
        "--limit",
        4,
        "--max_model_len",
        limit,
    )
    assert run.returncode == 0, run.stderr
    for r in lines(tmp_path, "completions"):
        assert r["finish_reason"] == "stop" or r["gen_tokens"] == min(16, limit - r["prompt_tokens"])


@pytest.mark.slow
def test_another_model_is_refused_by_its_fingerprint(evaluated, base_model, tmp_path):
    shutil.copytree(base_model, tmp_path / "other")
    config = read_json(tmp_path / "other" / "config.json")
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"rope_theta": 10000.0}))
    run = run_eval(
        "--model_path", tmp_path / "other", "--output_dir", evaluated, "--datasets", "codecontests_valid", "--limit", 6
    )
    assert run.returncode == 2 and "model.fingerprint" in run.stderr


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_does_no_finished_problem_twice(base_model, tmp_path):
    args = [
        "--model_path",
        base_model,
        "--output_dir",
        tmp_path,
        "--datasets",
        "codecontests_valid",
        "mbpp_reg",
        "--limit",
        20,
    ]
    judged_at_kill = []
    for wanted in (1, 9, 22):  # records on disk at which the whole process is killed
        process = subprocess.Popen(command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (len(lines_of_growing(tmp_path)) < wanted):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        judged_at_kill.append(len(lines_of_growing(tmp_path)))
        assert read_json(tmp_path / "run.json")["status"] == "running"
    finished = lines_of_growing(tmp_path)
    assert len(finished) < 40, "it was done before the last kill, so this test shows nothing"
    run = run_eval(*args)
    assert run.returncode == 0, run.stderr
    for kind in ("completions", "results"):
        done = Counter((r["dataset"], r["problem_id"]) for r in lines(tmp_path, kind))
        assert len(done) == 40 and set(done.values()) == {1}, kind
    assert [r for r in lines(tmp_path, "results") if r["problem_id"] in {f["problem_id"] for f in finished}] == finished
    assert len(read_json(tmp_path / "run.json")["sessions"]) == 4


@pytest.mark.slow
def test_sigterm_in_a_long_batch_ends_it_at_its_next_token(base_model, tmp_path):
    args = [
        "--model_path",
        base_model,
        "--output_dir",
        tmp_path / "out",
        "--datasets",
        "mbpp_reg",
        "--batch_size",
        24,
        "--backend",
        "transformers",
        "--max_new_tokens",
        6000,
        "--max_model_len",
        8192,
    ]
    process = subprocess.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if line.startswith("generated 0/"):  # the model is loaded, or nearly
            break
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]  # the whole batch would take many minutes
    assert "stopped by SIGTERM" in output and read_json(tmp_path / "out" / "run.json")["status"] == "interrupted"
    assert not lines(tmp_path / "out", "completions")


def lines_of_growing(output_dir: Path) -> list[dict]:
    """The whole lines of the results, while or after they were written by a process that may have been killed."""
    found = []
    for path in sorted((output_dir / "results").glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return found


@pytest.mark.slow
def test_the_models_own_generation_config_changes_nothing(base_model, tmp_path):
    """A penalty of 5 shows even in an untrained model's answers; the one of 1.1 that Qwen ships might not."""
    answers = {}
    own = {"repetition_penalty": 5.0, "temperature": 0.7, "top_k": 20, "do_sample": True}
    for name, config, more in (("own", own, []), ("plain", {}, []), ("penalised", {}, ["--repetition_penalty", "5"])):
        shutil.copytree(base_model, tmp_path / name / "model")
        (tmp_path / name / "model" / "generation_config.json").write_text(json.dumps(config))
        run = run_eval(
            "--model_path",
            tmp_path / name / "model",
            "--output_dir",
            tmp_path / name,
            "--datasets",
            "mbpp_reg",
            "--limit",
            4,
            *more,
        )
        assert run.returncode == 0, run.stderr
        answers[name] = [r["completion"] for r in lines(tmp_path / name, "completions")]
    assert answers["own"] == answers["plain"] != answers["penalised"]


@pytest.mark.slow
def test_a_prompt_over_the_limit_is_counted_apart_and_does_not_hang_the_run(base_model, tmp_path):
    run = run_eval(
        "--model_path",
        base_model,
        "--output_dir",
        tmp_path,
        "--datasets",
        "mbpp_reg",
        "--limit",
        2,
        "--max_model_len",
        20,
    )
    assert run.returncode == 0, run.stderr
    assert {(r["error_type"], r["finish_reason"]) for r in lines(tmp_path, "results")} == {("api_error", "too_long")}
    assert "the limit is 20" in lines(tmp_path, "results")[0]["detail"]
    assert read_json(tmp_path / "summary.json")["datasets"]["mbpp_reg"]["api_error_rate"] == 1.0


# ------------------------------------------------------------------------------------------- which model, which sets
@pytest.fixture
def run_dir(base_model, tmp_path) -> Path:
    """A training run's folder with one checkpoint and the best_checkpoint.json that names it."""
    shutil.copytree(base_model, tmp_path / "ckpt" / "global_step_7" / "huggingface")
    best = {"best_step": 7, "model_path": str(tmp_path / "ckpt" / "global_step_7" / "huggingface")}
    (tmp_path / "best_checkpoint.json").write_text(json.dumps(best))
    return tmp_path


def eval_step(run_dir: Path, step: str, *args):
    return run_eval(
        "--checkpoint_dir",
        run_dir / "ckpt",
        "--step",
        step,
        "--best_checkpoint",
        run_dir / "best_checkpoint.json",
        "--limit",
        1,
        *args,
    )


@pytest.mark.slow
@pytest.mark.parametrize("step", ["7", "best"])
def test_the_best_step_may_see_the_test_sets_and_each_look_is_written_down(run_dir, step):
    run = eval_step(run_dir, step, "--datasets", "humaneval", "--output_dir", run_dir / "eval_final")
    assert run.returncode == 0, run.stderr
    [(_, use)] = read_jsonl(run_dir / "test_set_uses.jsonl")
    assert (use["dataset"], use["step"]) == ("humaneval", 7)


@pytest.mark.slow
def test_a_best_checkpoint_that_verl_rotated_away_is_found_at_its_protected_copy(run_dir):
    (run_dir / "ckpt" / "global_step_7" / "huggingface").rename(run_dir / "kept")
    (run_dir / "best_checkpoint.json").write_text(json.dumps({"best_step": 7, "model_path": str(run_dir / "kept")}))
    run = eval_step(run_dir, "best", "--datasets", "mbpp_reg", "--output_dir", run_dir / "eval_final")
    assert run.returncode == 0, run.stderr
    assert read_json(run_dir / "eval_final" / "run.json")["model"]["step"] == 7


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--step", "7", "--datasets", "humaneval"], "humaneval is test-only and step 7 is not the best step"),
        (["--step", "8"], "global_step_8/huggingface: no config.json there"),
        (["--step", "9"], "global_step_9/huggingface: no config.json there"),  # best, but of another run's folder
        (["--step", "seven"], "--step seven: neither a number nor a best_step"),
        (["--step", "best"], "--step best needs --output_dir"),
        ([], "give --checkpoint_dir and --step, or --model_path"),
        (["--step", "7", "--model_path", "m"], "leave out --checkpoint_dir and --step"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(run_dir, args, message):
    (run_dir / "best_checkpoint.json").write_text(
        json.dumps({"best_step": 9, "model_path": "/elsewhere/global_step_9/huggingface"})
    )
    run = run_eval("--checkpoint_dir", run_dir / "ckpt", "--best_checkpoint", run_dir / "best_checkpoint.json", *args)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1 and message in run.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "x"])
def test_a_limit_below_one_is_refused(base_model, tmp_path, limit):
    run = run_eval("--model_path", base_model, "--output_dir", tmp_path, "--limit", limit)
    assert run.returncode == 2 and "--limit" in run.stderr


def test_the_sample_sets_are_there():
    assert all(len(load_problems(SAMPLES / "manifests", d)) >= 20 for d in ALL_SETS)
