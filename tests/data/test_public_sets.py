"""phase1.data.public_sets: rows of the published schemas as raw records."""

import gzip
import json
import re
from pathlib import Path

import pytest

from phase1.data import public_sets as eval_sources
from phase1.data.public_sets import Refused, codecontests_id

ROOT = Path(__file__).resolve().parents[2]


DATA = ROOT.parent / "shared" / "data"


real_data = pytest.mark.skipif(not (DATA / "mbpp.jsonl.gz").exists(), reason=f"no public data sets in {DATA}")


@real_data
def test_every_mbpp_task_has_an_entry_point_that_its_reference_solution_defines():
    with gzip.open(DATA / "mbpp.jsonl.gz") as f:
        rows = [json.loads(line) for line in f]
    assert len(rows) == 974
    for row in rows:
        cases = eval_sources.mbpp_record(row)["test_cases"]
        assert re.search(rf"def {cases['entry_point']}\b|^{cases['entry_point']}\s*=", row["code"]), row["task_id"]
        assert cases["example_call"].startswith(cases["entry_point"]) and cases["example_call"] in row["test_list"][0]


@pytest.mark.parametrize(
    ("tests", "solution", "expected"),
    [
        (["assert f(1) == 2"], "def f(x): return x + 1", ("f", "f(1)")),
        (["assert set(f(1)) == {2}"], "def f(x): return [2]", ("f", "f(1)")),
        (["assert not f('a)b')"], "def f(x): return 0", ("f", "f('a)b')")),
        (["assert math.isclose(f(1.0), 2.0, rel_tol=1e-3)"], "def f(x): return 2.0", ("f", "f(1.0)")),
        (["assert (f( 1,2 ))==3"], "def f(x,y): return 3", ("f", "f( 1,2 )")),
        (
            ["assert longest([Pair(5, 24)], 1) == 3"],
            "class Pair: pass\ndef longest(a, n): return 3",
            ("longest", "longest([Pair(5, 24)], 1)"),
        ),
        (
            ["assert outer(inner(1)) == 1"],
            "def inner(x): return x\ndef outer(x): return x",
            ("outer", "outer(inner(1))"),
        ),
        (["assert f(1) == 2"], "f = lambda x: 2", ("f", "f(1)")),
        (["assert tuple(sorted(imported(2))) == (1,)"], "from somewhere import *", ("imported", "imported(2)")),
    ],
)
def test_the_tested_call_is_found(tests, solution, expected):
    assert eval_sources.tested_call(tests, solution) == expected


@pytest.mark.parametrize("tests", [["assert True"], ["assert f(1"], ["assert len([]) == 0"]])
def test_a_test_without_a_call_is_refused(tests):
    with pytest.raises(Refused):
        eval_sources.tested_call(tests, "def f(x): return x")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"source": 2, "name": "1575_G. GCD Festival", "cf_contest_id": 1575, "cf_index": "G"}, "Codeforces/1575/G"),
        (
            {"source": 2, "name": "1157_C2. Increasing Subsequence", "cf_contest_id": 0, "cf_index": ""},
            "Codeforces/1157/C2",
        ),
        ({"source": "CODEFORCES", "name": "1283_d. Trees"}, "Codeforces/1283/D"),
        ({"source": 1, "name": "digjump", "cf_contest_id": 0}, "Codechef/digjump"),
        ({"source": 6, "name": "p02600 AtCoder Beginner Contest - A"}, "AtCoder/p02600 AtCoder Beginner Contest - A"),
    ],
)
def test_problem_ids_follow_the_contract(row, expected):
    assert codecontests_id(row) == expected
