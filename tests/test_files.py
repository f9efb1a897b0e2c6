"""phase1/files.py: a reader finds a file whole or absent, JSON plain, errors in one line."""

import errno
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phase1.files import (
    BadInput,
    fingerprint,
    only_one,
    read_json,
    read_jsonl,
    replacing,
    run_stamp,
    sha256_json,
    write_json,
    write_together,
)

ROOT = Path(__file__).resolve().parent.parent


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"kept": 1})
    with pytest.raises(RuntimeError), replacing(path) as temp:
        temp.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"kept": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    for content in ("old", "new"):
        with replacing(path) as temp:
            temp.mkdir()
            (temp / content).write_text(content)
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan"), np.float32("inf")])
def test_what_is_not_finite_becomes_null(tmp_path, value):
    write_json(tmp_path / "a.json", {"x": [value, {"y": value}]})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {"x": [None, {"y": None}]}


@pytest.mark.parametrize("value", [np.int64(3), np.float64(0.5), np.bool_(True), Path("p"), (1, 2), "\ud800"])
def test_values_of_other_types_become_plain_json(tmp_path, value):
    write_json(tmp_path / "a.json", [value])
    assert isinstance(read_json(tmp_path / "a.json"), list)


@pytest.mark.parametrize(
    ("content", "line"),
    [(b'{"a": 1}\n{"a": ', 2), (b"[1]\n", 1), (b"\xff\xfe{}\n", 1), (b'\n\n{"a": 1}\nnull\n', 4), (b"\x00\n", 1)],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, content, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"a.jsonl:{line}:") as e:
        list(read_jsonl(path))
    assert "\n" not in str(e.value)


def test_gzip_is_read_and_a_torn_one_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000))
    assert sum(1 for _ in read_jsonl(path)) == 1000
    whole = path.read_bytes()
    for torn in (whole[:-12], whole[:12] + b"\xff" * 8 + whole[20:]):
        path.write_bytes(torn)
        with pytest.raises(BadInput, match="a.jsonl.gz: not a whole gzip file"):
            list(read_jsonl(path))


@pytest.mark.parametrize("content", ["", "{", '{"a": NaN', "\x00"])
def test_torn_json_is_one_line_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadInput, match="a.json:1: not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise BadInput('f.json:3: broken; mend it')", 2, "error: f.json:3: broken; mend it\n"),
        ("raise OSError(28, 'No space', 'a')", 2, "error: a: No space; make room, then start the same command again\n"),
        ("raise OSError(30, 'Read-only', 'a')", 2, "error: a: Read-only; name a folder that you may write to\n"),
        ("raise OSError(5, 'Input/output error', 'a')", 2, "error: a: Input/output error\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("return 1", 1, ""),
        ("return None", 0, ""),
    ],
)
def test_exit_codes_and_messages_of_a_script(body, code, message):
    program = f"from phase1.files import *\ndef main():\n    {body}\nrun_script(main)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (code, message)


def test_fingerprint_sees_a_change_of_weights_a_new_file_and_a_new_name(tmp_path):
    big = tmp_path / "model.safetensors"
    big.write_bytes(np.random.default_rng(0).bytes(5 << 20))
    seen = {fingerprint(tmp_path)}
    big.write_bytes(np.random.default_rng(1).bytes(5 << 20))
    seen.add(fingerprint(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    seen.add(fingerprint(tmp_path))
    (tmp_path / "config.json").rename(tmp_path / "config2.json")
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 4
    assert fingerprint(tmp_path) in seen


def test_hash_of_json_does_not_depend_on_key_order():
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1}) != sha256_json({"a": 1, "b": [3]})


def test_the_stamp_names_arguments_versions_and_host():
    stamp = run_stamp({"limit": 3, "path": Path("x")})
    assert stamp["arguments"] == {"limit": 3, "path": "x"}
    assert stamp["versions"]["python"] and stamp["versions"]["numpy"] == np.__version__
    assert all(stamp[k] for k in ("command", "host", "user", "platform", "time"))


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as told:
        write_json(tmp_path / "a.json", 2)
    assert told.value.filename == str(tmp_path)
    with pytest.raises(OSError, match="No space"):
        write_together(tmp_path, {"a.json": "3", "b.json": "4"})
    monkeypatch.undo()
    assert read_json(tmp_path / "a.json") == 1
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(("link", "words"), [(os.symlink, "is a link"), (os.link, "is a second name of another file")])
def test_a_lock_does_not_follow_a_link(tmp_path, link, words):
    (tmp_path / "precious").write_text("kept")
    link(tmp_path / "precious", tmp_path / "lock")
    with pytest.raises(BadInput, match=f"lock: {words}"), only_one(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_lock_is_held_by_one_and_ends_with_its_holder(tmp_path):
    with only_one(tmp_path / "lock") as first, only_one(tmp_path / "lock") as second:
        assert first and not second
        assert f"process {os.getpid()} since" in (tmp_path / "lock").read_text()
    with only_one(tmp_path / "lock") as again:
        assert again


def test_files_that_belong_together_are_all_written_or_none(tmp_path, monkeypatch):
    """The disk fills up at each of the three in turn."""
    texts = {name: name * 2 for name in "abc"}
    write_together(tmp_path, dict.fromkeys(texts, "before"))
    real = os.fsync
    for full_at in range(3):
        calls = iter(range(10))

        def fsync(fd, full_at=full_at, calls=calls):
            if next(calls) == full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
            write_together(tmp_path, texts)
        assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys(texts, "before")
    monkeypatch.setattr(os, "fsync", real)
    write_together(tmp_path, texts)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == texts
