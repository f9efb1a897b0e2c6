"""prepare_eval_data.py: public schemas in; manifests and raw files of contract 4 out, or one line and no file."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prepare_eval_data
from phase1.contract.problems import EVAL_SETS, load_problems, read_raw
from phase1.data import public_sets as eval_sources
from phase1.data.public_sets import codecontests_record
from phase1.files import BadInput, sha256_text
from tests import public_problems

ROOT = Path(__file__).resolve().parents[2]


DATA = ROOT.parent / "shared" / "data"


real_data = pytest.mark.skipif(not (DATA / "mbpp.jsonl.gz").exists(), reason=f"no public data sets in {DATA}")


def prepare(*args) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "prepare_eval_data.py", *map(str, args)], capture_output=True, text=True
    )


def written(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def public_row(contest: int, index: str = "A", statement: str | None = None, source: int = 2, tests: int = 2) -> dict:
    """A row in the schema of deepmind/code_contests."""
    group = {"input": [f"{i}\n" for i in range(tests)], "output": [f"{i * contest}\n" for i in range(tests)]}
    empty = {"input": [], "output": []}
    return {
        "name": f"{contest}_{index}. Times {contest}",
        "description": statement or f"Multiply by {contest} and {index}.",
        "public_tests": empty if tests == 0 else {k: v[:1] for k, v in group.items()},
        "private_tests": {k: v[1:] for k, v in group.items()},
        "generated_tests": empty,
        "source": source,
        "cf_contest_id": contest if source == 2 else 0,
        "cf_index": index if source == 2 else "",
        "time_limit": {"seconds": 2, "nanos": 500_000_000},
        "memory_limit_bytes": 256_000_000,
    }


def write_split(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def code_contests(tmp_path) -> Path:
    """A small CodeContests copy under the names of the Hugging Face files."""
    folder = tmp_path / "cc"
    train = [public_row(c, i) for c in range(1, 301) for i in "AB"]  # 600 Codeforces problems
    train += [public_row(c, source=1) for c in range(400, 420)]  # 20 of another judge
    train += [public_row(9001, statement="Multiply by 1 and A."), public_row(9002, tests=0)]
    write_split(folder / "data/train-00000-of-00002.parquet", train[:300])
    write_split(folder / "data/train-00001-of-00002.parquet", train[300:])
    write_split(folder / "data/valid-00000-of-00001.parquet", [public_row(1000 + i) for i in range(117)])
    write_split(folder / "data/test-00000-of-00001.parquet", [public_row(2000 + i) for i in range(165)])
    return folder


@pytest.mark.slow
@real_data
def test_real_humaneval_and_mbpp_have_the_contract_sizes_and_load(tmp_path):
    done = prepare(
        "--output_dir",
        tmp_path,
        "--datasets",
        "humaneval",
        "mbpp_reg",
        "--humaneval_file",
        DATA / "HumanEval.jsonl.gz",
        "--mbpp_file",
        DATA / "mbpp.jsonl.gz",
    )
    assert done.returncode == 0, done.stderr
    humaneval = load_problems(tmp_path / "manifests", "humaneval")
    mbpp = load_problems(tmp_path / "manifests", "mbpp_reg")
    assert len(humaneval) == 164 and len(mbpp) == 200
    assert [p.problem_id for p in mbpp] == [f"MBPP/{i}" for i in range(11, 211)]
    assert humaneval[0].prompt.startswith("from typing import List") and all(
        p.canonical_solution for p in humaneval + mbpp
    )
    report = json.loads((tmp_path / "eval_data_report.json").read_text())
    assert report["stamp"]["versions"]["python"] and report["datasets"]["mbpp_reg"]["tests"] == 600


@real_data
def test_every_problem_from_the_raw_files_is_judged_as_the_published_one_whose_reference_passes(tmp_path):
    """Program and tests are those of another reading of these files, all of whose references the judge's own tests run
    (test_every_published_reference_passes_and_what_fails_does_not)."""
    prepare(
        "--output_dir",
        tmp_path,
        "--datasets",
        "humaneval",
        "mbpp_reg",
        "--humaneval_file",
        DATA / "HumanEval.jsonl.gz",
        "--mbpp_file",
        DATA / "mbpp.jsonl.gz",
    )
    published = {p.problem_id: p for p in (*public_problems.humaneval(DATA), *public_problems.mbpp(DATA))}
    problems = [p for d in ("humaneval", "mbpp_reg") for p in load_problems(tmp_path / "manifests", d)]
    assert len(problems) == 364
    for p in problems:
        same = published[p.problem_id]
        assert p.program(p.canonical_solution) == same.program(same.canonical_solution)
        tests = {key: value for key, value in p.test_cases.items() if key != "example_call"}  # which the prompt shows
        assert tests == same.test_cases


# Written for this test: the published sample carries no solutions.
SOLUTIONS = {
    "Codeforces/1238/B": """
for _ in range(int(input())):
    n, r = map(int, input().split())
    xs = sorted(set(map(int, input().split())), reverse=True)
    print(sum(x - i * r > 0 for i, x in enumerate(xs)))
""",
    "Codeforces/1198/A": """
from collections import Counter
n, size = map(int, input().split())
counts = [c for _, c in sorted(Counter(input().split()).items(), key=lambda p: int(p[0]))]
width = min(len(counts), 2 ** min(8 * size // n, 20))
window = best = sum(counts[:width])
for i in range(width, len(counts)):
    window += counts[i] - counts[i - width]
    best = max(best, window)
print(n - best)
""",
    "Codechef/digjump": """
from collections import deque
s = input().strip()
same = {}
for i, c in enumerate(s):
    same.setdefault(c, []).append(i)
steps, queue = {0: 0}, deque([0])
while queue:
    i = queue.popleft()
    for j in (i - 1, i + 1, *same.pop(s[i], ())):
        if 0 <= j < len(s) and j not in steps:
            steps[j] = steps[i] + 1
            queue.append(j)
print(steps[len(s) - 1])
""",
}


@real_data
@pytest.mark.slow
def test_right_solutions_of_the_codecontests_sample_pass_and_wrong_ones_do_not(tmp_path):
    from phase1.judge.config import JudgeConfig
    from phase1.judge.judge import judge_all

    (tmp_path / "cc").mkdir()
    (tmp_path / "cc/valid.jsonl.gz").symlink_to(DATA / "codecontests_sample.jsonl.gz")
    prepare(
        "--output_dir",
        tmp_path,
        "--datasets",
        "codecontests_valid",
        "--code_contests_dir",
        tmp_path / "cc",
        "--allow_size_mismatch",
    )
    problems = {p.problem_id: p for p in load_problems(tmp_path / "manifests", "codecontests_valid")}
    items = [(i, code, problems[i].test_cases) for i, code in SOLUTIONS.items()]
    items.append(
        ("wrong", SOLUTIONS["Codeforces/1238/B"].replace("> 0", ">= 0"), problems["Codeforces/1238/B"].test_cases)
    )
    verdicts = dict(judge_all(items, JudgeConfig()))
    assert {i: (v.error_type, v.detail) for i, v in verdicts.items()} == dict.fromkeys(SOLUTIONS, ("success", "")) | {
        "wrong": ("wrong_answer", "")
    }


@pytest.mark.slow
@real_data
def test_the_codecontests_sample_goes_through_with_its_tests_unchanged(tmp_path):
    (tmp_path / "cc").mkdir()
    (tmp_path / "cc/valid.jsonl.gz").symlink_to(DATA / "codecontests_sample.jsonl.gz")
    done = prepare(
        "--output_dir",
        tmp_path / "out",
        "--datasets",
        "codecontests_valid",
        "--code_contests_dir",
        tmp_path / "cc",
        "--allow_size_mismatch",
    )
    assert done.returncode == 0, done.stderr
    before = read_raw(DATA / "codecontests_sample.jsonl.gz")
    after = {p.problem_id: p for p in load_problems(tmp_path / "out/manifests", "codecontests_valid")}
    assert {i: (p.prompt, p.test_cases["tests"]) for i, p in before.items()} == {
        i: (p.prompt, p.test_cases["tests"]) for i, p in after.items()
    }
    many = {i for i, p in after.items() if p.test_cases.get("answers") == "many"}
    assert many == {"Codeforces/1025/B", "Codeforces/1157/C2"}
    flagged = {
        r["problem_id"]
        for r in lines(tmp_path / "out/manifests/codecontests_valid_manifest.jsonl")
        if r.get("multi_answer")
    }
    assert flagged == {"Codeforces/1025/B", "Codeforces/1157/C2"}


@pytest.mark.slow
def test_five_hundred_are_drawn_from_codeforces_train_without_duplicates_or_untested(code_contests, tmp_path):
    sets = ["codecontests_valid", "codecontests_valid_big", "codecontests_test"]
    done = prepare("--output_dir", tmp_path / "a", "--datasets", *sets, "--code_contests_dir", code_contests)
    assert done.returncode == 0, done.stderr
    big = load_problems(tmp_path / "a/manifests", "codecontests_valid_big")
    assert len(big) == len({p.prompt for p in big}) == 500
    assert all(p.problem_id.startswith("Codeforces/") for p in big)
    tally = json.loads((tmp_path / "a/eval_data_report.json").read_text())["datasets"]["codecontests_valid_big"]
    assert tally["refused"] == {"no tests": ["Codeforces/9002/A"]} and tally["duplicates"] == ["Codeforces/9001/A"]
    first = big[0]
    contest = int(first.problem_id.split("/")[1])
    assert first.test_cases["tests"] == [{"input": "0\n", "output": "0\n"}, {"input": "1\n", "output": f"{contest}\n"}]
    assert set(first.test_cases) == {"type", "tests"}  # EVAL@1's limits, not the source's


@pytest.mark.slow
def test_the_draw_depends_on_the_seed_and_not_on_the_files(code_contests, tmp_path):
    def drawn(folder, seed):
        out = tmp_path / f"{folder.name}{seed}"
        done = prepare(
            "--output_dir", out, "--datasets", "codecontests_valid_big", "--code_contests_dir", folder, "--seed", seed
        )
        assert done.returncode == 0, done.stderr
        return [r["problem_id"] for r in lines(out / "manifests/codecontests_valid_big_manifest.jsonl")]

    other = tmp_path / "other"  # the same rows in another order and format, the same two left out
    rows = [row for p in sorted((code_contests / "data").glob("train*")) for row in pq.read_table(p).to_pylist()]
    write_split(other / "code_contests_train.jsonl", rows[599::-1] + rows[600:])
    assert drawn(code_contests, 42) == drawn(other, 42) != drawn(code_contests, 43)


@pytest.mark.slow
def test_a_problem_of_another_set_is_never_drawn(code_contests, tmp_path):
    rows = [
        public_row(1000 + i, statement=f"Multiply by {i + 1} and A.") for i in range(117)
    ]  # 117 statements of train
    write_split(code_contests / "data/valid-00000-of-00001.parquet", rows)
    done = prepare(
        "--output_dir",
        tmp_path / "o",
        "--datasets",
        "codecontests_valid_big",
        "codecontests_valid",
        "--code_contests_dir",
        code_contests,
        "--allow_size_mismatch",
    )
    assert done.returncode == 0, done.stderr
    valid = {sha256_text(p.prompt) for p in load_problems(tmp_path / "o/manifests", "codecontests_valid")}
    big = {sha256_text(p.prompt) for p in load_problems(tmp_path / "o/manifests", "codecontests_valid_big")}
    assert len(valid) == 117 and len(big) == 600 - 117 and not valid & big


def run_here(monkeypatch, *args) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_eval_data.py", *map(str, args)])
    prepare_eval_data.main()


def test_every_set_has_a_reader_and_one_without_is_refused_by_name(tmp_path, monkeypatch):
    assert list(eval_sources.READERS.keys() ^ EVAL_SETS.keys()) == []
    monkeypatch.setitem(EVAL_SETS, "livecodebench", replace(EVAL_SETS["humaneval"], name="livecodebench"))
    with pytest.raises(BadInput, match="livecodebench: no reader"):
        run_here(monkeypatch, "--output_dir", tmp_path / "out", "--datasets", "livecodebench")
    assert not (tmp_path / "out").exists()


def test_a_new_set_needs_its_line_in_the_registry_and_a_reader(tmp_path, monkeypatch):
    """A flag for its local copy comes with the reader."""
    data = eval_sources.PublicData("someone/sums", None, "--sums_file", "Sums")

    def record(row):
        tests = [{"input": row["a"], "output": row["b"]}]
        return eval_sources.raw_record(row["task_id"], row["text"], {"type": "codecontests", "tests": tests})

    monkeypatch.setitem(EVAL_SETS, "sums", replace(EVAL_SETS["humaneval"], name="sums", size=1))
    monkeypatch.setitem(eval_sources.READERS, "sums", eval_sources.Reader(data, record))
    rows = tmp_path / "sums.jsonl"
    rows.write_text(json.dumps({"task_id": "Sums/1", "text": "Add.", "a": "1 2", "b": "3"}) + "\n")
    run_here(monkeypatch, "--output_dir", tmp_path / "out", "--datasets", "sums", "--sums_file", rows)
    (problem,) = load_problems(tmp_path / "out" / "manifests", "sums")
    assert problem.test_cases == {"type": "codecontests", "tests": [{"input": "1 2", "output": "3"}]}


def test_a_test_type_that_the_judge_cannot_run_is_refused_by_name(tmp_path, monkeypatch):
    def record(row):
        return eval_sources.raw_record("X/1", "Add.", {"type": "unittest", "tests": ["…"]})

    reader = replace(eval_sources.READERS["humaneval"], record=record)
    monkeypatch.setitem(eval_sources.READERS, "humaneval", reader)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    flags = ("--datasets", "humaneval", "--humaneval_file", rows, "--allow_size_mismatch")
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: humaneval: test_cases\.type is 'unittest', and the judge"):
        run_here(monkeypatch, "--output_dir", tmp_path / "out", *flags)
    assert written(tmp_path / "out") == []


@pytest.mark.slow
def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    (tmp_path / "out/raw/.codecontests_test_raw.jsonl.x.tmp").mkdir(parents=True)
    write_split(tmp_path / "cc/test.jsonl", [public_row(1)])
    done = prepare(
        "--output_dir",
        tmp_path / "out",
        "--datasets",
        "codecontests_test",
        "--code_contests_dir",
        tmp_path / "cc",
        "--allow_size_mismatch",
    )
    assert done.returncode == 0 and [p.name for p in (tmp_path / "out/raw").iterdir()] == [
        "codecontests_test_raw.jsonl"
    ]


@pytest.mark.slow
def test_multi_answer_problems_leave_the_manifest_only_when_asked(tmp_path):
    rows = [public_row(i) for i in range(1, 4)] + [
        public_row(9, statement="If there are several answers, print any of them.")
    ]
    write_split(tmp_path / "cc/test.jsonl", rows)
    common = ["--datasets", "codecontests_test", "--code_contests_dir", tmp_path / "cc", "--allow_size_mismatch"]
    prepare("--output_dir", tmp_path / "kept", *common)
    prepare("--output_dir", tmp_path / "left", *common, "--exclude_multi_answer")
    assert [r.get("multi_answer") for r in lines(tmp_path / "kept/manifests/codecontests_test_manifest.jsonl")] == [
        None
    ] * 3 + [True]
    assert len(load_problems(tmp_path / "left/manifests", "codecontests_test")) == 3
    assert json.loads((tmp_path / "left/eval_data_report.json").read_text())["datasets"]["codecontests_test"][
        "excluded"
    ] == ["Codeforces/9/A"]


@pytest.mark.slow
def test_rules_are_written_where_they_can_be_corrected_and_interactive_problems_are_left_out(tmp_path):
    rows = [public_row(i) for i in range(1, 115)] + [
        public_row(200, statement="Print YES or NO. You can print each letter in any case."),
        public_row(201, statement="This is an interactive problem. Guess the number."),
        public_row(202, statement="An absolute error of at most 10^{-4}. If there are several answers, print any."),
    ]
    write_split(tmp_path / "cc/valid.jsonl", rows)
    common = ["--datasets", "codecontests_valid", "--code_contests_dir"]
    done = prepare("--output_dir", tmp_path / "made", *common, tmp_path / "cc")
    assert done.returncode == 0, done.stderr
    assert "116 problems" in done.stdout and "1 refused" in done.stdout and "2 have a rule" in done.stdout
    raw = tmp_path / "made/raw/codecontests_valid_raw.jsonl"
    told = {r["problem_id"]: {k: r["test_cases"].get(k) for k in ("compare", "answers")} for r in lines(raw)}
    assert told["Codeforces/1/A"] == {"compare": None, "answers": None}
    assert told["Codeforces/200/A"] == {"compare": {"case": "any"}, "answers": None}
    assert told["Codeforces/202/A"] == {"compare": {"tolerance": 1e-4}, "answers": "many"}
    report = json.loads((tmp_path / "made/eval_data_report.json").read_text())["datasets"]["codecontests_valid"]
    assert report["refused"] == {eval_sources.INTERACTIVE: ["Codeforces/201/A"]}
    assert report["rules"] == {"case any": ["Codeforces/200/A"], "tolerance 0.0001, answers many": ["Codeforces/202/A"]}
    corrected = [r | {"test_cases": r["test_cases"] | {"compare": {}}} for r in lines(raw)]
    write_split(tmp_path / "again/valid.jsonl", corrected)
    again = prepare("--output_dir", tmp_path / "kept", *common, tmp_path / "again", "--allow_size_mismatch")
    assert again.returncode == 0, again.stderr
    kept = lines(tmp_path / "kept/raw/codecontests_valid_raw.jsonl")
    assert [r["test_cases"]["compare"] for r in kept] == [{}] * 116


@pytest.mark.slow
def test_a_drawn_set_has_other_problems_in_the_place_of_interactive_ones(code_contests, tmp_path):
    more = [
        public_row(9100 + i, statement=f"Interactive problem {i}: this is an interactive problem.") for i in range(3)
    ]
    write_split(code_contests / "data/train-00002-of-00003.parquet", more)
    common = ["--datasets", "codecontests_valid_big", "--code_contests_dir", code_contests]
    done = prepare("--output_dir", tmp_path / "out", *common)
    assert done.returncode == 0, done.stderr
    ids = [r["problem_id"] for r in lines(tmp_path / "out/manifests/codecontests_valid_big_manifest.jsonl")]
    assert len(ids) == 500 and not any(i.startswith("Codeforces/910") for i in ids)
    report = json.loads((tmp_path / "out/eval_data_report.json").read_text())["datasets"]["codecontests_valid_big"]
    assert len(report["refused"][eval_sources.INTERACTIVE]) == 3


def test_the_data_sets_library_gives_what_the_files_give(code_contests, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    reader = eval_sources.READERS["codecontests_valid"]
    hub = replace(reader, data=replace(reader.data, repository=str(code_contests)))
    found = [codecontests_record(row) for _, row in hub.rows(None)]
    assert found == [codecontests_record(row) for _, row in reader.rows(code_contests)] and len(found) == 117


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        (lambda d: write_split(d / "valid.jsonl", [public_row(1)]), "contract says 117"),
        (lambda d: write_split(d / "mixed.jsonl", [public_row(1)]), "tells no split"),
        (lambda d: write_split(d / "train.jsonl", [public_row(1)]), "no valid file"),
        (
            lambda d: write_split(d / "valid.jsonl", [{"name": "x"}]),
            "valid.jsonl:1: not in the public schema (KeyError: 'description')",
        ),
        (lambda d: (d / "valid.parquet").write_bytes(b"PAR1 torn"), "not a whole Parquet file"),
        (lambda d: (d / "valid.jsonl").write_text("{torn\n"), "valid.jsonl:1: not a JSON object"),
        (lambda d: (d / "valid.jsonl").write_text(""), "holds no problem of codecontests_valid"),
        (lambda d: (d / "valid.jsonl.gz").write_bytes(b"not gzip"), "not a whole gzip"),
        (lambda d: d.joinpath("notes.txt").write_text("x"), "holds no .parquet"),
        (
            lambda d: write_split(
                d / "valid.jsonl", [public_row(7), public_row(7, "B", statement="Multiply by 7 and A.")]
            ),
            "1 duplicates",
        ),
        (
            lambda d: write_split(d / "valid.jsonl", [public_row(7), public_row(8, tests=0)]),
            "1 with no tests (first Codeforces/8/A)",
        ),
        (
            lambda d: write_split(d / "valid.jsonl", [public_row(7), public_row(7, statement="Another.")]),
            "an id that stood before",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, setup, expected):
    (tmp_path / "cc").mkdir()
    setup(tmp_path / "cc")
    done = prepare(
        "--output_dir", tmp_path / "out", "--datasets", "codecontests_valid", "--code_contests_dir", tmp_path / "cc"
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert not (tmp_path / "out").exists() or written(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap makes the small disk; apt-get install bubblewrap")
def test_a_full_disk_is_told_and_nothing_is_written(code_contests, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    command = [
        sys.executable,
        ROOT / "prepare_eval_data.py",
        "--output_dir",
        out,
        "--datasets",
        "codecontests_valid",
        "--code_contests_dir",
        code_contests,
    ]
    script = '"$@"; code=$?; find "$0" -type f; exit $code'
    done = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", "--size", "20000", "--tmpfs", out, "sh", "-c", script, out, *command],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(
        r"error: \S.*No space left on device; make room, or give another --output_dir; nothing was replaced\n",
        done.stderr,
    ), done.stderr


@pytest.mark.slow
def test_a_bad_second_set_leaves_the_first_set_of_an_earlier_run_untouched(code_contests, tmp_path):
    common = ["--output_dir", tmp_path / "out", "--code_contests_dir", code_contests]
    assert prepare(*common, "--datasets", "codecontests_valid").returncode == 0
    before = {p: (tmp_path / "out" / p).read_bytes() for p in written(tmp_path / "out")}
    (code_contests / "data/test-00000-of-00001.parquet").write_bytes(b"torn")
    write_split(code_contests / "data/valid-00000-of-00001.parquet", [public_row(3000 + i) for i in range(117)])
    assert prepare(*common, "--datasets", "codecontests_valid", "codecontests_test").returncode == 2
    assert {p: (tmp_path / "out" / p).read_bytes() for p in written(tmp_path / "out")} == before
