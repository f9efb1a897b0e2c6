"""prepare_sft_data.py: every filter and flag, and output that is whole, exact and reproducible."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phase1.contract.prompts import SYSTEM_PROMPT, answer, user_message
from phase1.contract.state.sft_report import SftReport
from phase1.files import BadInput
from tests.data.prepared import STATEMENT, prepare, record, run


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


def shares(tmp_path: Path) -> list[dict]:
    """Two records whose solutions are alike by two thirds, one that holds half of an evaluation problem, one broken."""
    folder = tmp_path / "eval" / "manifests"
    folder.mkdir(parents=True)
    (folder.parent / "raw").mkdir()
    problem = {"problem_id": "HumanEval/1", "prompt": STATEMENT.partition("\n\nInput")[0]}
    cases = {"type": "codecontests", "tests": [{"input": "", "output": "1"}]}
    (folder / "humaneval_manifest.jsonl").write_text(json.dumps({"problem_id": "HumanEval/1"}) + "\n")
    (folder.parent / "raw" / "humaneval_raw.jsonl").write_text(json.dumps(problem | {"test_cases": cases}) + "\n")
    words = " ".join(f"word{i}" for i in range(300))
    code = [f"x{i} = {i}" for i in range(100)]
    other = [*code[:80], *(f"y{i} = {i}" for i in range(20))]
    half = problem["prompt"][: len(problem["prompt"]) // 2] + words
    return [
        record(1, "\n".join(code), statement=words),
        record(2, "\n".join(other), statement=words),
        record(3, statement=half),
        record(4, "print(("),
        record(5),
        record(6),
    ]


@pytest.mark.parametrize(
    ("flags", "dropped"),
    [
        ((), {"syntax_error": 1}),
        (("--near_duplicates", "0.5"), {"syntax_error": 1, "near_duplicate": 1}),
        (("--containment", "0.2"), {"syntax_error": 1, "contaminated": 1}),
        (("--max_reject_ratio", "0.2"), {"syntax_error": 1}),
    ],
    ids=["defaults", "near_duplicates", "containment", "max_reject_ratio"],
)
def test_each_share_moves_its_own_line(tmp_path, monkeypatch, flags, dropped):
    flags = ("--manifest_dir", str(tmp_path / "eval" / "manifests"), "--allow_missing_manifests", *flags)
    made = prepare(tmp_path, shares(tmp_path), *flags, monkeypatch=monkeypatch)
    assert made["report"]["dropped"] == dropped


def test_more_broken_records_than_their_share_are_refused(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"bee\.jsonl:4: SyntaxError: .* line 1\); 1 of 6 .*_ratio 0\.1"):
        prepare(tmp_path, shares(tmp_path), "--max_reject_ratio", "0.1", monkeypatch=monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "rows"), [("0", 1), ("0.25", 5), ("0.99", 19)], ids=["0", "quarter", "all"])
def test_val_ratio_is_the_share_of_rows_that_validate(tmp_path, monkeypatch, ratio, rows):
    made = prepare(tmp_path, [record(i) for i in range(20)], "--val_ratio", ratio, monkeypatch=monkeypatch)
    assert len(made["val"]) == rows and len(made["train"]) == 20 - rows


def test_the_report_is_read_back_by_its_record(tmp_path, monkeypatch):
    made = prepare(tmp_path, [record(i) for i in range(5)], monkeypatch=monkeypatch)
    read = SftReport.read(tmp_path / "out" / "sft_report.json")
    assert read.model_dump(mode="json", exclude_unset=True) == made["report"]
    assert (read.model_extra, read.train_samples, read.stamp.arguments["seed"]) == ({}, len(made["train"]), 42)


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


@pytest.mark.slow
def test_bytes_depend_on_input_and_seed_alone(tmp_path, monkeypatch):
    records = [record(i % 700, "x = {i}\nprint(x)" + "\n" * (i // 700)) for i in range(900)]
    source = tmp_path / "bee.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in records))

    def digest(name: str, *flags: str):
        return run(tmp_path / name, [source], *flags, monkeypatch=monkeypatch)["report"]["outputs_sha256"]

    first = digest("a")
    assert digest("b", "--workers", "5") == first
    assert digest("c", "--seed", "43") != first


@pytest.mark.slow
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


def test_the_histogram_is_a_png_and_lengths_add_up(tmp_path, monkeypatch):
    report = prepare(tmp_path, [record(i) for i in range(9)], monkeypatch=monkeypatch)["report"]
    assert (tmp_path / "out" / "sft_lengths.png").read_bytes().startswith(b"\x89PNG")
    assert report["tokens"] is None and 0 < report["avg_response_length_chars"] <= report["max_response_length_chars"]
