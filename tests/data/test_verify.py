"""--verify_solutions: solutions are really run, verdicts kept across runs; --preview."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prepare_sft_data
from phase1.data.verdict_cache import VerdictCache
from phase1.files import BadInput
from phase1.judge.behaviour import behaviour
from phase1.judge.config import JudgeConfig
from phase1.judge.verdict import Verdict
from tests.conftest import ROOT
from tests.data.test_examples import CODEFORCES


def add(i: int, solution: str, statement: str = CODEFORCES, **more) -> dict:
    """A record of a problem of its own: the statement is told in other words each time."""
    told = " ".join(f"{w}{i}" for w in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"))
    return {
        "name": f"{3000 + i}_A. Sum",
        "source": 2,
        "language": "PYTHON3",
        "prompt": f"{told}. {statement}",
        "solution": solution,
    } | more


RIGHT = "print(sum(map(int, input().split())))"


WRONG = "print(0)"


def prepare(tmp_path: Path, records: list[dict], *flags) -> dict:
    """Run the script on records, from their directory; its report, what it printed, and reasons by line."""
    source = tmp_path / "bee.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in records))
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as stdout:
        patched.setattr(sys, "argv", command(tmp_path, *flags)[1:])
        patched.chdir(tmp_path)
        assert prepare_sft_data.main() == 0
    out = tmp_path / "out"
    return {
        "report": json.loads((out / "sft_report.json").read_text()),
        "stdout": stdout.getvalue(),
        "reasons": {
            r["line"]: r["reason"] for r in map(json.loads, (out / "sft_rejects.jsonl").read_text().splitlines())
        },
    }


def command(tmp_path: Path, *flags) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "prepare_sft_data.py"),
        "--input_jsonl",
        str(tmp_path / "bee.jsonl"),
        "--output_dir",
        str(tmp_path / "out"),
        "--manifest_dir",
        str(tmp_path / "none"),
        "--allow_missing_manifests",
        "--no_verl_check",
        "--workers",
        "2",
        *map(str, flags),
    ]


@pytest.mark.slow
def test_solutions_are_run_on_examples_and_failures_are_dropped(tmp_path):
    any_answer = CODEFORCES.replace("Their sum.", "Any number. If there are several answers, print any of them.")
    records = [
        add(1, RIGHT),
        add(2, WRONG),
        add(3, "print(1 // 0)"),
        add(4, "while True: pass"),
        add(5, WRONG, "No examples here."),
        add(6, WRONG, any_answer),
        add(7, "int('x')", any_answer),
        add(8, RIGHT),
    ]
    made = prepare(tmp_path, records, "--verify_solutions", "--run_timeout", "1")
    assert made["reasons"] == {
        2: "verify_wrong_answer",
        3: "verify_runtime_error",
        4: "verify_timeout",
        7: "verify_runtime_error",
    }
    assert made["report"]["verify"]["counts"] == {
        "examples_any_answer": 1,
        "examples_kept": 2,
        "examples_runtime_error": 2,
        "examples_timeout": 1,
        "examples_wrong_answer": 1,
        "without_tests_or_examples": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "kept", "rules"),
    [
        (
            (),
            {1, 2, 3, 4},
            {"case any": {"examples_kept": 1}, "tolerance 1e-06": {"examples_kept": 1}},
        ),
        (("--compare", "tokens"), {3, 4}, {}),
    ],
)
def test_the_published_cases_are_kept_by_the_rule_of_their_statement(tmp_path, shared_cases, flags, kept, rules):
    lines = (shared_cases / "data" / "bee_any_case.jsonl").read_text().splitlines()
    made = prepare(tmp_path, [json.loads(line) for line in lines], "--verify_solutions", *flags)
    assert {1, 2, 3, 4} - made["reasons"].keys() == kept
    assert made["report"]["verify"]["rules"] == rules
    assert set(made["reasons"].values()) <= {"verify_wrong_answer"}


@pytest.mark.slow
def test_a_solution_that_fails_by_its_statements_rule_is_dropped_with_that_rule(tmp_path):
    told = CODEFORCES.replace("Their sum.", "Their sum with an absolute error of at most 1e-3.")
    prepare(tmp_path, [add(1, WRONG, told), add(2, RIGHT), add(3, RIGHT)], "--verify_solutions")
    [reject] = map(json.loads, (tmp_path / "out" / "sft_rejects.jsonl").read_text().splitlines())
    assert reject["detail"].startswith("0 of 2 examples passed by the statement's rule (tolerance 0.001)")


@pytest.mark.slow
def test_known_tests_go_before_examples_and_codecontests_own_files_are_read(tmp_path):
    only_examples = "a, b = map(int, input().split())\nprint(3 if a == 1 else 11)"  # right on the examples alone
    tests = {
        "type": "codecontests",
        "tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "10 20\n", "output": "30\n"}],
    }
    raw, published = tmp_path / "raw.jsonl", tmp_path / "train-00000-of-00001.parquet"
    raw.write_text(json.dumps({"problem_id": "Codeforces/3001/A", "prompt": "By its id.", "test_cases": tests}) + "\n")
    group, empty = {"input": ["10 20\n"], "output": ["30\n"]}, {"input": [], "output": []}
    row = {
        "name": "3002_A. Sum",
        "description": "x",
        "source": 2,
        "cf_contest_id": 3002,
        "cf_index": "A",
        "public_tests": empty,
        "private_tests": group,
        "generated_tests": empty,
    }
    pq.write_table(pa.Table.from_pylist([row]), published)
    records = [add(1, only_examples), add(1, RIGHT), add(2, only_examples), add(3, only_examples), add(4, RIGHT)]
    flags = ("--verify_solutions", "--tests_raw", raw, published)
    made = prepare(tmp_path, records, *flags)
    assert made["reasons"] == {1: "verify_wrong_answer", 3: "verify_wrong_answer"}
    assert prepare(tmp_path, records, *flags, "--verify_tests", "1")["reasons"] == {3: "verify_wrong_answer"}


@pytest.mark.slow
def test_a_failed_solution_takes_no_place_of_the_shortest(tmp_path):
    records = [add(1, WRONG), add(1, RIGHT), add(2, RIGHT)]
    assert prepare(tmp_path, records, "--verify_solutions", "--keep", "shortest")["reasons"] == {
        1: "verify_wrong_answer"
    }


@pytest.mark.slow
def test_a_second_run_judges_only_what_is_new(tmp_path):
    records = [add(1, RIGHT), add(2, WRONG), add(3, f"{RIGHT}  # again")]
    prepare(tmp_path, records, "--verify_solutions")
    cache = tmp_path / "out" / "sft_verify_cache.jsonl"
    before = cache.read_bytes()
    assert len(before.splitlines()) == 3
    cache.write_bytes(before + b'{"key": "torn')  # as a kill leaves it
    again = prepare(tmp_path, [*records, add(4, "print(7)")], "--verify_solutions")
    assert again["report"]["verify"]["counts"]["from_cache"] == 3 and again["reasons"] == {
        2: "verify_wrong_answer",
        4: "verify_wrong_answer",
    }
    assert cache.read_bytes().startswith(before) and len(cache.read_bytes().splitlines()) == 4
    other = prepare(tmp_path, records, "--verify_solutions", "--run_timeout", "7")  # other limits, other verdicts
    assert "from_cache" not in other["report"]["verify"]["counts"]


THREE_VERDICTS = """
import sys, time
sys.path.insert(0, {root!r})
import prepare_sft_data
from phase1.data import verify
from phase1.files import run_script
judge_all = verify.judge_all
def three_of_them(items, config):
    for number, verdict in enumerate(judge_all(items, config), 1):
        yield verdict
        if number == 3:
            print("waiting", flush=True)
            time.sleep(1000)
verify.judge_all = three_of_them
sys.argv[0] = "prepare_sft_data.py"
run_script(prepare_sft_data.run)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    records = [add(i, f"{RIGHT}\nx = {i}") for i in range(6)]
    (tmp_path / "bee.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    script = tmp_path / "three.py"
    script.write_text(THREE_VERDICTS.format(root=str(ROOT)))
    python, _, *flags = command(tmp_path, "--verify_solutions")
    with subprocess.Popen([python, script, *flags], stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout.readline() == "waiting\n"
        os.killpg(run.pid, signal.SIGKILL)
    assert (tmp_path / "out" / "sft_verify_cache.jsonl").read_bytes().count(b"\n") == 3
    assert not (tmp_path / "out" / "sft_train.parquet").exists()
    counts = prepare(tmp_path, records, "--verify_solutions")["report"]["verify"]["counts"]
    assert counts == {"examples_kept": 6, "from_cache": 3}


def test_verdicts_that_are_the_judges_own_failure_are_not_kept(tmp_path):
    cache = VerdictCache(tmp_path / "cache.jsonl", JudgeConfig())
    cache.add("a", Verdict("sandbox_error", detail="it broke"))
    cache.add("b", Verdict("success", tests_total=1, tests_passed=1))
    cache.close()
    assert set(VerdictCache(tmp_path / "cache.jsonl", JudgeConfig()).verdicts) == {"b"}


@pytest.mark.parametrize("changed", ["judge_code", "comparison", "programs"])
def test_verdicts_by_other_rules_are_not_taken(tmp_path, monkeypatch, changed):
    key = VerdictCache(tmp_path / "cache.jsonl", JudgeConfig()).key("print(1)", "tests")
    rules = behaviour(JudgeConfig()).model_copy(update={changed: "other"})
    monkeypatch.setattr("phase1.data.verdict_cache.behaviour", lambda config: rules)
    assert VerdictCache(tmp_path / "cache.jsonl", JudgeConfig()).key("print(1)", "tests") != key


def test_a_damaged_cache_is_named_with_its_line(tmp_path):
    (tmp_path / "cache.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(BadInput, match=r"cache\.jsonl:1: not a cached verdict"):
        VerdictCache(tmp_path / "cache.jsonl", JudgeConfig())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tests_raw", "x.jsonl"), "--tests_raw is read by --verify_solutions"),
        (("--verify_solutions", "--tests_raw", "missing.jsonl"), "missing.jsonl: no such file"),
        (("--verify_solutions", "--tests_raw", "torn.jsonl"), "torn.jsonl:1: "),
        (
            ("--verify_solutions", "--tests_raw", "other.jsonl"),
            "other.jsonl:1: neither a raw file's problem nor CodeContests' schema",
        ),
        (("--preview", "2"), "--preview shows tokens and needs --model"),
    ],
)
def test_bad_flags_and_test_files_are_one_line(tmp_path, flags, message):
    (tmp_path / "torn.jsonl").write_text("{torn\n")
    (tmp_path / "other.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(BadInput) as refused:
        prepare(tmp_path, [add(1, RIGHT), add(2, RIGHT)], *flags)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not list(tmp_path.glob("out/*.parquet"))


@pytest.mark.slow  # imports verl
@pytest.mark.parametrize("colour", [False, True])
def test_preview_prints_rows_with_their_trained_tokens_marked(tmp_path, base_model, monkeypatch, colour):
    pytest.importorskip("verl")
    monkeypatch.setenv("FORCE_COLOR", "1") if colour else monkeypatch.delenv("FORCE_COLOR", raising=False)
    made = prepare(
        tmp_path, [add(1, RIGHT), add(2, WRONG)], "--model", base_model, "--max_length", "500", "--preview", "1"
    )
    marks = ("\x1b[1;32m", "\x1b[0m") if colour else ("⟦", "⟧")
    text = made["stdout"].partition("sft_train.parquet row 0")[2]
    before, _, rest = text.partition(marks[0])
    assert rest.startswith("<code>") and "<|im_end|>" in rest and "<|im_start|>assistant\n" in before
    assert "trained," in text.splitlines()[0] and "of padding to 500" in text.splitlines()[0]
