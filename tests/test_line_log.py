"""phase1/line_log.py: every line is whole, whatever ended the process that wrote it."""

import math

from phase1.files import read_jsonl
from phase1.line_log import LineLog, append_line, whole_lines


def test_a_log_grows_by_whole_lines(tmp_path):
    for i in range(3):
        append_line(tmp_path / "log" / "uses.jsonl", {"i": i})
    assert [row["i"] for _, row in read_jsonl(tmp_path / "log" / "uses.jsonl")] == [0, 1, 2]


def test_a_torn_last_line_is_left_out_by_readers_and_cut_off_by_the_next_writer(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": ' + b"2" * (1 << 17))
    assert list(whole_lines(path)) == [b'{"a": 1}\n']
    with LineLog(path) as log:
        log.append({"a": math.nan})
    assert path.read_bytes() == b'{"a": 1}\n{"a": null}\n'


def test_a_log_that_is_not_there_has_no_lines(tmp_path):
    assert list(whole_lines(tmp_path / "log.jsonl")) == []
