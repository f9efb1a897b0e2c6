"""phase1_eval.py with the small model and the real sandbox: nothing lost by a kill, nothing mixed, nothing hidden."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from phase1.contract.problems import load_problems
from phase1.files import only_one, read_json, read_jsonl
from phase1.model.tokenizer import chat_ids, load_chat_tokenizer
from tests.conftest import ROOT
from tests.evaluate.running import MANIFESTS, Done, eval_command, rows, run_eval, write_train_run

ALL_SETS = ["codecontests_valid", "codecontests_valid_big", "codecontests_test", "humaneval", "mbpp_reg"]
SMALL = ["--max_new_tokens", 16, "--dtype", "float32", "--batch_size", 4, "--backend", "transformers"]


def evaluate(model: Path, output_dir: Path, *args: object) -> Done:
    return run_eval("--model_path", model, "--output_dir", output_dir, *SMALL, *args)


@pytest.fixture(scope="module")
def evaluated(base_model, tmp_path_factory) -> Path:
    """The base model on the first 6 problems of each set, with the flags that the original commands give."""
    output_dir = tmp_path_factory.mktemp("eval") / "phase 0"
    given = ["--use_external_tests", "--no_submit_api"]
    done = evaluate(base_model, output_dir, "--datasets", *ALL_SETS, "--limit", 6, *given)
    assert done.returncode == 0, done.said
    return output_dir


@pytest.mark.slow
def test_an_evaluation_leaves_every_file_of_the_contract(evaluated):
    run, metrics, summary = (read_json(evaluated / f) for f in ("run.json", "metrics.json", "summary.json"))
    assert run["status"] == "complete" and run["sandbox"] and run["stamp"]["versions"]["torch"]
    assert run["generation"]["backend"] == "transformers" and len(run["generation"]["chat_template_sha256"]) == 64
    assert list(metrics) == list(summary["datasets"]) == list(run["datasets"]) == ALL_SETS
    assert all(m["total_problems"] == 6 for m in metrics.values())
    assert len(rows(evaluated, "results")) == len(rows(evaluated, "completions")) == 30
    qa_logs = {f"{d}_qa.jsonl" for d in ALL_SETS} | {"qa_summary.json"}
    assert {p.name for p in (evaluated / "qa_logs").iterdir()} == qa_logs
    for path in evaluated.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
def test_a_second_run_generates_and_judges_nothing(evaluated, base_model):
    before = {p: p.read_bytes() for p in evaluated.rglob("*.jsonl")}
    metrics = read_json(evaluated / "metrics.json")
    done = evaluate(base_model, evaluated, "--datasets", *ALL_SETS, "--limit", 6)
    assert done.returncode == 0 and "complete already" in done.stdout, done.said
    assert {p: p.read_bytes() for p in evaluated.rglob("*.jsonl")} == before
    assert read_json(evaluated / "metrics.json") == metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (["--limit", 5], "datasets.codecontests_valid.problems"),
        (["--max_new_tokens", 17], "sampling.max_new_tokens"),
        (["--run_timeout", 29], "judge.run_timeout"),
        (["--compare", "exact"], "judge.compare"),
        (["--extraction", "reader"], "judge.extraction"),
    ],
    ids=lambda value: value.split(".")[-1] if isinstance(value, str) else "",
)
def test_resuming_under_other_arguments_is_refused_by_name(evaluated, base_model, changed, field):
    before = {p: p.read_bytes() for p in evaluated.rglob("*.json*")}
    done = evaluate(base_model, evaluated, "--datasets", "codecontests_valid", "--limit", 6, *changed)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and field in done.stderr
    assert {p: p.read_bytes() for p in evaluated.rglob("*.json*")} == before


@pytest.mark.slow
def test_a_resume_under_another_extraction_is_refused_until_all_is_judged_again(evaluated, base_model, tmp_path):
    out = tmp_path / "e"
    shutil.copytree(evaluated, out)
    path = out / "results" / "humaneval.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    (out / "run.json").write_text(json.dumps(read_json(out / "run.json") | {"status": "running"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("phase1.contract.extraction.extract_code", lambda completion: "print(0)")
        done = evaluate(base_model, out, "--datasets", *ALL_SETS, "--limit", 6)
        assert done.returncode == 2 and "behaviour.extraction = " in done.stderr and "--rejudge" in done.stderr
        assert run_eval("--rejudge", "--output_dir", out).returncode == 0
        assert {row["code"] for row in rows(out, "results")} == {"print(0)"}
    assert read_json(out / "run.json")["behaviour"] != read_json(evaluated / "run.json")["behaviour"]


@pytest.mark.slow
def test_another_model_is_refused_by_its_fingerprint(evaluated, base_model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(base_model, other)
    (other / "config.json").write_text(json.dumps(read_json(other / "config.json") | {"rope_theta": 10000.0}))
    done = evaluate(other, evaluated, "--datasets", "codecontests_valid", "--limit", 6)
    assert done.returncode == 2 and "model.fingerprint" in done.stderr


@pytest.mark.slow
def test_a_set_that_was_begun_and_left_out_of_the_rerun_keeps_the_evaluation_incomplete(
    evaluated, base_model, tmp_path
):
    out = tmp_path / "e"
    shutil.copytree(evaluated, out)
    path = out / "results" / "humaneval.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    (out / "run.json").write_text(json.dumps(read_json(out / "run.json") | {"status": "running"}))
    done = evaluate(base_model, out, "--datasets", "mbpp_reg", "--limit", 6)
    assert done.returncode == 1 and "humaneval: 4 problems were not begun" in done.stdout
    assert read_json(out / "run.json")["status"] == "incomplete"


@pytest.mark.slow
def test_a_second_evaluator_waits_for_the_first_and_does_no_problem_twice(base_model, tmp_path):
    args = ["--model_path", base_model, "--output_dir", tmp_path, "--datasets", "mbpp_reg", "--limit", 8, *SMALL]
    words = eval_command(*args)
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = sorted(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("complete already" in text for text in said) == 1
    assert len(rows(tmp_path, "results")) == len(rows(tmp_path, "completions")) == 8


@pytest.mark.slow
def test_who_does_not_wait_for_another_evaluator_is_refused(base_model, tmp_path):
    with only_one(tmp_path / "lock"):
        done = evaluate(base_model, tmp_path, "--datasets", "mbpp_reg", "--limit", 1, "--lock_wait", 0)
    assert done.returncode == 2 and "another evaluation is at work there (process " in done.stderr


@pytest.mark.slow
def test_a_long_prompt_does_not_shorten_its_neighbours_answers(base_model, tmp_path):
    tokenizer = load_chat_tokenizer(base_model)
    lengths = [len(chat_ids(tokenizer, p.user)) for p in load_problems(MANIFESTS, "mbpp_reg", limit=4)]
    limit = max(lengths) + 4  # the longest prompt leaves 4 tokens, the shorter ones more
    done = evaluate(base_model, tmp_path, "--datasets", "mbpp_reg", "--limit", 4, "--max_model_len", limit)
    assert done.returncode == 0, done.said
    for r in rows(tmp_path, "completions"):
        assert r["finish_reason"] == "stop" or r["gen_tokens"] == min(16, limit - r["prompt_tokens"])


@pytest.mark.slow
def test_a_prompt_over_the_limit_is_counted_apart_and_does_not_hang_the_run(base_model, tmp_path):
    done = evaluate(base_model, tmp_path, "--datasets", "mbpp_reg", "--limit", 2, "--max_model_len", 20)
    assert done.returncode == 0, done.said
    results = rows(tmp_path, "results")
    assert {(r["error_type"], r["finish_reason"]) for r in results} == {("api_error", "too_long")}
    assert "the limit is 20" in results[0]["detail"]
    assert read_json(tmp_path / "summary.json")["datasets"]["mbpp_reg"]["api_error_rate"] == 1.0


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_does_no_finished_problem_twice(base_model, tmp_path):
    sets = ["--datasets", "codecontests_valid", "mbpp_reg", "--limit", 20]
    words = eval_command("--model_path", base_model, "--output_dir", tmp_path, *SMALL, *sets)
    for wanted in (1, 22):  # records on disk at which the whole process is killed
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(rows(tmp_path, "results")) < wanted:
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert read_json(tmp_path / "run.json")["status"] == "running"
    finished = rows(tmp_path, "results")
    assert len(finished) < 40, "it was done before the last kill, so this test shows nothing"
    done = evaluate(base_model, tmp_path, *sets)
    assert done.returncode == 0, done.said
    for kind in ("completions", "results"):
        counts = Counter((r["dataset"], r["problem_id"]) for r in rows(tmp_path, kind))
        assert len(counts) == 40 and set(counts.values()) == {1}, kind
    before = {r["problem_id"] for r in finished}
    assert [r for r in rows(tmp_path, "results") if r["problem_id"] in before] == finished
    assert len(read_json(tmp_path / "run.json")["sessions"]) == 3


# phase1_eval.py, which says when its first batch begins: a line of progress comes every 15 s only.
SAYS_WHEN_A_BATCH_BEGINS = """
import phase1_eval
from phase1.files import run_script
from phase1.generate import transformers_backend as backend

def begins(*args, answer=backend._answer_ids):
    print("a batch begins", flush=True)
    return answer(*args)

backend._answer_ids = begins
run_script(phase1_eval.main)
"""


@pytest.mark.slow
def test_sigterm_in_a_long_batch_ends_it_at_its_next_token(base_model, tmp_path):
    out = tmp_path / "out"
    args = ["--datasets", "mbpp_reg", *SMALL, "--batch_size", 24, "--max_new_tokens", 6000, "--max_model_len", 8192]
    python, _, *words = eval_command("--model_path", base_model, "--output_dir", out, *args)
    process = subprocess.Popen(
        [python, "-c", SAYS_WHEN_A_BATCH_BEGINS, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert "a batch begins\n" in process.stdout, process.wait()
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]  # the whole batch would take many minutes
    assert "stopped by SIGTERM" in output and read_json(out / "run.json")["status"] == "interrupted"
    assert not rows(out, "completions")


@pytest.mark.slow
def test_the_models_own_generation_config_changes_nothing(base_model, tmp_path):
    """A penalty of 5 shows even in an untrained model's answers; the one of 1.1 that Qwen ships might not."""
    own = {"repetition_penalty": 5.0, "temperature": 0.7, "top_k": 20, "do_sample": True}
    answers = {}
    for name, config, more in (("own", own, []), ("plain", {}, []), ("penalised", {}, ["--repetition_penalty", 5])):
        model = tmp_path / name / "model"
        shutil.copytree(base_model, model)
        (model / "generation_config.json").write_text(json.dumps(config))
        done = evaluate(model, tmp_path / name, "--datasets", "mbpp_reg", "--limit", 4, *more)
        assert done.returncode == 0, done.said
        answers[name] = [r["completion"] for r in rows(tmp_path / name, "completions")]
    assert answers["own"] == answers["plain"] != answers["penalised"]


# ------------------------------------------------------------------------------------------- which model, which sets
@pytest.fixture
def run_dir(base_model, tmp_path) -> Path:
    """A training run's folder with one checkpoint and the best_checkpoint.json that names it."""
    model = tmp_path / "ckpt" / "global_step_7" / "huggingface"
    shutil.copytree(base_model, model)
    (tmp_path / "best_checkpoint.json").write_text(json.dumps({"best_step": 7, "model_path": str(model)}))
    return tmp_path


def evaluate_step(run_dir: Path, step: object, *args: object) -> Done:
    best = run_dir / "best_checkpoint.json"
    named = ["--checkpoint_dir", run_dir / "ckpt", "--step", step, "--best_checkpoint", best]
    return run_eval(*named, "--output_dir", run_dir / "eval_final", "--limit", 1, *SMALL, *args)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["7", "best"])
def test_the_best_step_may_see_the_test_sets_and_each_look_is_written_down(run_dir, step):
    done = evaluate_step(run_dir, step, "--datasets", "humaneval")
    assert done.returncode == 0, done.said
    [(_, use)] = read_jsonl(run_dir / "test_set_uses.jsonl")
    assert (use["dataset"], use["step"], use["limit"]) == ("humaneval", 7, 1)


@pytest.mark.slow
def test_another_step_may_see_a_test_set_only_with_final_and_the_look_is_written_down(run_dir):
    (run_dir / "ckpt" / "global_step_7").rename(run_dir / "ckpt" / "global_step_8")
    done = evaluate_step(run_dir, 8, "--datasets", "humaneval")
    assert done.returncode == 2 and "chose step 7, not 8" in done.stderr
    assert not (run_dir / "test_set_uses.jsonl").exists()
    done = evaluate_step(run_dir, 8, "--datasets", "humaneval", "--final")
    assert done.returncode == 0, done.said
    assert [(use["dataset"], use["step"]) for _, use in read_jsonl(run_dir / "test_set_uses.jsonl")] == [
        ("humaneval", 8)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a=b", "d(1), e", "模型"])
def test_another_chat_template_than_the_base_models_is_refused_whatever_the_path(base_model, run_dir, name):
    base = run_dir / name
    shutil.copytree(base_model, base)
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    write_train_run(run_dir / "ckpt", base)
    done = evaluate_step(run_dir, 7, "--datasets", "mbpp_reg")
    assert done.returncode == 2 and f"renders other text than that of {base}" in done.stderr, done.said


# ----------------------------------------------------------------------------------------------------------- the rest
@pytest.mark.slow
@pytest.mark.parametrize("limit", ["0", "-1", "x"])
def test_a_limit_below_one_is_refused(base_model, tmp_path, limit):
    done = evaluate(base_model, tmp_path, "--limit", limit)
    assert done.returncode == 2 and "--limit" in done.stderr


class FakeWandb(SimpleNamespace):
    """What the library offers of itself, and what was asked of it."""

    def __init__(self, logged_in: bool):
        super().__init__(logged_in=logged_in, started=[])
        self.run = SimpleNamespace(log=lambda values, step: None, finish=lambda: None)

    def login(self, prompt: bool) -> bool:
        assert not prompt
        return self.logged_in

    def init(self, **how: object) -> SimpleNamespace:
        self.started.append((how["project"], how["name"], how["mode"]))
        return self.run

    Settings = Table = SimpleNamespace


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "logged_in", "started"),
    [
        ([], False, [("p", "copy", "offline")]),
        (["--wandb_run_name", "n", "--wandb_mode", "online"], True, [("p", "n", "online")]),
        (["--wandb_mode", "online"], False, [("p", "copy", "offline")]),
        (["--wandb_mode", "disabled"], True, []),
    ],
    ids=["default", "online", "no_login", "disabled"],
)
def test_wandb_is_started_as_the_flags_say(evaluated, tmp_path, monkeypatch, flags, logged_in, started):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    fake = FakeWandb(logged_in)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    shutil.copytree(evaluated, tmp_path / "copy")
    done = run_eval("--recompute", "--output_dir", tmp_path / "copy", "--wandb_project", "p", *flags)
    assert done.returncode == 0, done.said
    assert fake.started == started


@pytest.mark.slow
def test_without_a_project_wandb_is_not_touched(evaluated, tmp_path, monkeypatch):
    fake = FakeWandb(True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    shutil.copytree(evaluated, tmp_path / "copy")
    assert run_eval("--recompute", "--output_dir", tmp_path / "copy").returncode == 0
    assert not fake.started


def test_the_sample_sets_are_there():
    assert all(len(load_problems(MANIFESTS, d)) >= 20 for d in ALL_SETS)
