"""prepare_sft_data.py on input and in places that are bad: one line that names file and fix, exit code 2, nothing
half-written."""

import errno
import gzip
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prepare_sft_data
from phase1.contract.state.sft_report import SftReport
from phase1.data import filters as bee_filters
from phase1.data.decontaminate import EvalIndex
from phase1.data.training_records import RECORD_BYTES, RawRecord, read_chunks
from phase1.files import BadInput
from tests.conftest import ROOT
from tests.data.prepared import prepare, record, run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no record"),
        (b"\n\n", "holds no record"),
        (b"\xff\xff" + os.urandom(4094), r"bee\.jsonl:1: 'utf-8' codec .* records are broken"),
        (json.dumps(record(1)).encode(), "1 of 1 records are left, a training and a validation row need two"),
    ],
    ids=["empty", "blank", "binary", "one line"],
)
def test_hopeless_input_is_refused_and_leaves_no_parquet(tmp_path, monkeypatch, content, message):
    with pytest.raises(BadInput, match=message):
        prepare(tmp_path, [content], monkeypatch=monkeypatch)
    assert {p.name for p in (tmp_path / "out").glob("*")} <= {"sft_rejects.jsonl"}


@pytest.mark.slow
def test_a_refused_run_keeps_the_rows_of_the_one_before(tmp_path, monkeypatch):
    prepare(tmp_path, [record(1), record(2)], monkeypatch=monkeypatch)
    before = (tmp_path / "out" / "sft_train.parquet").read_bytes()
    with pytest.raises(BadInput):
        prepare(tmp_path, [b"junk\n"], monkeypatch=monkeypatch)
    assert (tmp_path / "out" / "sft_train.parquet").read_bytes() == before
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["no.jsonl", "torn.jsonl.gz", "torn.parquet", "damaged.parquet"])
def test_a_missing_or_torn_file_is_named(tmp_path, monkeypatch, name):
    path = tmp_path / name
    if name != "no.jsonl":
        whole = gzip.compress(json.dumps(record(1)).encode() * 50)
        path.write_bytes(whole[:60])
    if name == "damaged.parquet":  # opens, and fails while its rows are read
        pq.write_table(pa.table({"text": [os.urandom(99).hex() for _ in range(2000)]}), path, use_dictionary=False)
        path.write_bytes(path.read_bytes()[:20000] + bytes(400) + path.read_bytes()[20400:])
    with pytest.raises(BadInput, match=name.replace(".", r"\.")):
        run(tmp_path / "out", [path], monkeypatch=monkeypatch)


def test_of_several_files_a_missing_one_is_named_before_the_first_record(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(record(1)))
    with pytest.raises(BadInput, match=r"b\.jsonl: no such file"):
        next(read_chunks([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]))


def test_a_parquet_row_that_is_no_utf8_is_one_reject(tmp_path, monkeypatch):
    binary = pa.array(
        [b"One statement of one problem.", b"Another \xff of another.", b"A third statement."], pa.binary()
    )
    table = pa.table({"prompt": pa.Array.from_buffers(pa.string(), 3, binary.buffers()), "solution": ["print(1)"] * 3})
    pq.write_table(table, tmp_path / "bee.parquet")
    made = run(tmp_path / "out", [tmp_path / "bee.parquet"], monkeypatch=monkeypatch)
    assert [(r["line"], r["reason"]) for r in made["rejects"]] == [(2, "parse_errors")] and "0xff" in made["rejects"][
        0
    ]["detail"]


@pytest.mark.parametrize(
    "flags",
    [
        "--containment 0",
        "--containment 1.5",
        "--near_duplicates 80",
        "--max_reject_ratio -1",
        "--val_ratio 1",
        "--keep 0",
        "--max_length 0",
        "--workers -1",
        "--verify_solutions --tests_raw no.jsonl",
    ],
)
def test_flags_out_of_range_are_refused_before_anything_is_read(tmp_path, monkeypatch, flags):
    with pytest.raises(BadInput, match=flags.split()[-1] if "raw" in flags else flags.split()[0]):
        prepare(tmp_path, [record(1), record(2)], *flags.split(), monkeypatch=monkeypatch)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_record(tmp_path, monkeypatch):
    """Some interpreters overflow their C stack on deep code; here compiling one solution kills the process for sure."""

    def deadly(code: str) -> str | None:
        if "die" in code:
            os.kill(os.getpid(), 9)
        return None

    monkeypatch.setattr(bee_filters, "python_fault", deadly)
    records = [record(i, "die = {i}" if i == 7 else "print({i})") for i in range(20)]
    made = prepare(tmp_path, records, monkeypatch=monkeypatch)
    assert [(r["line"], r["reason"], r["detail"]) for r in made["rejects"]] == [
        (8, "syntax_error", "it crashes the compiler")
    ]
    assert made["report"]["final_total"] == 19


def test_a_worker_that_dies_while_records_are_handed_out_costs_one_record(monkeypatch):
    """The pool then refuses more work at once: what was waiting, and what comes after, is done all the same."""
    submit, pools = bee_filters._submit, []

    def submit_to_a_broken_pool(pool, chunk):
        pools.append(pool)
        while pools[1:] and pool is pools[0] and not pool._broken:  # until it has noticed
            time.sleep(0.01)
        return submit(pool, chunk)

    def deadly(code: str) -> str | None:
        if "die" in code:
            os.kill(os.getpid(), 9)
        return None

    def chunks():
        for start in range(0, 12, 2):
            yield [
                RawRecord("bee.jsonl", i, json.dumps(record(i, "die = {i}" if i == 1 else "print({i})")).encode())
                for i in (start, start + 1)
            ]

    monkeypatch.setattr(bee_filters, "_submit", submit_to_a_broken_pool)
    monkeypatch.setattr(bee_filters, "python_fault", deadly)
    found = list(bee_filters.examine_all(chunks(), bee_filters.Filters(EvalIndex([])), workers=2))
    assert [(f.line, f.reason) for f in found] == [(i, "syntax_error" if i == 1 else "") for i in range(12)]


# ------------------------------------------------------------------------------------------- stopped, and two at a time
WAITING = (
    # A test run in the background of a shell has SIGINT ignored, and its children too.
    "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nsys.path.insert(0, {root!r})\n"
    "import prepare_sft_data\nfrom phase1.files import run_script\nread = prepare_sft_data.read_chunks\n"
    "def chunks(paths):\n    yield from read(paths)\n    print('waiting', flush=True)\n    time.sleep(1000)\n"
    "prepare_sft_data.read_chunks = chunks\nsys.argv[0] = 'prepare_sft_data.py'\nrun_script(prepare_sft_data.run)\n"
)


def children(pid: int) -> list[int]:
    return [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_worker_and_no_file_for_long(tmp_path, monkeypatch, number):
    source, out, script = tmp_path / "bee.jsonl", tmp_path / "out", tmp_path / "waiting.py"
    source.write_text("".join(json.dumps(record(i)) + "\n" for i in range(600)))
    script.write_text(WAITING.format(root=str(ROOT)))
    process = subprocess.Popen(
        [
            sys.executable,
            script,
            "--input_jsonl",
            source,
            "--output_dir",
            out,
            "--manifest_dir",
            tmp_path / "none",
            "--allow_missing_manifests",
            "--no_verl_check",
            "--workers",
            "2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "waiting\n"
    workers = children(process.pid)
    assert len(workers) == 2
    with pytest.raises(BadInput, match="out: another run writes there"):
        run(out, [source], monkeypatch=monkeypatch)
    ends = [os.pidfd_open(pid) for pid in workers]
    process.send_signal(number)
    _, said = process.communicate()
    assert (
        process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 1, signal.SIGKILL: -9}[number]
        and "Traceback" not in said
    ), said
    for end in ends:  # readable when the worker has ended; the time only keeps a broken run from hanging for ever
        assert select.select([end], [], [], 300)[0], "workers outlive the run"
        os.close(end)
    assert number == signal.SIGKILL or not out.exists()
    run(out, [source], monkeypatch=monkeypatch)
    assert {p.name for p in out.iterdir()} == set(prepare_sft_data.OUTPUTS)


@pytest.mark.slow
def test_where_one_file_cannot_be_written_all_of_the_run_before_stay(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    prepare(tmp_path, [record(1), record(2)], monkeypatch=monkeypatch)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    for owner, step in ((prepare_sft_data, "histogram"), (SftReport, "write")):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
            patched.setattr(owner, step, full)
            prepare(tmp_path, [record(3), record(4), record(5, "print 1")], monkeypatch=patched)
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


# ------------------------------------------------------------------------------------------------------ long records
@pytest.mark.slow
def test_a_line_of_100_mb_is_one_reject_and_never_in_memory(tmp_path, monkeypatch):
    source = tmp_path / "bee.jsonl"
    with open(source, "wb") as f:
        for part in (record(1), {"prompt": "x" * 100_000_000, "solution": "print(1)"}, record(2)):
            f.write(json.dumps(part).encode() + b"\n")
    made = run(tmp_path / "out", [source], monkeypatch=monkeypatch)
    assert [(r["line"], r["reason"]) for r in made["rejects"]] == [(2, "parse_errors")]
    assert made["rejects"][0]["detail"] == (
        f"{source.stat().st_size - 2 * len(json.dumps(record(1))) - 2:,} bytes; no record has more than "
        f"{RECORD_BYTES:,}"
    )
    assert made["report"]["final_total"] == 2
    assert (
        max(len(payload) for chunk in read_chunks([source]) for _, _, payload in chunk if isinstance(payload, bytes))
        < 1000
    )


def test_a_file_of_one_endless_line_is_refused(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="1 of 1 records are broken"):
        prepare(tmp_path, [b"[" * (RECORD_BYTES + 7)], monkeypatch=monkeypatch)


def test_ids_that_stand_twice_in_a_manifest_are_named_with_both_lines(tmp_path, monkeypatch):
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "codecontests_valid_manifest.jsonl").write_text('{"problem_id": "Codeforces/1/A"}\n' * 2)
    with pytest.raises(
        BadInput, match=r"codecontests_valid_manifest\.jsonl:2: problem_id 'Codeforces/1/A' stands already in line 1"
    ):
        prepare(
            tmp_path,
            [record(1), record(2)],
            "--manifest_dir",
            str(folder),
            "--allow_missing_manifests",
            monkeypatch=monkeypatch,
        )


def test_records_with_one_id_are_solutions_of_one_problem_and_all_stay(tmp_path, monkeypatch):
    made = prepare(
        tmp_path, [record(1, "print(1)"), record(1, "x = 1\nprint(x)"), record(1, "print(1)")], monkeypatch=monkeypatch
    )
    assert [(r["line"], r["reason"]) for r in made["rejects"]] == [(3, "exact_duplicate")]


# ------------------------------------------------------------------------------------ places that cannot be written
bwrap = pytest.mark.skipif(
    not shutil.which("bwrap"), reason="bubblewrap makes the bad places; apt-get install bubblewrap"
)


def inside(tmp_path: Path, place: list[str], records: list[dict]) -> subprocess.CompletedProcess:
    """Run the script in a mount namespace of its own in which `place` says what --output_dir is; root has no
    capabilities there, so permissions bind it as they bind everybody. What lies there afterwards is printed, a name a
    line."""
    source, out = tmp_path / "bee.jsonl", tmp_path / "out"
    source.write_text("".join(json.dumps(r) + "\n" for r in records))
    script = (
        'echo before >"$0/sft_train.parquet"; "$@" >/dev/null; code=$?; ls -A "$0"; cat "$0/sft_train.parquet"; '
        "exit $code"
    )
    return subprocess.run(
        [
            "bwrap",
            "--dev-bind",
            "/",
            "/",
            *place,
            "--cap-drop",
            "ALL",
            "--chdir",
            str(ROOT),
            "sh",
            "-c",
            script,
            out,
            sys.executable,
            ROOT / "prepare_sft_data.py",
            "--input_jsonl",
            source,
            "--output_dir",
            out,
            "--manifest_dir",
            tmp_path / "none",
            "--allow_missing_manifests",
            "--no_verl_check",
            "--workers",
            "2",
        ],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@bwrap
@pytest.mark.parametrize(
    ("kind", "message"), [("permission", "Permission denied"), ("read-only", "Read-only file system")]
)
def test_without_write_permission_the_directory_is_named(tmp_path, kind, message):
    out = tmp_path / "out"
    out.mkdir()
    (out / "sft_train.parquet").write_text("before\n")
    place = ["--ro-bind", str(out), str(out)] if kind == "read-only" else []
    out.chmod(0o555 if kind == "permission" else 0o755)
    done = inside(tmp_path, place, [record(1), record(2)])
    out.chmod(0o755)
    assert (
        done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"error: {out}/") and message in done.stderr
    ), done.stderr
    assert "Traceback" not in done.stderr and done.stdout == "sft_train.parquet\nbefore\n"


@pytest.mark.slow
@bwrap
@pytest.mark.parametrize("size", [200_000, 900_000])
def test_a_full_disk_is_told_and_leaves_the_files_of_the_run_before(tmp_path, size):
    """On a tmpfs too small for the texts (200 kB), and for the Parquet file beside them (900 kB)."""
    out = tmp_path / "out"
    out.mkdir()
    records = [record(i, f"x = '{os.urandom(1000).hex()}'\nprint(x)") for i in range(320)]
    done = inside(tmp_path, ["--size", str(size), "--tmpfs", str(out)], records)
    assert done.returncode == 2 and "No space left on device" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr and done.stdout == "sft_train.parquet\nbefore\n"
