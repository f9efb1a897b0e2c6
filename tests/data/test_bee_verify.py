"""--verify_solutions: examples read from statements, solutions really run, verdicts kept across runs; --preview."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phase1.data.examples import examples
from phase1.data.verify import VerdictCache
from phase1.files import BadInput
from phase1.judge.config import JudgeConfig
from phase1.judge.verdict import Verdict
from tests.conftest import ROOT
from tests.public_problems import codecontests

CODEFORCES = (
    "Add.\n\nInput\n\nTwo numbers.\n\nOutput\n\nTheir sum.\n\nExamples\n\nInput\n\n1 2\n\n\nOutput\n\n3\n\nInput\n"
    "\n5 6\n\n\nOutput\n\n11\n\nNote\n\nIt is 3."
)
BOTH = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 6\n", "output": "11\n"}]


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


# ------------------------------------------------------------------------------------------------- reading examples
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (CODEFORCES, BOTH),
        (
            "Add.\n\nInput\n\nTwo.\n\nOutput\n\nSum.\n\nExample\n\nInput\n\n1 2\n\n\nOutput\n\n3",
            BOTH[:1],
        ),  # AtCoder, Aizu
        ("Add.\n\nInput\nTwo.\n\nExample\n\nInput:\n1 2\n\nOutput:\n3\n\nExplanation: it is.", BOTH[:1]),  # CodeChef
        (
            "Add.\n\nInput:\nTwo.\n\nOutput:\nSum\n\nSAMPLE INPUT\n1 2\n\nSAMPLE OUTPUT\n3\n\nExplanation\n\nIt is.",
            BOTH[:1],
        ),  # HackerEarth
        (
            "Add.\n\nSample Input 1\n\n1 2\n\nSample Output 1\n\n3\n\nSample Input 2\n\n5 6\n\nSample Output 2\n\n11",
            BOTH,
        ),
        ("Add.\n\nExample 1\n\nInput\n\n1 2\n\nOutput\n\n3\n\nExample 2\n\nInput\n\n5 6\n\nOutput\n\n11", BOTH),
        ("Say.\n\nExample\n\nInput\n\n\nOutput\n\nhi", [{"input": "\n", "output": "hi\n"}]),
        ("Say.\n\nExample\n\nInput\n\n2\n\nOutput\n\na\n\nb\n\nNote\n\nNo.", [{"input": "2\n", "output": "a\n\nb\n"}]),
    ],
)
def test_examples_are_read_in_every_judges_form(statement, expected):
    assert examples(statement) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "No examples.\n\nInput\n\nTwo numbers.\n\nOutput\n\nTheir sum.",
        "Torn.\n\nExample\n\nInput\n\n1 2",
        "A picture.\n\nExample\n\nInput\n\n<image>\n\nOutput\n\n3",
        "This is an interactive problem.\n\nExample\n\nInput\n\n1\n\nOutput\n\n? 2",
        "Prose behind.\n\nExample\n\nInput\n\n1 2\n\nOutput\n\n3\n\nHere the sum of both numbers is three.",
        "Empty.\n\nExample\n\nInput\n\n1 2\n\nOutput\n\n\nNote\n\nNothing is printed.",
    ],
)
def test_what_cannot_be_read_for_sure_gives_no_test(statement):
    assert examples(statement) == []


def test_the_published_samples_examples_are_among_their_tests(shared_data):
    def squeezed(text: str) -> str:
        return " ".join(text.split())

    for problem in codecontests(shared_data):
        found = examples(problem.prompt)
        tests = {squeezed(t["input"]): squeezed(t["output"]) for t in problem.test_cases["tests"]}
        known = [tests.get(squeezed(e["input"])) == squeezed(e["output"]) for e in found]
        # 1025/B accepts any divisor: its recorded outputs differ from the statement's
        assert found and (all(known) or problem.problem_id == "Codeforces/1025/B")


# ------------------------------------------------------------------------------------------------- the whole script
def prepare(tmp_path: Path, records: list[dict], *flags, expect: int = 0) -> dict:
    source = tmp_path / "bee.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in records))
    done = subprocess.run(command(tmp_path, *flags), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == expect, done.stderr
    if expect:
        return {"stderr": done.stderr}
    out = tmp_path / "out"
    return {
        "report": json.loads((out / "sft_report.json").read_text()),
        "stdout": done.stdout,
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


def test_a_failed_solution_takes_no_place_of_the_shortest(tmp_path):
    records = [add(1, WRONG), add(1, RIGHT), add(2, RIGHT)]
    assert prepare(tmp_path, records, "--verify_solutions", "--keep", "shortest")["reasons"] == {
        1: "verify_wrong_answer"
    }


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


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    records = [add(i, f"import time\ntime.sleep(0.4)\n{RIGHT}\nx = {i}") for i in range(12)]
    (tmp_path / "bee.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    cache = tmp_path / "out" / "sft_verify_cache.jsonl"
    process = subprocess.Popen(
        command(tmp_path, "--verify_solutions"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (cache.exists() and cache.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    judged = cache.read_bytes().count(b"\n")
    assert 3 <= judged < 12 and not (tmp_path / "out" / "sft_train.parquet").exists()
    counts = prepare(tmp_path, records, "--verify_solutions")["report"]["verify"]["counts"]
    assert counts == {"examples_kept": 12, "from_cache": judged}


def test_verdicts_that_are_the_judges_own_failure_are_not_kept(tmp_path):
    cache = VerdictCache(tmp_path / "cache.jsonl", JudgeConfig())
    cache.add("a", Verdict("sandbox_error", detail="it broke"))
    cache.add("b", Verdict("success", tests_total=1, tests_passed=1))
    cache.close()
    assert set(VerdictCache(tmp_path / "cache.jsonl", JudgeConfig()).verdicts) == {"b"}


def test_a_damaged_cache_is_named_with_its_line(tmp_path):
    (tmp_path / "cache.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(BadInput, match=r"cache\.jsonl:1: not a cached verdict"):
        VerdictCache(tmp_path / "cache.jsonl", JudgeConfig())


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
    stderr = prepare(tmp_path, [add(1, RIGHT), add(2, RIGHT)], *flags, expect=2)["stderr"]
    assert stderr.splitlines()[-1].startswith("error: ") and message in stderr.splitlines()[-1]
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
