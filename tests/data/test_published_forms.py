"""phase1.data.published_forms: evalplus's and LiveCodeBench's files become problems that the judge runs as they do."""

import ast
import base64
import contextlib
import json
import pickle
import zlib
from pathlib import Path

import pytest

from phase1.contract.problems import check_raw_row
from phase1.data import published_forms
from phase1.data.decontaminate import EvalIndex, known_problem
from phase1.data.public_sets import Refused
from phase1.data.published_forms import own_record
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all
from tests.public_problems import rows

HUMANEVAL_PLUS = {
    "task_id": "HumanEval/2",
    "prompt": 'def truncate_number(number: float) -> float:\n    """The decimal part of a number."""\n',
    "entry_point": "truncate_number",
    "canonical_solution": "    return number % 1.0\n",
    "contract": "    assert number > 0\n",
    "base_input": [[3.5], [1.33]],
    "plus_input": [[1e300], [0.1]],
    "atol": 0,
}
ROOT_FINDER = {
    **HUMANEVAL_PLUS,
    "task_id": "HumanEval/32",
    "prompt": "def find_zero(xs: list):\n",
    "entry_point": "find_zero",
    "canonical_solution": "    return -xs[0] / xs[1]\n",
    "base_input": [[[1, 2]]],
    "plus_input": [[[-6, 11, -6, 1]]],
    "atol": 1e-4,
}
MUTATES = {
    **HUMANEVAL_PLUS,
    "prompt": "def largest(items: list) -> list:\n",
    "entry_point": "largest",
    "canonical_solution": "    items.sort()\n    return items[-2:]\n",
    "base_input": [[[3, 1, 2]]],
    "plus_input": [[[5]], [[]]],
}
MBPP_PLUS = {
    "task_id": 2,
    "code": "def shared(a, b):\n    return tuple(set(a) & set(b))\n",
    "prompt": "Write a function to find the shared elements of two lists.",
    "test_imports": [],
    "test_list": ["assert set(shared((3, 4), (5, 4))) == {4}"],
    "test": "inputs = [[(1, 2), (2, 3)], [(), ()]]\nresults = [(2,), ()]\n"
    "def assertion(out, exp, atol):\n    assert set(out) == set(exp)\n"
    "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(shared(*inp), exp, 0)\n",
}


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


TESTS = [{"input": "2\n", "output": "4\n", "testtype": "stdin"}, {"input": "3\n", "output": "6\n", "testtype": "stdin"}]
LIVE = {
    "question_title": "Doubled",
    "question_content": "Read n and print twice n.",
    "platform": "atcoder",
    "question_id": "abc301_a",
    "contest_id": "abc301",
    "contest_date": "2023-05-13T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps(TESTS[:1]),
    "private_test_cases": packed(json.dumps(TESTS[1:])),
    "metadata": "{}",
}


def verdicts(row: dict, *programs: str) -> list[str]:
    """How the judge decides these programs on the problem of a row."""
    problem = check_raw_row("here", own_record(row), "own")
    items = [(str(i), problem.program(program), problem.judged) for i, program in enumerate(programs)]
    found = {key: verdict.error_type for key, verdict in judge_all(items, JudgeConfig(workers=1))}
    return [found[str(i)] for i in range(len(programs))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (
            HUMANEVAL_PLUS,
            ["    return number - int(number)\n", HUMANEVAL_PLUS["canonical_solution"]],
            "    return 0.5\n",
        ),
        (
            ROOT_FINDER,
            ["    return -0.5 if len(xs) == 2 else 3.0\n", "    return [-0.5, 2][len(xs) > 2]\n"],
            "    return 7\n",
        ),
        (MUTATES, ["    return sorted(items)[-2:]\n", MUTATES["canonical_solution"]], "    return items[-2:]\n"),
        (MBPP_PLUS, [MBPP_PLUS["code"]], "def shared(a, b):\n    return (4,)\n"),
        (LIVE, ["print(2 * int(input()))"], "print(4)"),
    ],
    ids=["floats", "any root", "a reference that changes its input", "mbpp", "livecodebench"],
)
def test_right_programs_are_accepted_and_wrong_ones_are_not(row, right, wrong):
    assert verdicts(row, *right, wrong) == ["success"] * len(right) + ["wrong_answer"]


@pytest.mark.slow
def test_every_reference_program_of_humaneval_passes_as_humaneval_plus(shared_data):
    """HumanEvalPlus.jsonl made of the published problems and the arguments in their own doctests."""
    items = []
    for row in rows(shared_data / "HumanEval.jsonl.gz")[::3]:
        if given := _arguments(row):
            plus = {**row, "base_input": given[:1], "plus_input": given[1:], "atol": 0}
            problem = check_raw_row("here", own_record(plus), "own")
            items.append((row["task_id"], problem.program(row["canonical_solution"]), problem.judged))
    failed = {key for key, verdict in judge_all(items, JudgeConfig(workers=1)) if verdict.error_type != "success"}
    assert len(items) > 20 and failed == set()


def _arguments(row: dict) -> list[list[object]]:
    """The literal arguments of the calls in the statement's examples."""
    found = []
    for line in row["prompt"].splitlines():
        if line.strip().startswith(f">>> {row['entry_point']}("):
            with contextlib.suppress(ValueError, SyntaxError, AttributeError):
                call = ast.parse(line.strip()[4:]).body[0].value
                found.append([ast.literal_eval(argument) for argument in call.args])
    return found


def test_a_livecodebench_problem_is_met_in_training_by_judge_and_id():
    codeforces = {**LIVE, "platform": "codeforces", "question_id": "1873_A"}
    problem = check_raw_row("here", own_record(codeforces), "live")
    index = EvalIndex([known_problem(problem)])
    assert problem.problem_id == "Codeforces/1873_A"
    assert index.find("1873_A. Short Sort", 2, "something else").rule == "id"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"starter_code": "class Solution:\n"}, "a function to complete"),
        ({"private_test_cases": json.dumps([{**TESTS[0], "testtype": "functional"}])}, "a function to complete"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "no tests"),
    ],
    ids=["starter code", "functional tests", "no tests"],
)
def test_what_cannot_be_judged_is_refused_with_a_reason(changed, reason):
    with pytest.raises(Refused, match=reason):
        own_record(LIVE | changed)


def test_evalplus_inputs_of_mbpp_are_refused_and_the_form_that_has_them_is_named():
    with pytest.raises(Refused, match="evalplus/mbppplus"):
        own_record(HUMANEVAL_PLUS | {"task_id": "Mbpp/2"})


class Evil:
    """A pickle that runs a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["calls", "a list", "cut off", "no base64", "too large", "no zlib"])
def test_packed_tests_that_are_no_plain_text_are_refused_and_run_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(published_forms, "MOST_TESTS", 1 << 20)
    text = {
        "calls": packed(Evil(tmp_path / "owned")),
        "a list": packed(TESTS),
        "cut off": packed("x" * 100)[:20],
        "no base64": "€",
        "too large": packed("[" + " " * (2 << 20) + "]"),
        "no zlib": base64.b64encode(b"plain").decode(),
    }[kind]
    with pytest.raises(ValueError, match="tests are|it names|base64|ASCII|packed"):
        own_record(LIVE | {"private_test_cases": text})
    assert not (tmp_path / "owned").exists()
