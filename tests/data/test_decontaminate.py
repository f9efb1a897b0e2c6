"""phase1.data.decontaminate: evaluation problems are found in disguise, by real names, and little else is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.contract.problems import EVAL_SETS
from phase1.data.decontaminate import EvalIndex, id_key, name_key, statement_hash, words_of
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
        ("mbpp_reg", f"mbpp/{i}", f"Write a function that finds the {i}th of all the values in a list.")
        for i in range(50)
    ]
    index = EvalIndex([("codecontests_valid", "Codeforces/1575/G", STATEMENT), *others])
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
