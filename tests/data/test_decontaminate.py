"""phase1.data.decontaminate: evaluation problems are found in disguise, by real names, and little else is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.contract.problems import EVAL_SETS, Problem
from phase1.data.decontaminate import EvalIndex, Known, id_key, known_problem, name_key, statement_hash, words_of
from phase1.files import BadInput
from tests.data.prepared import STATEMENT, prepare, record


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
        Known("mbpp_reg", f"mbpp/{i}", f"Write a function that finds the {i}th of all the values in a list.")
        for i in range(50)
    ]
    index = EvalIndex([Known("codecontests_valid", "Codeforces/1575/G", STATEMENT), *others])
    hit = index.find("77_A. Something Else", 2, DISGUISES[disguise](STATEMENT))
    assert hit is not None and (hit.dataset, hit.problem_id) == ("codecontests_valid", "Codeforces/1575/G")


@pytest.mark.slow
def test_recall_in_seven_disguises_and_few_unrelated_records_dropped():
    """The benchmark in small: it exits 1 where the first five disguises are found less than 99% or 0.1% of the others
    are dropped."""
    bench = Path(__file__).resolve().parents[1] / "bench" / "bench_decontaminate.py"
    done = subprocess.run(
        [sys.executable, bench, "--problems", "60", "--unrelated", "1000"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^[a-z ,]+\d+ +\d+\.\d+%", done.stdout, re.MULTILINE)) == 8


@pytest.mark.slow
def test_humaneval_and_mbpp_are_found_by_program_tests_or_one_sentence(shared_data):
    """95% and more of each, as the benchmark's rows say, over the whole of both; it exits 1 where one is found less."""
    bench = Path(__file__).resolve().parents[1] / "bench" / "bench_decontaminate.py"
    command = [sys.executable, bench, "--problems", "20", "--unrelated", "1000", "--public_data", shared_data]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = done.stdout.split("only a part of each")[1:]
    # MBPP has no code in its statements, HumanEval no lead sentence.
    assert [len(re.findall(r"^ *[a-z][a-z ,]+\d+ +\d+\.\d% ", part, re.MULTILINE)) for part in parts] == [7, 7]


HUMANEVAL_41 = Known(
    "humaneval",
    "HumanEval/41",
    'def car_race_collision(n: int):\n    """\n    Imagine a road that is perfectly straight and infinitely long."""\n',
    "def car_race_collision(n: int):\n    return n**2\n",
)
HUMANEVAL_31 = Known(
    "humaneval",
    "HumanEval/31",
    'def is_prime(n):\n    """Return true if a given number is prime, and false otherwise.\n    """\n',
    "def is_prime(n):\n    if n < 2:\n        return False\n    for k in range(2, n - 1):\n        if n % k == 0:\n"
    "            return False\n    return True\n",
)
MBPP_3 = Known(
    "mbpp_reg",
    "MBPP/3",
    "Write a python function to identify non-prime numbers.",
    "import math\ndef is_not_prime(n):\n    result = False\n    for i in range(2,int(math.sqrt(n)) + 1):\n"
    "        if n % i == 0:\n            result = True\n    return result",
    ["assert is_not_prime(2) == False", "assert is_not_prime(10) == True", "assert is_not_prime(35) == True"],
)
INDEX = EvalIndex([HUMANEVAL_41, HUMANEVAL_31, MBPP_3])


@pytest.mark.parametrize(
    ("known", "program"),
    [
        (HUMANEVAL_41, HUMANEVAL_41.solution),
        (HUMANEVAL_41, "# squares\ndef car_race_collision(n):\n  '''Cars.'''\n  return (n ** 2);\n"),
        (HUMANEVAL_31, HUMANEVAL_31.solution),
        (HUMANEVAL_31, f"import sys\n{HUMANEVAL_31.solution}\nprint(is_prime(int(input())))\n"),
        (MBPP_3, MBPP_3.solution.replace("is_not_prime", "composite").replace("\n", "\r\n")),
    ],
    ids=["short", "reformatted", "as it is", "with a main part", "under another name"],
)
def test_a_reference_program_is_found_under_an_unrelated_statement(known, program):
    hit = INDEX.find("77_A. Something Else", 2, STATEMENT, program)
    assert hit is not None and (hit.problem_id, hit.rule) == (known.problem_id, "solution")


@pytest.mark.parametrize(
    "program",
    [
        "def square(n):\n    return n**2\n",
        "n = int(input())\nprint(n**2)\n",
        "def f(n):\n    return n**2\nprint(sum(map(f, map(int, input().split()))))\n",
        HUMANEVAL_31.solution
        + "t = int(input())\nfor _ in range(t):\n    a, b = map(int, input().split())\n    total = 0\n"
        + "    for x in range(a, b + 1):\n        if is_prime(x) and str(x) == str(x)[::-1]:\n            total += x\n"
        + "    print(total if total > 0 else -1)\nprint(sum(is_prime(k) for k in range(1000)), 'below a thousand')\n",
        "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))\nprint(is_prime(7))\n",
        "result = False\nprint(result)\n",
        "",
    ],
    ids=["a square", "in a script", "a helper", "the same helper", "the same task", "common lines", "nothing"],
)
def test_a_short_common_program_is_no_contamination(program):
    assert INDEX.find("77_A. Something Else", 2, STATEMENT, program) is None


@pytest.mark.parametrize(
    ("known", "rule", "statement"),
    [
        (HUMANEVAL_41, "statement", HUMANEVAL_41.statement.replace("car_race_collision", "crashes")),
        (HUMANEVAL_31, "statement", HUMANEVAL_31.statement.replace("is_prime", "f").upper()),
        (MBPP_3, "sentence", "Please give me some Python code to identify non-prime numbers."),
        (MBPP_3, "sentence", "I have waited long for this. Write a function that can identify non prime numbers"),
        (MBPP_3, "tests", "\n".join(MBPP_3.tests)),
        (MBPP_3, "tests", "Make these pass:\n" + "\n".join(MBPP_3.tests[:2]).replace(" == ", "==")),
    ],
    ids=["other name", "other name and case", "other lead", "a sentence before", "tests alone", "two of three tests"],
)
def test_a_part_of_a_short_problem_is_found(known, rule, statement):
    hit = INDEX.find("77_A. Something Else", 2, statement, "print(1)")
    assert hit is not None and (hit.problem_id, hit.rule) == (known.problem_id, rule)


@pytest.mark.parametrize(
    "statement",
    [
        "Write a function to identify non-prime numbers that are also palindromes in the list of all given numbers.",
        "Check this:\nassert is_even(2) == False\nassert is_even(10) == True",
        "Polycarp likes non-prime numbers. " + STATEMENT,
        "Imagine a road that is long.",
    ],
    ids=["more is asked", "tests of another function", "a phrase of it", "a phrase"],
)
def test_another_short_problem_is_no_contamination(statement):
    assert INDEX.find("77_A. Something Else", 2, statement, "print(1)") is None


def test_a_grpo_problem_is_found_by_its_tests_or_program_alone():
    cases = {"type": "mbpp", "test_list": MBPP_3.tests, "entry_point": "is_not_prime"}
    other = {**cases, "test_list": ["assert is_not_prime(4) == True"]}
    hits = [
        INDEX.find_problem(Problem("own", "own/1", "A riddle.", cases)),
        INDEX.find_problem(Problem("own", "own/1", "A riddle.", other, MBPP_3.solution)),
    ]
    assert [(hit.problem_id, hit.rule) for hit in hits] == [("MBPP/3", "tests"), ("MBPP/3", "solution")]


def test_the_tests_of_humaneval_are_known_under_the_functions_own_name():
    code = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([4, 5, 6]) == 15\n"
    cases = {"type": "humaneval", "entry_point": "total", "test_code": code}
    index = EvalIndex([known_problem(Problem("humaneval", "HumanEval/0", "def total(a):\n", cases))])
    statement = "assert total([1, 2]) == 3\nassert total([4, 5, 6]) == 15"
    assert index.find("", None, statement).rule == "tests"


def test_phrases_of_the_trade_are_no_contamination():
    trade = (
        "The first line contains a single integer t, the number of test cases. Each test case has a single line "
        "with n. Print"
    )
    index = EvalIndex([Known("codecontests_valid", f"Codeforces/{i}/A", f"{trade} task {i}") for i in range(1, 9)])
    assert index.find("900_A. New", 2, f"{trade} something quite new about trees") is None


def test_a_statement_that_stands_in_many_sets_is_still_found_by_a_part_of_it():
    index = EvalIndex([Known(f"copy{i}", "Codeforces/1575/G", STATEMENT) for i in range(5)])
    hit = index.find("77_A. Something Else", 2, DISGUISES["cut in half"](STATEMENT))
    assert hit is not None and (hit.dataset, hit.rule) == ("copy0", "ngrams")


def test_a_short_problem_with_one_phrase_in_common_does_not_hide_the_one_that_a_record_is():
    phrase = " ".join(STATEMENT.split()[:8])
    index = EvalIndex(
        [Known("mbpp_reg", "mbpp/11", phrase), Known("codecontests_valid", "Codeforces/1575/G", STATEMENT)]
    )
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
