"""phase1.contract.problems: the manifest says which problems count, and every damage is named by file and line."""

import json

import pytest

from phase1.contract.problems import EVAL_SETS, Problem, load_problems, wrong_in
from phase1.contract.prompts import USER_TEMPLATES
from phase1.files import BadInput

GOOD = {
    "problem_id": "Codeforces/1/A",
    "prompt": "Add.",
    "test_cases": {"type": "codecontests", "tests": [{"input": "1", "output": "1"}]},
}


def write(tmp_path, manifest, raw):
    for folder, lines in (("manifests/mbpp_reg_manifest.jsonl", manifest), ("raw/mbpp_reg_raw.jsonl", raw)):
        (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder).write_text(
            "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        )
    return tmp_path / "manifests"


def test_the_registry_holds_the_contracts_table():
    """Sets may be added to it."""
    registry = {s.name: (s.size, s.tier, s.test_only) for s in EVAL_SETS.values()}
    contract = {
        "codecontests_valid": (117, 1, False),
        "mbpp_reg": (200, 1, False),
        "codecontests_valid_big": (500, 2, False),
        "codecontests_test": (165, 3, True),
        "humaneval": (164, 3, True),
    }
    assert {name: registry[name] for name in contract} == contract


def test_every_test_type_that_can_be_judged_has_a_user_template_and_no_other_has():
    unknown = wrong_in({"type": "no such type"})
    assert set(unknown.partition(" can run only ")[2].split(", ")) == set(USER_TEMPLATES)
    assert all("cannot be judged" in wrong_in({"type": kind}) for kind in USER_TEMPLATES)


def test_raw_may_hold_more_and_the_manifest_gives_the_order(tmp_path):
    raw = [GOOD | {"problem_id": i} for i in "abcd"] + [{"problem_id": "broken, but the manifest does not name it"}]
    manifest_dir = write(tmp_path, [{"problem_id": "d"}, {"problem_id": "a"}], raw)
    assert [p.problem_id for p in load_problems(manifest_dir, "mbpp_reg")] == ["d", "a"]
    assert [p.problem_id for p in load_problems(manifest_dir, "mbpp_reg", limit=1)] == ["d"]


ONE = [{"problem_id": "Codeforces/1/A"}]


@pytest.mark.parametrize(
    ("manifest", "raw", "message"),
    [
        (ONE + [{"problem_id": "x/9"}], [GOOD], "mbpp_reg_raw.jsonl: lacks 1 of the manifest's problems, first 'x/9'"),
        ([{"id": "x"}], [GOOD], "mbpp_reg_manifest.jsonl:1: no problem_id"),
        (ONE * 2, [GOOD], "mbpp_reg_manifest.jsonl:2: problem_id 'Codeforces/1/A' stands already in line 1"),
        ([], [GOOD], "mbpp_reg_manifest.jsonl: holds no problem_id"),
        (ONE, ['{"problem_id": "x"'], "mbpp_reg_raw.jsonl:1: not a JSON object"),
        (ONE, [GOOD, GOOD], "mbpp_reg_raw.jsonl:2: problem_id 'Codeforces/1/A' stands twice"),
        (ONE, [GOOD | {"prompt": None}], "mbpp_reg_raw.jsonl:1: needs problem_id and prompt"),
        (ONE, [GOOD | {"test_cases": {"type": "java"}}], "mbpp_reg_raw.jsonl:1: test_cases.type is 'java'"),
        (
            ONE,
            [GOOD | {"test_cases": {"type": "codecontests", "tests": []}}],
            "lacks tests; a problem without tests cannot be judged",
        ),
        (ONE, [GOOD | {"test_cases": {"type": "humaneval", "test_code": "x"}}], "lacks entry_point"),
        (
            ONE,
            [GOOD | {"test_cases": {"type": "codecontests", "tests": "1 2"}}],
            "mbpp_reg_raw.jsonl:1: test_cases.tests is a str, expected a list",
        ),
        (
            ONE,
            [GOOD | {"test_cases": {"type": "codecontests", "tests": [{"input": "1"}]}}],
            "has a test that is not {input, output}, both strings",
        ),
        (
            ONE,
            [GOOD | {"test_cases": {"type": "codecontests", "tests": [{"input": "1", "output": 2}]}}],
            "has a test that is not {input, output}, both strings",
        ),
        (
            ONE,
            [GOOD | {"test_cases": {"type": "codecontests", "tests": ["1"]}}],
            "has a test that is not {input, output}, both strings",
        ),
        (
            ONE,
            [GOOD | {"test_cases": {"type": "mbpp", "test_list": ["assert f()", 1], "entry_point": "f"}}],
            "test_cases.test_list has a test that is not a string",
        ),
        (
            ONE,
            [
                GOOD
                | {
                    "test_cases": {
                        "type": "mbpp",
                        "test_list": ["assert f()"],
                        "entry_point": "f",
                        "test_setup_code": ["x"],
                    }
                }
            ],
            "test_setup_code is a list, expected a string",
        ),
        (
            ONE,
            [GOOD | {"test_cases": {"type": "humaneval", "test_code": "x", "entry_point": 5}}],
            "entry_point is a int, expected a string",
        ),
        (
            ONE,
            [GOOD | {"test_cases": GOOD["test_cases"] | {"time_limit": "2"}}],
            "test_cases.time_limit is '2', expected a positive number",
        ),
        (
            ONE,
            [GOOD | {"test_cases": GOOD["test_cases"] | {"memory_limit_mb": 0}}],
            "test_cases.memory_limit_mb is 0, expected a positive number",
        ),
        *(
            (ONE, [GOOD | {"test_cases": GOOD["test_cases"] | {"compare": compare}}], message)
            for compare, message in (
                ("any", "test_cases.compare is a str, expected an object with case, tolerance, order"),
                ({"cases": "any"}, "test_cases.compare.cases is no rule, expected case, tolerance, order"),
                ({"case": "lower"}, "test_cases.compare.case is 'lower', expected any"),
                ({"case": True}, "test_cases.compare.case is True, expected any"),
                ({"tolerance": "1e-6"}, "test_cases.compare.tolerance is '1e-6', expected a number between 0 and 1"),
                ({"tolerance": 0}, "test_cases.compare.tolerance is 0, expected a number between 0 and 1"),
                ({"tolerance": True}, "test_cases.compare.tolerance is True, expected"),
                ({"tolerance": 6}, "test_cases.compare.tolerance is 6, expected"),
                ({"order": "lines"}, "test_cases.compare.order is 'lines', expected any or in_line"),
                ({"order": ["any"]}, "test_cases.compare.order is ['any'], expected any or in_line"),
            )
        ),
        *(
            (ONE, [GOOD | {"test_cases": GOOD["test_cases"] | {"checker": checker}}], "test_cases.checker is not {kind")
            for checker in ("print(1)", {}, {"kind": "java", "source": "x"}, {"kind": "python", "source": " "}, [1])
        ),
        (
            ONE,
            [GOOD | {"test_cases": GOOD["test_cases"] | {"answers": "any"}}],
            "mbpp_reg_raw.jsonl:1: test_cases.answers is 'any', expected one or many",
        ),
        (
            ONE,
            [
                GOOD
                | {
                    "test_cases": {
                        "type": "mbpp",
                        "test_list": ["assert f()"],
                        "entry_point": "f",
                        "compare": {"case": "any"},
                    }
                }
            ],
            "test_cases.compare is for tests with outputs",
        ),
    ],
)
def test_damage_is_named(tmp_path, manifest, raw, message):
    manifest_dir = write(tmp_path, manifest, raw)
    with pytest.raises(BadInput) as e:
        load_problems(manifest_dir, "mbpp_reg")
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(BadInput, match="humaneval_manifest.jsonl: no such file"):
        load_problems(tmp_path, "humaneval")


PROMPT = 'import math\n\ndef helper(x):\n    return x\n\ndef f(x):\n    """Doc."""\n'


@pytest.mark.parametrize(
    ("code", "program"),
    [
        ("    return helper(x)", PROMPT + "    return helper(x)"),  # a body continues the prompt
        (
            "def f(x):\n    return math.pi",
            "import math\n\ndef helper(x):\n    return x\n\ndef f(x):\n    return math.pi",
        ),  # a function gets what it may call
        ("f = lambda x: x", "import math\n\ndef helper(x):\n    return x\n\nf = lambda x: x"),
        (
            "from __future__ import annotations\ndef f(x):\n    return 1",
            (
                "from __future__ import annotations\nimport math\n\ndef helper(x):\n    return x\n\ndef f(x):\n    "
                "return 1"
            ),
        ),
        (
            "    def f(y):\n        return y\n    return f(x)",
            PROMPT + "    def f(y):\n        return y\n    return f(x)",
        ),  # a nested namesake is a body
        ("def foo(x):\n    return x", PROMPT + "def foo(x):\n    return x"),  # another name is not the function
        ("", ""),
        ("  \n", "  \n"),
    ],
)
def test_a_humaneval_answer_is_the_function_or_its_body(code, program):
    problem = Problem("humaneval", "HumanEval/0", PROMPT, {"type": "humaneval", "test_code": "…", "entry_point": "f"})
    assert problem.program(code) == program


def test_other_programs_are_run_as_they_are():
    assert (
        Problem("codecontests_valid", "x", "p", {"type": "codecontests", "tests": []}).program("print(1)") == "print(1)"
    )
