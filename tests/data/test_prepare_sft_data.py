"""prepare_sft_data.py: parsing, every filter, decontamination on real names, and output that is whole, exact and
reproducible."""

import gzip
import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prepare_sft_data
from phase1.contract.problems import EVAL_SETS
from phase1.contract.prompts import SYSTEM_PROMPT, answer, chat, user_message
from phase1.data.bee import BadRecord, code_of, parse_record, python_fault
from phase1.data.decontaminate import EvalIndex, id_key, name_key, statement_hash, words_of
from phase1.data.duplicates import near_duplicates, signature, surplus
from phase1.data.tokens import RowTokens
from phase1.files import BadInput
from phase1.model.tokenizer import load_tokenizer

STATEMENT = (
    "Polycarp keeps a row of n glass jars on the shelf of his grandmother and counts the pickled plums in each "
    "of them.\n"
    "He moves one plum a minute from the fullest jar into the emptiest until no two jars differ by more than one.\n\n"
    "Input\n\nThe only line has n and then the numbers of plums.\n\nOutput\n\nPrint the number of minutes.\n\n"
    "Examples\n\nInput\n\n3 1 2 6\n\n\nOutput\n\n3"
)


def record(i: int, solution: str = "print({i})", fence: str = "```python3", statement: str = "", **more) -> dict:
    """A clean BEE record whose statement no other shares."""
    words = " ".join(
        f"{w}{i}"
        for w in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
    return {
        "name": f"{2000 + i}_A. Title",
        "source": 2,
        "difficulty": 7,
        "language": "PYTHON3",
        "text": "### Prompt\n\nIn Python3, your task is to solve the following problem: "
        f"{statement or words}\n\n### Response\n\n{fence}\n{solution.format(i=i)}\n```",
    } | more


def prepare(tmp_path: Path, records: list, *flags: str, monkeypatch) -> dict:
    """Run the script on records (dicts, or raw lines) and give its report, its rows and its rejects."""
    source = tmp_path / "bee.jsonl"
    source.write_bytes(b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in records))
    return run(tmp_path / "out", [source], *flags, monkeypatch=monkeypatch)


def run(out: Path, sources: list[Path], *flags: str, monkeypatch) -> dict:
    argv = [
        "prepare_sft_data.py",
        "--input_jsonl",
        *map(str, sources),
        "--output_dir",
        str(out),
        "--workers",
        "2",
        "--no_verl_check",
    ]
    if "--manifest_dir" not in flags:
        flags = (*flags, "--manifest_dir", str(out / "none"), "--allow_missing_manifests")
    monkeypatch.setattr(sys, "argv", [*argv, *flags])
    assert prepare_sft_data.main() == 0
    rows = {
        side: [row["messages"] for row in pq.read_table(out / f"sft_{side}.parquet").to_pylist()]
        for side in ("train", "val")
    }
    return {
        "report": json.loads((out / "sft_report.json").read_text()),
        **rows,
        "rejects": [json.loads(line) for line in (out / "sft_rejects.jsonl").read_text().splitlines()],
    }


# --------------------------------------------------------------------------------------------------------- parsing
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


# -------------------------------------------------------------------------------------------------- decontamination
@pytest.mark.parametrize(
    ("name", "source", "problem_id"),
    [
        ("1283_D. Christmas Trees", 2, "Codeforces/1283/D"),
        ("1283_d. christmas trees", 2, "Codeforces/1283/D"),
        ("1157_C2. Increasing Subsequence (hard version)", 2, "Codeforces/1157/C2"),
        ("1157_C2", None, "codeforces/1157/c2"),
        ("1_A. Theatre Square", 2, "Codeforces/1/A"),
        ("1575_G. GCD Festival", 2, "1575_G"),
        ("p02537 AtCoder Regular Contest 106 - Title", 6, "AtCoder/p02537"),
        ("p02537 AtCoder Regular Contest 106 - Title", 6, "Aizu/p02537 AtCoder Regular Contest 106 - Title"),
        ("Chef and Strings", 1, "CodeChef/Chef and strings"),
    ],
)
def test_real_names_and_manifest_ids_meet(name, source, problem_id):
    assert name_key(name, source) == id_key(problem_id) is not None


@pytest.mark.parametrize(
    ("name", "source", "problem_id"),
    [
        ("1157_C1. Increasing Subsequence", 2, "Codeforces/1157/C2"),
        ("1157_C. Increasing Subsequence", 2, "Codeforces/1157/C2"),
        ("283_D. Christmas Trees", 2, "Codeforces/1283/D"),
        ("11_A. Jumping Jack", 2, "Codeforces/1/A"),
        ("p02538 AtCoder", 6, "AtCoder/p02537"),
        ("1283_D. Not from Codeforces", 1, "Codeforces/1283/D"),
    ],
)
def test_other_problems_do_not_meet(name, source, problem_id):
    assert name_key(name, source) != id_key(problem_id)


@pytest.mark.parametrize("problem_id", ["HumanEval/0", "mbpp/11", "SampleEval/3"])
def test_ids_of_other_kinds_match_nothing(problem_id):
    assert id_key(problem_id) is None


DISGUISES = {
    "verbatim": lambda s: s,
    "other case": str.upper,
    "other white space": lambda s: s.replace(" ", "   ").replace("\n\n", "\n"),
    "one line": lambda s: " ".join(s.split()),
    "punctuation": lambda s: s.replace(".", " .").replace(",", ""),
    "other examples": lambda s: (
        s.split("Examples")[0] + "Example\n\nInput\n\n9\n8 8\n\n\nOutput\n\n0\n\nNote\n\nNothing to do."
    ),
    "cut in half": lambda s: s[: len(s) // 2],
    "embedded": lambda s: (
        "This task is an old one of mine, which I tell here once more. " * 2 + s.split("\n\nInput")[0]
    ),
    "names changed": lambda s: s.replace("Polycarp", "Berta").replace("grandmother", "uncle"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_an_evaluation_problem_is_found_in_every_disguise(disguise):
    others = [
        ("mbpp_reg", f"mbpp/{i}", f"Write a function that finds the {i}th of all the values in a list.")
        for i in range(50)
    ]
    index = EvalIndex([("codecontests_valid", "Codeforces/1575/G", STATEMENT), *others])
    hit = index.find("77_A. Something Else", 2, DISGUISES[disguise](STATEMENT))
    assert hit is not None and (hit.dataset, hit.problem_id) == ("codecontests_valid", "Codeforces/1575/G")


def test_recall_in_seven_disguises_and_few_unrelated_records_dropped():
    """The benchmark in small: it exits 1 where the first five disguises are found less than 99% or 0.1% of the others
    are dropped."""
    bench = Path(__file__).resolve().parents[1] / "bench" / "bench_decontaminate.py"
    done = subprocess.run(
        [sys.executable, bench, "--problems", "60", "--unrelated", "1000"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^[a-z ,]+\d+ +\d+\.\d+%", done.stdout, re.MULTILINE)) == 8


def test_phrases_of_the_trade_are_no_contamination():
    trade = (
        "The first line contains a single integer t, the number of test cases. Each test case has a single line "
        "with n. Print"
    )
    index = EvalIndex([("codecontests_valid", f"Codeforces/{i}/A", f"{trade} task {i}") for i in range(1, 9)])
    assert index.find("900_A. New", 2, f"{trade} something quite new about trees") is None


def test_a_statement_that_stands_in_many_sets_is_still_found_by_a_part_of_it():
    index = EvalIndex([(f"copy{i}", "Codeforces/1575/G", STATEMENT) for i in range(5)])
    hit = index.find("77_A. Something Else", 2, DISGUISES["cut in half"](STATEMENT))
    assert hit is not None and (hit.dataset, hit.rule) == ("copy0", "ngrams")


def test_a_short_problem_with_one_phrase_in_common_does_not_hide_the_one_that_a_record_is():
    phrase = " ".join(STATEMENT.split()[:8])
    index = EvalIndex([("mbpp_reg", "mbpp/11", phrase), ("codecontests_valid", "Codeforces/1575/G", STATEMENT)])
    record = STATEMENT.replace("grandmother", "uncle").replace("minutes", "hours")
    hit = index.find("77_A. Something Else", 2, record)
    assert hit is not None and hit.problem_id == "Codeforces/1575/G"


def test_an_example_told_in_a_sentence_does_not_end_the_statement():
    told = (
        "Lucky numbers have no digits but 4 and 7, for example 47 and 744. {} of them lie between the numbers a and b?"
    )
    assert statement_hash(words_of(told.format("How many"))) != statement_hash(words_of(told.format("Which")))


def test_an_unknown_evaluation_set_stops_the_run(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"codecontests_valid_manifest\.jsonl: no such file"):
        prepare(tmp_path, [record(1), record(2)], "--manifest_dir", str(tmp_path), monkeypatch=monkeypatch)


def test_the_report_names_problem_rule_and_score_of_each_contaminated_record(tmp_path, monkeypatch):
    folder = tmp_path / "eval" / "manifests"
    problems = {
        name: {"problem_id": f"Codeforces/{i}/A", "prompt": f"{name} " * 20} for i, name in enumerate(EVAL_SETS, 1283)
    }
    problems["humaneval"]["problem_id"] = "HumanEval/7"
    for name, problem in problems.items():
        case = {"type": "codecontests", "tests": [{"input": "", "output": "1"}]}
        for path, row in (
            (folder / f"{name}_manifest.jsonl", {"problem_id": problem["problem_id"]}),
            (folder.parent / "raw" / f"{name}_raw.jsonl", problem | {"test_cases": case}),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row) + "\n")
    records = [record(1), record(2), record(3, name="1283_A. Christmas"), record(4, statement="HumanEval " * 20)]
    made = prepare(tmp_path, records, "--manifest_dir", str(folder), monkeypatch=monkeypatch)
    assert made["report"]["contamination"] == [
        {
            "file": str(tmp_path / "bee.jsonl"),
            "line": 3,
            "name": "1283_A. Christmas",
            "reason": "contaminated",
            "detail": {"dataset": "codecontests_valid", "problem_id": "Codeforces/1283/A", "rule": "id", "score": 1.0},
        },
        {
            "file": str(tmp_path / "bee.jsonl"),
            "line": 4,
            "name": "2004_A. Title",
            "reason": "contaminated",
            "detail": {"dataset": "humaneval", "problem_id": "HumanEval/7", "rule": "statement", "score": 1.0},
        },
    ]
    assert made["report"]["final_total"] == 2


# ------------------------------------------------------------------------------------------------------- duplicates
def test_near_duplicates_need_both_statement_and_solution_alike():
    words = [f"w{i}" for i in range(200)]
    code = [f"c{i}" for i in range(80)]
    changed, other = ["new", *words[1:]], [f"v{i}" for i in range(200)]
    statements = np.stack([signature(w) for w in (words, changed, words, other)])
    solutions = np.stack([signature(c) for c in (code, code, [f"d{i}" for i in range(80)], code)])
    assert near_duplicates(statements, solutions, 0.85) == {1: 0}


def test_memory_stays_small_where_every_record_is_alike():
    rows, r = 8000, np.random.default_rng(1)
    alike = np.tile(r.integers(0, 1 << 16, 128).astype(np.uint16), (rows, 1))
    changed = r.random(alike.shape) < 0.05
    alike[changed] = r.integers(0, 1 << 16, int(changed.sum()))
    tracemalloc.start()
    try:
        found = near_duplicates(alike[:, :64], alike[:, 64:], 0.8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) > 0.9 * rows and set(found.values()).isdisjoint(found)
    assert peak < 1500 * rows  # bytes; 16 pairs a row from each of 12 bands would be 3 kB a row and their copies


def test_keep_chooses_among_the_solutions_of_a_problem():
    problems, lengths = [7, 7, 8, 7], [30, 10, 5, 20]
    dropped = {keep: surplus(problems, lengths, keep) for keep in ("shortest", "first", "all", "2")}
    assert dropped == {"shortest": {0, 3}, "first": {1, 3}, "all": set(), "2": {0}}


def test_one_statement_under_two_ids_is_one_problem(tmp_path, monkeypatch):
    records = [record(1, "print(1)\nx = 0", statement=STATEMENT), record(2, "print(1)", statement=STATEMENT), record(3)]
    made = prepare(tmp_path, records, "--keep", "shortest", monkeypatch=monkeypatch)
    assert [r["name"] for r in made["rejects"]] == ["2001_A. Title"]


# ------------------------------------------------------------------------------------------------- the whole script
def test_each_reason_is_counted_and_told_by_line(tmp_path, monkeypatch):
    bad = [
        b"{torn\n",
        b"[1]\n",
        b"\xff\xfe\x00junk\n",
        b"\n",
        record(1, language="PYTHON"),
        record(2, solution=" "),
        record(3, "print 1"),
        record(4, "print(("),
        record(5),
        record(5, fence="```"),
        record(6, "x = '</code>'"),
    ]
    made = prepare(tmp_path, bad + [record(i) for i in range(10, 30)], monkeypatch=monkeypatch)
    assert {(r["line"], r["reason"]) for r in made["rejects"]} == {
        (1, "parse_errors"),
        (2, "parse_errors"),
        (3, "parse_errors"),
        (5, "not_python3"),
        (6, "empty_solution"),
        (7, "python2"),
        (8, "syntax_error"),
        (10, "exact_duplicate"),
        (11, "answer_form"),
    }
    report = made["report"]
    assert (report["input_total"], report["parse_errors"], report["empty_solution_dropped"], report["final_total"]) == (
        30,
        3,
        1,
        21,
    )
    assert report["input_total"] == report["final_total"] + sum(report["dropped"].values())
    assert report["train_samples"] + report["val_samples"] == 21 == len(made["train"]) + len(made["val"])
    assert report["stamp"]["arguments"]["seed"] == 42


REASONS = {
    "language": "not_python3",
    "syntax": "syntax_error",
    "python2": "python2",
    "contamination": "contaminated",
    "duplicates": "exact_duplicate",
    "near_duplicates": "near_duplicate",
}


@pytest.mark.parametrize("left_out", ["", *REASONS])
def test_each_filter_has_a_switch_that_leaves_it_out_and_no_other(tmp_path, monkeypatch, left_out):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "some_manifest.jsonl").write_text('{"problem_id": "Codeforces/2004/A"}\n')
    long, words = "\n".join(f"x{i} = {i}" for i in range(99)), " ".join(f"word{i}" for i in range(99))
    records = [
        record(1, language="PYTHON"),
        record(2, "print(("),
        record(3, "print 1"),
        record(4),
        record(5),
        record(5),
        record(6, long, statement=words),
        record(6, f"{long}\ny = 1", statement=words),
        record(7),
    ]
    flags = (
        "--manifest_dir",
        str(tmp_path / "manifests"),
        "--allow_missing_manifests",
        *(("--skip", left_out) if left_out else ()),
    )
    made = prepare(tmp_path, records, *flags, monkeypatch=monkeypatch)
    wanted = {reason: 1 for filter, reason in REASONS.items() if filter != left_out}
    if left_out == "duplicates":
        wanted["near_duplicate"] = 2  # what is equal is alike, too
    assert made["report"]["dropped"] == wanted


@pytest.mark.parametrize("style", ["codecontests", "raw"])
def test_rows_are_system_user_assistant_in_the_evaluations_form(tmp_path, monkeypatch, style):
    made = prepare(
        tmp_path, [record(1, statement=STATEMENT), record(2)], "--prompt_style", style, monkeypatch=monkeypatch
    )
    row = next(r for r in made["train"] + made["val"] if "Polycarp" in r[1]["content"])
    user = STATEMENT if style == "raw" else user_message("codecontests", STATEMENT)
    assert row == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": user},
        {"role": "assistant", "content": answer("print(1)")},
    ]


def test_the_schema_is_exactly_a_list_of_role_and_content(tmp_path, monkeypatch):
    prepare(tmp_path, [record(1), record(2)], monkeypatch=monkeypatch)
    schema = pq.read_schema(tmp_path / "out" / "sft_train.parquet")
    assert schema.equals(
        pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
    )
    assert pq.read_table(tmp_path / "out" / "sft_val.parquet").num_rows == 1  # one row on each side, whatever the ratio


def test_bytes_depend_on_input_and_seed_alone(tmp_path, monkeypatch):
    records = [record(i % 700, "x = {i}\nprint(x)" + "\n" * (i // 700)) for i in range(900)]
    source = tmp_path / "bee.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in records))

    def digest(name: str, *flags: str):
        return run(tmp_path / name, [source], *flags, monkeypatch=monkeypatch)["report"]["outputs_sha256"]

    first = digest("a")
    assert digest("b", "--workers", "5") == first
    assert digest("c", "--seed", "43") != first


def test_gzip_and_parquet_give_the_rows_of_plain_lines(tmp_path, monkeypatch):
    records = [record(i) for i in range(6)]
    plain, zipped, parquet = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.parquet"
    lines = "".join(json.dumps(r) + "\n" for r in records)
    plain.write_text(lines)
    zipped.write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(records), parquet)
    reports = [
        run(tmp_path / p.name.replace(".", "_"), [p], monkeypatch=monkeypatch)["report"]
        for p in (plain, zipped, parquet)
    ]
    assert len({json.dumps(r["outputs_sha256"]) for r in reports}) == 1
    assert run(tmp_path / "both", [plain, zipped], monkeypatch=monkeypatch)["report"]["dropped"] == {
        "exact_duplicate": 6
    }


@pytest.mark.slow  # imports transformers
def test_length_is_measured_as_verl_renders_the_row_and_special_tokens_are_dropped(tmp_path, monkeypatch, base_model):
    from transformers import AutoTokenizer

    records = [record(i) for i in range(4)] + [record(5, "x = 0\n" * 300), record(6, "x = '<|im_end|>'")]
    made = prepare(tmp_path, records, "--model", str(base_model), "--max_length", "400", monkeypatch=monkeypatch)
    assert [r["reason"] for r in made["rejects"]] == ["too_long", "special_token"]
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    lengths = [len(tokenizer.apply_chat_template(row)) for row in made["train"] + made["val"]]
    assert made["report"]["tokens"]["p100"] == max(lengths)


@pytest.mark.slow  # imports transformers
def test_a_template_that_is_no_constant_text_around_the_turns_is_rendered_row_by_row(base_model):
    tokenizer = load_tokenizer(base_model)
    fast = RowTokens(tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message.content", "('long' if message.content | length > 40 else 'short') + message.content"
    )
    slow = RowTokens(tokenizer)
    assert fast.around and not slow.around
    marks = 2 * len(tokenizer("long", add_special_tokens=False)["input_ids"])
    assert (
        sum(slow.count("Count. " * 9, answer("print(1)" * 9)))
        >= sum(fast.count("Count. " * 9, answer("print(1)" * 9))) + marks - 2
    )
    whole = tokenizer.apply_chat_template(chat("Count.", answer("print(1)")))
    assert sum(slow.count("Count.", answer("print(1)"))) == len(whole)


def test_the_histogram_is_a_png_and_lengths_add_up(tmp_path, monkeypatch):
    report = prepare(tmp_path, [record(i) for i in range(9)], monkeypatch=monkeypatch)["report"]
    assert (tmp_path / "out" / "sft_lengths.png").read_bytes().startswith(b"\x89PNG")
    assert report["tokens"] is None and 0 < report["avg_response_length_chars"] <= report["max_response_length_chars"]


def test_every_manifest_in_the_directory_is_kept_out(tmp_path, monkeypatch):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "livecodebench_manifest.jsonl").write_text('{"problem_id": "Codeforces/2003/A"}\n')
    made = prepare(
        tmp_path,
        [record(i) for i in range(6)],
        "--manifest_dir",
        str(tmp_path / "manifests"),
        "--allow_missing_manifests",
        monkeypatch=monkeypatch,
    )
    assert [(r["name"], r["detail"]["dataset"]) for r in made["rejects"]] == [("2003_A. Title", "livecodebench")]
    assert made["report"]["evaluation_sets"]["livecodebench"] == "1 ids, no statements"


@pytest.mark.slow  # imports verl
def test_a_template_that_verl_would_train_wrongly_on_is_refused(tmp_path, monkeypatch, base_model):
    from phase1.data.verl_rows import check_rows

    made = prepare(tmp_path, [record(i) for i in range(8)], monkeypatch=monkeypatch)
    path = tmp_path / "out" / "sft_train.parquet"
    checked = check_rows(path, base_model, 512, 0)
    if isinstance(checked, str):
        pytest.skip(checked)
    assert checked == {"rows": len(made["train"]), "compared": len(made["train"])}
    with pytest.raises(Exception, match=r"max_length|trained token"):
        check_rows(path, base_model, 16, 0)


def test_hashes_ignore_what_the_disguises_change():
    assert (
        len(
            {
                statement_hash(words_of(DISGUISES[d](STATEMENT)))
                for d in ("verbatim", "other case", "one line", "punctuation", "other examples", "other white space")
            }
        )
        == 1
    )
