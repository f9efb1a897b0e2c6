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


def record(i: int, **more) -> Record:
    return Record("mbpp_reg", f"p{i}", "prompt", "hash", "answer\n" * 3, "stop", 5, 7, 0.5, 1.0, 0, **more)


def test_what_is_appended_is_read_back(tmp_path):
    log = RecordLog(tmp_path / "r.jsonl")
    records = [
        record(1, accepted=True, test_verdicts=["success"], first_failed_case={"input": "\ud800 é \u2028"}),
        record(2, pass_ratio=1 / 3),
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
