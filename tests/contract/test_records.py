"""phase1.contract.records: every line of a log is whole, whatever killed its writer."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.contract.records import Completion, Record, RecordLog, read_completions, read_records
from phase1.files import BadInput

ROOT = Path(__file__).resolve().parents[2]


PASSED = {
    "error_type": "success",
    "accepted": True,
    "pass_ratio": 1.0,
    "tests_total": 1,
    "tests_run": 1,
    "tests_passed": 1,
    "test_verdicts": ["success"],
}
FAILED = {
    "error_type": "timeout",
    "pass_ratio": 1 / 3,
    "tests_total": 3,
    "tests_run": 2,
    "tests_passed": 1,
    "test_verdicts": ["success", "timeout", "not_run"],
}


def record(i: int, **more) -> Record:
    return Record("mbpp_reg", f"p{i}", "prompt", "hash", "answer\n" * 3, "stop", 5, 7, 0.5, 1.0, 0, **more)


def test_what_is_appended_is_read_back(tmp_path):
    log = RecordLog(tmp_path / "r.jsonl")
    records = [
        record(1, **PASSED),
        record(2, **FAILED, first_failed_case={"input": "\ud800 é \u2028"}),
    ]
    for r in records:
        log.append(r)
    assert list(read_records(tmp_path / "r.jsonl")) == records


@pytest.mark.parametrize("torn", [b'{"dataset": "mb', b"x", b'{"dataset": "mbpp_reg"}', b"y" * 200_000])
def test_a_torn_tail_is_skipped_by_readers_and_cut_by_the_next_writer(tmp_path, torn):
    path = tmp_path / "r.jsonl"
    RecordLog(path).append(record(1))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [r.problem_id for r in read_records(path)] == ["p1"]
    RecordLog(path).append(record(2))
    assert [r.problem_id for r in read_records(path)] == ["p1", "p2"]


def test_a_file_that_is_only_a_torn_line_starts_empty(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b"torn")
    RecordLog(tmp_path / "r.jsonl")
    assert (tmp_path / "r.jsonl").read_bytes() == b""


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    RecordLog(path).append(record(1))
    path.write_bytes(path.read_bytes() + b"{\n" + path.read_bytes())
    with pytest.raises(BadInput, match="r.jsonl:2: not a whole record"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("verdict", "change", "named"),
    [
        (FAILED, {"accepted": True}, "accepted is True, the verdicts of its 3 tests make it False"),
        (PASSED, {"accepted": False}, "accepted is False"),
        (PASSED, {"accepted": 1}, "accepted is 1"),
        (FAILED, {"pass_ratio": 0.5}, "pass_ratio is 0.5, the verdicts of its 3 tests make it 0.333"),
        (FAILED, {"pass_ratio": None}, "pass_ratio is None"),
        (FAILED, {"pass_ratio": [1]}, "pass_ratio is [1]"),
        (FAILED, {"error_type": None}, "error_type is None"),
        (FAILED, {"error_type": "wrong_answer"}, "error_type is 'wrong_answer'"),
        (FAILED, {"tests_passed": 2}, "tests_passed is 2"),
        (FAILED, {"tests_total": 2}, "tests_total is 2"),
        (FAILED, {"tests_run": 3}, "tests_run is 3"),
        (FAILED, {"tests_silent": 3}, "tests_silent is 3, and 2 tests ran"),
        (PASSED, {"tests_unread": True}, "tests_unread is True, and 1 tests ran"),
        (PASSED, {"first_failed_case": {"index": 0}}, "it is accepted, and first_failed_case names a test that failed"),
        (
            FAILED,
            {"test_verdicts": ["success"] * 3},
            "error_type is 'timeout', the verdicts of its 3 tests make it 'succ",
        ),
        (FAILED, {"test_verdicts": ["fine"]}, "test_verdicts is ['fine'], expected a list of syntax_error"),
        (FAILED, {"test_verdicts": "success"}, "test_verdicts is success, expected a list"),
        (PASSED, {"test_verdicts": []}, "success, accepted True, pass_ratio 1.0 without the verdict of any test"),
        ({}, {"accepted": True}, "sandbox_error, accepted True"),
        ({}, {"error_type": "wrong_answer"}, "wrong_answer, accepted False"),
        (PASSED, {"other": {"error_type": "timeout", "accepted": True}}, "other.accepted is True"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_verdict_that_its_tests_do_not_make_is_refused_by_line_and_problem(tmp_path, verdict, change, named):
    path = tmp_path / "r.jsonl"
    log = RecordLog(path)
    log.append(record(1, **PASSED))
    log.append(record(2, **{**verdict, **change}))
    with pytest.raises(BadInput) as refused:
        list(read_records(path))
    assert str(refused.value).startswith(f"{path}:2: p2: {named}") and "\n" not in str(refused.value)


def test_a_second_verdict_on_an_answer_is_refused_unless_the_first_was_none(tmp_path):
    failed, judged = record(1, error_type="sandbox_error"), record(1, **PASSED)
    for name, rows in (("retried", [failed, judged]), ("doubled", [failed, judged, judged])):
        log = RecordLog(tmp_path / f"{name}.jsonl")
        for r in rows:
            log.append(r)
    assert len(list(read_records(tmp_path / "retried.jsonl"))) == 2
    with pytest.raises(BadInput, match="doubled.jsonl:3: p1: has its verdict in line 2 already"):
        list(read_records(tmp_path / "doubled.jsonl"))


@pytest.mark.parametrize("error_type", ["syntax_error", "empty_output", "api_error", "sandbox_error"])
def test_a_problem_of_which_no_test_ran_needs_no_verdicts(tmp_path, error_type):
    RecordLog(tmp_path / "r.jsonl").append(record(1, error_type=error_type))
    assert [r.error_type for r in read_records(tmp_path / "r.jsonl")] == [error_type]


def test_a_record_of_a_later_version_is_read_without_its_new_fields(tmp_path):
    path = tmp_path / "r.jsonl"
    RecordLog(path).append(record(1))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new": 1}) + "\n")
    assert next(read_records(path)) == record(1)


def test_a_results_line_is_also_a_completion(tmp_path):
    RecordLog(tmp_path / "r.jsonl").append(record(1))
    assert type(next(read_completions(tmp_path / "r.jsonl"))) is Completion


def test_a_disk_that_fills_in_the_middle_of_a_line_leaves_whole_lines(tmp_path):
    """A file size limit is the full disk of one process: the kernel takes part of the write, then no more."""
    program = (
        "import sys, signal, resource; sys.path.insert(0, sys.argv[1])\n"
        "from tests.contract.test_records import RecordLog, record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = RecordLog('r.jsonl'); log.append(record(1))\n"
        "import os; size = os.path.getsize('r.jsonl'); resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, "
        "size + 50))\n"
        "try: log.append(record(2))\n"
        "except OSError as e: print(e.errno, os.path.getsize('r.jsonl') == size)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(ROOT)], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "28 True\n", run.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
