"""phase1.data.bee: statement and solution are found in every form, and what is no Python 3 is named."""

import json

import pytest

from phase1.contract.prompts import answer, chat
from phase1.data.bee import code_of, parse_record, python_fault
from phase1.data.record_forms import BadRecord
from tests.data.prepared import STATEMENT, prepare, record, run


@pytest.mark.parametrize(
    "lead",
    [
        "In Python3, your task is to solve the following problem: ",
        "In python3, your task is to solve the following problem:\n\n",
        "Your challenge is to write a Python3 solution to the following problem:\n\n",
        "Please create a solution in Python3 to the following problem:\n\n",
        "Develop a solution in python3 to the problem described below:\n",
        "Construct a PYTHON3 code solution to the problem outlined:\n\n",
        "Please provide a python3 coded solution to the problem described below: ",
        "Solve the following coding problem using the programming language python3:\n\n",
        "",
    ],
)
def test_the_lead_sentence_goes_and_the_statement_stays(lead):
    row = {"text": f"### Prompt\n\n{lead}{STATEMENT}\n\n### Response\n\n```python3\nprint(1)\n```"}
    assert parse_record(row).statement == STATEMENT


@pytest.mark.parametrize(
    "statement",
    [
        "A python has swallowed n mice. The problem is: which?",
        "You are given: a snake. Input: n.",
        "Monty: write python3 code.",
    ],
)
def test_a_statements_own_first_sentence_stays(statement):
    assert parse_record({"text": f"### Prompt\n\n{statement}\n\n### Response\n\nx"}).statement == statement


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("```python3\nprint(1)\n```", "print(1)"),
        ("```python\nprint(1)\n```\n", "print(1)"),
        ("```py\nprint(1)\n```", "print(1)"),
        ("```\nprint(1)\n```", "print(1)"),
        ("print(1)\n", "print(1)"),
        ("\n\nprint(1)", "print(1)"),
        ("```python3\nprint(1)", "print(1)"),  # cut off
        ("```python3\r\nprint(1)\r\n```".replace("\r\n", "\n"), "print(1)"),
        ("Here:\n```py\nprint(1)\n```\nHope it helps.", "print(1)"),
        ("```python3\n\n```", ""),
        ("   \n", ""),
        ("```python3\n  if 1:\n    pass\n```", "  if 1:\n    pass"),
        ("s = '```'\nprint(s)", "s = '```'\nprint(s)"),
    ],
)
def test_the_solution_is_taken_out_of_its_fence(response, code):
    assert code_of(response) == code


FENCED = "Here:\n```python\nprint(int(input()) ** 2)\n```"
ASKED = "Read n\nand print its square."


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": ASKED, "output": FENCED},
        {"instruction": "Read n", "input": "and print its square.", "output": FENCED, "text": "Below\n### Response\nx"},
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": FENCED}]},
        {
            "messages": [
                {"role": "system", "content": "You are helpful."},
                {"role": "user", "content": ASKED.replace("\n", "\r\n")},
                {"role": "assistant", "content": FENCED.replace("\n", "\r\n")},
            ]
        },
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": FENCED}]},
    ],
    ids=["alpaca", "input", "messages", "system", "sharegpt"],
)
def test_records_as_people_have_them_are_converted(row):
    found = parse_record(row)
    assert found.statement.split() == ASKED.split() and found.solution == "print(int(input()) ** 2)"
    assert "\r" not in found.statement


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "Q", "code": "print(1)"}, "rename its keys, which are question, code"),
        ({"messages": "Q"}, "messages is a JSON str, expected a list of turns"),
        ({"messages": [{"role": "user", "content": "Q"}]}, "messages has turns of user; expected one of user and one"),
        ({"messages": [{"role": "user"}]}, "a turn of messages has no role and content"),
        ({"conversations": [{"from": "human", "value": "Q"}] * 2}, "has several user turns; make a record of each"),
        ({"messages": chat("Q", answer("print(1)"))}, "is a row that prepare_sft_data.py wrote; give it the records"),
    ],
    ids=["keys", "text", "no answer", "no content", "several", "prepared"],
)
def test_records_of_other_forms_are_named_with_the_way_to_convert_them(row, says):
    with pytest.raises(BadRecord) as told:
        parse_record(row)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("language", "stays"),
    [("python", True), ("Python", True), ("Python 3.11", True), ("py3", True), ("PYTHON", False), ("java", False)],
)
def test_python_in_small_letters_is_python_3(tmp_path, monkeypatch, language, stays):
    made = prepare(tmp_path, [record(1), record(2), record(3, language=language)], monkeypatch=monkeypatch)
    assert [r["reason"] for r in made["rejects"]] == ([] if stays else ["not_python3"])


def test_a_syntax_error_is_told_with_its_line(tmp_path, monkeypatch):
    made = prepare(tmp_path, [record(1), record(2), record(3, "x = 1\nprint(x")], monkeypatch=monkeypatch)
    found = made["rejects"][0]
    assert found["reason"] == "syntax_error" and found["detail"].startswith("SyntaxError: ")
    assert found["detail"].endswith("(program, line 2)")


def test_prompt_and_solution_win_over_description_and_text():
    both = {"prompt": "P", "description": "D", "solution": "s = 1", "text": "### Prompt\n\nT\n\n### Response\n\nt = 1"}
    assert (parse_record(both).statement, parse_record(both).solution) == ("P", "s = 1")
    del both["prompt"]
    assert parse_record(both).statement == "D"
    del both["solution"]
    assert (parse_record(both).statement, parse_record(both).solution) == ("T", "t = 1")


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"text": 3},
        {"text": "### Prompt\n\nno answer"},
        {"prompt": 1, "solution": "x"},
        {"prompt": "x", "solution": 1},
        {"text": "### Prompt\n\n### Response\n\nx"},
        {"prompt": "half a character \ud800", "solution": "x"},
        {"prompt": "x", "solution": "y = '\udfff'"},
    ],
)
def test_a_record_without_prompt_or_response_is_bad(row):
    with pytest.raises(BadRecord):
        parse_record(row)


def with_line_ends(made: dict, end: str) -> dict:
    return {key: value.replace("\n", end) if isinstance(value, str) else value for key, value in made.items()}


@pytest.mark.parametrize("end", ["\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize(
    "row",
    [
        {
            "text": (
                f"### Prompt\n\nIn Python3, your task is to solve the following problem: {STATEMENT}\n\n### "
                "Response\n\n```python3\nif 1:\n    print(1)\n```"
            )
        },
        {"prompt": f"### Prompt\n\n{STATEMENT}", "solution": "if 1:\n    print(1)"},
        {"description": STATEMENT, "solution": "```py\nif 1:\n    print(1)\n```"},
    ],
)
def test_any_line_ends_give_the_record_of_plain_ones(row, end):
    assert parse_record(with_line_ends(row, end)) == parse_record(row)
    assert parse_record(row).solution == "if 1:\n    print(1)" and parse_record(row).statement == STATEMENT


def test_mixed_line_ends_are_one_and_an_escape_in_a_string_is_none():
    code = "s = 'a\\r\\n'\nx = 1\nprint(x)\n"
    row = {
        "prompt": "One.\r\nTwo.\rThree.\nFour.",
        "solution": code.replace("\n", "\r\n", 1).replace("x = 1\n", "x = 1\r"),
    }
    assert (parse_record(row).statement, parse_record(row).solution) == ("One.\nTwo.\nThree.\nFour.", code.rstrip())


@pytest.mark.slow
def test_records_with_crlf_give_the_rows_duplicates_and_contamination_of_plain_ones(tmp_path, monkeypatch):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "some_manifest.jsonl").write_text('{"problem_id": "Codeforces/2004/A"}\n')
    flags = ("--manifest_dir", str(tmp_path / "manifests"), "--allow_missing_manifests")
    plain = [record(i, "if {i}:\n    print({i})") for i in range(9)]
    made = prepare(tmp_path, plain, *flags, monkeypatch=monkeypatch)
    ended = prepare(tmp_path, [with_line_ends(r, "\r\n") for r in plain], *flags, monkeypatch=monkeypatch)
    assert made["report"]["outputs_sha256"] == ended["report"]["outputs_sha256"]
    assert made["report"]["dropped"] == ended["report"]["dropped"] == {"contaminated": 1}
    both = prepare(tmp_path, plain + [with_line_ends(r, "\r") for r in plain], *flags, monkeypatch=monkeypatch)
    assert both["report"]["dropped"] == {"contaminated": 2, "exact_duplicate": 8}
    assert "\r" not in json.dumps(both["train"] + both["val"])


@pytest.mark.parametrize("language", ["PYTHON3 ", " python3\n", "Python 3\r\n", "\tPy3", " ", ""])
def test_the_language_is_trimmed_and_read_in_any_case(tmp_path, monkeypatch, language):
    made = prepare(
        tmp_path, [record(1, language=language), record(2), record(3, language=" PYTHON ")], monkeypatch=monkeypatch
    )
    assert made["report"]["dropped"] == {"not_python3": 1} and made["rejects"][0]["line"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bee_crlf", "py2_compat"])
def test_the_published_cases_are_kept_whole(tmp_path, monkeypatch, shared_cases, name):
    source = shared_cases / "data" / f"{name}.jsonl"
    made = run(tmp_path / "out", [source], monkeypatch=monkeypatch)
    assert made["report"]["dropped"] == {} and made["report"]["final_total"] == len(source.read_text().splitlines()) > 3
    assert "\r" not in "".join(turn["content"] for row in made["train"] + made["val"] for turn in row)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("print(1)", None),
        ("print 1", "python2"),
        ("print 'a', 'b'", "python2"),
        ("n = raw_input()", "python2"),
        ("for i in xrange(3):\n    pass", "python2"),
        ("try:\n    xrange\nexcept NameError:\n    xrange = range\nfor i in xrange(3): pass", None),  # runs under both
        ("from functools import reduce\nprint(reduce(max, [1]))", None),
        ("raw_input = input\nprint(raw_input())", None),
        ("d = {}\nfor k, v in d.iteritems(): pass", "python2"),
        ("exec 'x = 1'", "python2"),
        ("except ValueError, e:", "python2"),
        ("x = 1L", "python2"),
        ("def f(:\n    pass", "syntax_error"),
        ("print(1", "syntax_error"),
        ("x = \x00", "syntax_error"),
        ("return 1", "syntax_error"),  # parses, but does not compile
        ("x = '\\d'\nif x is 1: pass", None),  # warnings are no faults
        ("(" * 3000 + ")" * 3000, "syntax_error"),
        ("-" * 100_000 + "1", "syntax_error"),
    ],
)
def test_what_is_no_python_3_is_named(code, fault):
    assert python_fault(code) == fault
