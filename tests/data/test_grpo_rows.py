"""--grpo_raw: Phase 3's rows as verl's own data set reads them, scored by the reward, evaluation problems kept out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import prepare_sft_data
from phase1.contract.problems import load_problems
from phase1.contract.prompts import answer
from phase1.files import BadInput
from phase1.handoff.grpo import grpo_yaml
from phase1.model.tokenizer import chat_text, load_tokenizer
from phase1.reward import compute_score
from tests.conftest import ROOT, SAMPLES

TEST_GROUPS = ("public_tests", "private_tests", "generated_tests")
LATEST = Path(os.environ.get("VENV_LATEST", ROOT / ".venv-latest")) / "bin/python"
MANIFESTS = SAMPLES / "manifests"


def stdin_problem(i: int, **more) -> dict:
    numbers = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    words = " ".join(f"{word}{i}" for word in numbers)
    cases = {"type": "codecontests", "tests": [{"input": f"{n}\n", "output": f"{n + i}\n"} for n in range(3)]}
    solution = f"print(int(input()) + {i})"
    return {"problem_id": f"Own/{i}", "prompt": words, "test_cases": cases, "canonical_solution": solution} | more


HUMANEVAL = {
    "problem_id": "Own/h",
    "prompt": 'import math\n\ndef root(x):\n    """The root of the number that was handed over to this function."""\n',
    "test_cases": {"type": "humaneval", "test_code": "def check(f):\n    assert f(9) == 3", "entry_point": "root"},
    "canonical_solution": "    return math.isqrt(x)\n",
}
MBPP = {
    "problem_id": "Own/m",
    "prompt": "Write a function that turns a list of the given words around.",
    "test_cases": {"type": "mbpp", "test_list": ["assert f([1, 2]) == [2, 1]"], "entry_point": "f"},
    "canonical_solution": "def f(x):\n    return x[::-1]",
}


def prepared(tmp_path: Path, problems: list[dict], *flags: str, monkeypatch) -> tuple[dict, list[dict]]:
    """The report and the rows, training rows first."""
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(p) + "\n" for p in problems))
    argv = ["p", "--grpo_raw", tmp_path / "raw.jsonl", "--output_dir", tmp_path / "out", "--manifest_dir", MANIFESTS]
    monkeypatch.setattr(sys, "argv", [*map(str, argv), *flags])
    assert prepare_sft_data.main() == 0
    rows = [pq.read_table(tmp_path / "out" / f"grpo_{side}.parquet").to_pylist() for side in ("train", "val")]
    return json.loads((tmp_path / "out/grpo_report.json").read_text()), rows[0] + rows[1]


def test_what_would_teach_something_false_is_left_out_and_counted(tmp_path, monkeypatch):
    evaluated = load_problems(MANIFESTS, "codecontests_valid")[3]
    by_id = load_problems(MANIFESTS, "codecontests_test")[0]
    problems = [
        stdin_problem(1),
        stdin_problem(2, prompt=f"A story around it.\n\n{evaluated.prompt}\n\nThe story ends."),
        stdin_problem(3, problem_id=by_id.problem_id),
        stdin_problem(1, problem_id="Own/again"),
        stdin_problem(4, prompt="Find two numbers. If there are multiple answers, print any of them."),
        stdin_problem(5, prompt=" "),
        stdin_problem(6, prompt="half a pair \ud800 of surrogates"),
        stdin_problem(7),
    ]
    published = {"name": "8", "source": 3, "description": "none", **dict.fromkeys(TEST_GROUPS, {})}
    report, rows = prepared(tmp_path, [*problems, published], monkeypatch=monkeypatch)
    assert {row["extra_info"]["problem_id"] for row in rows} == {"Own/1", "Own/7"}
    assert report["dropped"] == {
        "any_answer": 1,
        "contaminated": 2,
        "exact_duplicate": 1,
        "no_statement": 1,
        "no_tests": 1,
        "no_text": 1,
    }
    assert {each["evaluation_id"] for each in report["contamination"]} == {evaluated.problem_id, by_id.problem_id}
    assert report["train_samples"] == report["val_samples"] == 1


@pytest.mark.slow
def test_sft_files_are_left_alone_and_the_draw_depends_on_the_seed_alone(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sft_train.parquet").write_text("Phase 1's")
    problems = [stdin_problem(i) for i in range(20)]
    drawn = [
        prepared(tmp_path, problems, "--val_ratio", "0.2", "--seed", seed, monkeypatch=monkeypatch)
        for seed in ("1", "1", "2")
    ]
    assert [report["val_samples"] for report, _ in drawn] == [4, 4, 4]
    assert drawn[0][0]["outputs_sha256"] == drawn[1][0]["outputs_sha256"] != drawn[2][0]["outputs_sha256"]
    assert all(len({row["extra_info"]["problem_id"] for row in rows}) == 20 for _, rows in drawn)
    assert (tmp_path / "out/sft_train.parquet").read_text() == "Phase 1's"


def test_the_first_tests_are_kept_where_that_is_asked_for(tmp_path, monkeypatch):
    _, rows = prepared(tmp_path, [stdin_problem(1), MBPP], "--verify_tests", "2", monkeypatch=monkeypatch)
    kept = [json.loads(row["reward_model"]["ground_truth"])["test_cases"] for row in rows]
    assert sorted(len(cases.get("tests", cases.get("test_list"))) for cases in kept) == [1, 2]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give either --input_jsonl"),
        (["--input_jsonl", "x", "--grpo_raw", "y"], "give either --input_jsonl"),
        (["--grpo_raw", "missing.jsonl"], "missing.jsonl: no such file"),
        (["--grpo_raw", str(MANIFESTS / "mbpp_reg_manifest.jsonl")], "neither a raw file's problem"),
        (["--grpo_raw", str(SAMPLES / "raw/mbpp_reg_raw.jsonl")], "0 problems are left for GRPO"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, flags, words):
    argv = ["p", "--output_dir", str(tmp_path / "out"), "--manifest_dir", str(MANIFESTS), *flags]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(BadInput, match=words) as refused:
        prepare_sft_data.main()
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("python", [Path(sys.executable), LATEST], ids=["verl 0.7.0", "verl 0.9.1"])
def test_verls_own_data_set_asks_as_evaluation_does_and_the_reward_reads_the_rest(
    tmp_path, monkeypatch, base_model, python
):
    if not python.exists():
        pytest.skip(f"{python} is not there: REQUIREMENTS=requirements-latest-cpu.txt VENV=… bash setup_cpu.sh")
    problems = [stdin_problem(1), stdin_problem(2), HUMANEVAL, MBPP]
    _, written = prepared(tmp_path, problems, monkeypatch=monkeypatch)
    (tmp_path / "grpo_model.yaml").write_text(grpo_yaml(base_model, ROOT))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    command = [python, ROOT / "tests/data/load_grpo_rows.py", tmp_path, tmp_path / "out/grpo_train.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["verl"] == ("0.9.1" if python == LATEST else "0.7.0") and len(found["rows"]) == 3
    tokenizer = load_tokenizer(base_model)
    solutions = {p["problem_id"]: p["canonical_solution"] for p in problems}
    for row, kept in zip(found["rows"], written, strict=False):
        assert row["text"] == chat_text(tokenizer, kept["prompt"][1]["content"])
        assert row["extra_info"] == kept["extra_info"] and row["index"] == kept["extra_info"]["index"]
        truth = row["reward_model"]["ground_truth"]
        for code, score in ((solutions[row["extra_info"]["problem_id"]], 1.0), ("raise ValueError", 0.0)):
            scores = compute_score(row["data_source"], answer(code), truth, row["extra_info"], workers=1)
            assert scores["score"] == score and scores["sandbox_error"] == 0.0, scores
