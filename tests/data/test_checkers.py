"""prepare_eval_data.py --checkers: programs of public data sets, joined to problems by their ids."""

from __future__ import annotations

import contextlib
import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prepare_eval_data
from phase1.contract.comparison import comparison_of
from phase1.data.checkers import CheckerFiles, columns_from
from phase1.files import BadInput
from tests.data.test_prepare_eval_data import lines, public_row, write_split

OPEN_R1 = {"id": "1575/G", "aliases": ["1576/A"], "generated_checker": "print(1)", "source": None}
PLUS = {"source": "Codeforces", "id": "1000_B", "checker": '#include "testlib.h"\nint main() { }'}


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_open_r1s_programs_are_found_by_id_and_by_alias(tmp_path, name):
    without = {"id": "1/A", "aliases": None, "generated_checker": None, "source": None}
    found = CheckerFiles([write(tmp_path / name, [OPEN_R1, without])], {})
    for problem_id in ("Codeforces/1575/G", "Codeforces/1576/A"):
        assert found.of(problem_id) == {"kind": "python", "source": "print(1)"}
    for problem_id in ("Codeforces/1/A", "Codeforces/1575/A", "Codechef/1575/G", "HumanEval/0"):
        assert found.of(problem_id) is None


def test_testlibs_header_is_put_into_programs_that_include_it(tmp_path):
    rows = write(tmp_path / "plus.jsonl", [PLUS])
    (tmp_path / "testlib.h").write_text("// a header with \\1 in it\n")
    found = CheckerFiles([rows], {}, tmp_path / "testlib.h").of("Codeforces/1000/B")
    assert found == {"kind": "testlib", "source": "// a header with \\1 in it\n\nint main() { }"}
    with pytest.raises(BadInput, match="Codeforces/1000/B includes testlib.h; give it with --testlib_header"):
        CheckerFiles([rows], {}).of("Codeforces/1000/B")


def test_other_columns_are_named(tmp_path):
    rows = write(tmp_path / "own.jsonl", [{"problem": "Codeforces/7/A", "judge": "print(0)"}])
    with pytest.raises(BadInput, match=r"own.jsonl: holds no checker.*--checker_columns"):
        CheckerFiles([rows], {})
    assert CheckerFiles([rows], columns_from(["id=problem", "python=judge"])).of("Codeforces/7/A") == {
        "kind": "python",
        "source": "print(0)",
    }


@pytest.mark.parametrize("told", ["id", "id=", "java=x", "=x"])
def test_columns_in_another_form_are_refused(told):
    with pytest.raises(BadInput, match="--checker_columns"):
        columns_from([told])


def prepare(*flags):
    """Run the script; what it printed."""
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as stdout:
        patched.setattr(sys, "argv", ["prepare_eval_data.py", *map(str, flags)])
        prepare_eval_data.main()
    return stdout.getvalue()


def test_checkers_stand_in_the_raw_file_and_such_a_problem_is_judged_with_many_answers(tmp_path):
    many = "If there are several answers, print any of them."
    write_split(
        tmp_path / "cc/test.jsonl", [public_row(1575, "G", statement=many), public_row(2, statement=f"2. {many}")]
    )
    rows = write(tmp_path / "rows.jsonl", [OPEN_R1])
    common = ["--datasets", "codecontests_test", "--code_contests_dir", tmp_path / "cc", "--allow_size_mismatch"]
    prepare("--output_dir", tmp_path / "out", *common, "--checkers", rows, "--exclude_multi_answer")
    made = {r["problem_id"]: r["test_cases"] for r in lines(tmp_path / "out/raw/codecontests_test_raw.jsonl")}
    assert comparison_of(made["Codeforces/1575/G"]).words == "checker python"
    assert comparison_of(made["Codeforces/2/A"]).words == "answers many"
    manifest = [r["problem_id"] for r in lines(tmp_path / "out/manifests/codecontests_test_manifest.jsonl")]
    assert manifest == ["Codeforces/1575/G"]
    report = json.loads((tmp_path / "out/eval_data_report.json").read_text())["datasets"]["codecontests_test"]
    assert report["rules"] == {"checker python": ["Codeforces/1575/G"], "answers many": ["Codeforces/2/A"]}


def test_flags_without_checkers_are_refused(tmp_path):
    with pytest.raises(BadInput, match="are read by --checkers"):
        prepare("--output_dir", tmp_path, "--checker_columns", "id=x")
