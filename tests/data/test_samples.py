"""The embedded data: solvable, reproducible, dirty as the real data is, and nothing of the evaluation in what is
trained on."""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import pytest

from phase1.contract.problems import EVAL_SETS, load_problems, raw_path
from phase1.files import sha256_text
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all
from tests.conftest import ROOT, SAMPLES


def problems():
    return [p for name in EVAL_SETS for p in load_problems(SAMPLES / "manifests", name)]


def test_the_generator_gives_the_committed_bytes(tmp_path):
    subprocess.run(
        [sys.executable, SAMPLES / "build_samples.py", "--output_dir", tmp_path], check=True, capture_output=True
    )
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.jsonl")}
    assert made == {p.relative_to(SAMPLES): p.read_bytes() for p in SAMPLES.rglob("*.jsonl")}


@pytest.mark.slow
def test_the_base_model_gives_equal_bytes_for_equal_seeds(base_model, tmp_path):
    subprocess.run(
        [sys.executable, SAMPLES / "build_model.py", "--output_dir", tmp_path / "again"],
        check=True,
        capture_output=True,
    )
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in d.iterdir()}
        for d in (base_model, tmp_path / "again")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_every_canonical_solution_passes_and_an_empty_answer_does_not():
    items = [(p.problem_id, p.program(p.canonical_solution), p.test_cases) for p in problems()]
    items += [
        (
            f"{p.problem_id} wrong",
            p.program("print(None)" if p.test_type == "codecontests" else "def f(): return None"),
            p.test_cases,
        )
        for p in problems()[::9]
    ]
    verdicts = dict(judge_all(items, JudgeConfig()))
    assert [k for k, v in verdicts.items() if v.accepted == k.endswith(" wrong")] == []
    assert len(verdicts) == len(items)


def test_each_set_has_twenty_problems_and_their_prompts_are_hashed():
    for name, evaluation_set in EVAL_SETS.items():
        rows = [json.loads(line) for line in raw_path(SAMPLES / "manifests", name).read_text().splitlines()]
        assert len(rows) >= 20, evaluation_set
        assert all(row["prompt_sha256"] == sha256_text(row["prompt"]) and row["canonical_solution"] for row in rows)
        assert len({row["prompt_sha256"] for row in rows}) == len(rows)
    assert {p.test_type for p in problems()} == {"codecontests", "humaneval", "mbpp"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, base_model):
    """The demo's own training data."""
    out = tmp_path_factory.mktemp("prepared")
    subprocess.run(
        [
            sys.executable,
            ROOT / "prepare_sft_data.py",
            "--input_jsonl",
            SAMPLES / "bee.jsonl",
            "--output_dir",
            out,
            "--manifest_dir",
            SAMPLES / "manifests",
            "--model",
            base_model,
            "--max_length",
            "256",
            "--keep",
            "shortest",
            "--no_verl_check",
        ],
        check=True,
        capture_output=True,
    )
    return out


@pytest.mark.slow
def test_every_kind_of_dirt_is_there_and_falls_to_its_filter(prepared):
    report = json.loads((prepared / "sft_report.json").read_text())
    assert set(report["dropped"]) == {
        "parse_errors",
        "not_python3",
        "empty_solution",
        "syntax_error",
        "python2",
        "contaminated",
        "exact_duplicate",
        "near_duplicate",
        "too_long",
        "surplus_solution",
    }
    assert report["final_total"] >= 400
    rejects = [json.loads(line) for line in (prepared / "sft_rejects.jsonl").read_text().splitlines()]
    planted = [json.loads(line) for line in (SAMPLES / "bee.jsonl").read_text().splitlines() if "In Disguise" in line]
    caught = [r for r in rejects if r["reason"] == "contaminated"]
    assert {r["name"] for r in planted} <= {r["name"] for r in caught}
    assert {r["detail"]["rule"] for r in caught} == {"id", "statement", "ngrams"}
    assert len(caught) - len(planted) <= 0.01 * report["input_total"], "clean records fall to the decontamination"


@pytest.mark.slow
def test_no_training_row_is_or_computes_an_evaluation_problem(prepared):
    """Not even in other words: no trained program is the canonical solution of an evaluation problem."""
    pandas = pytest.importorskip("pandas")
    rows = [m for f in ("sft_train.parquet", "sft_val.parquet") for m in pandas.read_parquet(prepared / f).messages]
    trained = Counter(row[2]["content"].removeprefix("<code>\n").removesuffix("\n</code>") for row in rows)
    asked = {row[1]["content"] for row in rows}
    for problem in problems():
        assert problem.canonical_solution not in trained
        assert not any(problem.prompt.strip() in user for user in asked)
