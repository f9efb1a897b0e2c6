"""The evaluation sets out of public data sets: which rows each set takes, and how a row becomes a raw record.

To add a set, name it in `EVAL_SETS` (phase1/contract/problems.py) and give it a reader in `READERS` here, with a
function that turns a row of its published schema into a record (contract 4) or says why it cannot be judged
(`Refused`). Local copies (.parquet, .jsonl, .jsonl.gz) and Hugging Face give the same rows.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.data.statements import is_interactive, with_rule
from phase1.data.training_records import whole_parquet
from phase1.files import BadInput, read_jsonl, sha256_text

Row = dict[str, JsonValue]  # of a public data set, or a line of a raw file

# The `source` enum of CodeContests' contest_problem.proto. 5 is reserved there, but its card on Hugging Face says 5
# AtCoder, 6 Aizu.
SOURCES = {1: "Codechef", 2: "Codeforces", 3: "HackerEarth", 4: "CodeJam", 5: "AtCoder", 6: "AtCoder", 7: "Aizu"}
TEST_KINDS = ("public", "private", "generated")  # of CodeContests; all are taken
INTERACTIVE = "an interactive statement, which no recorded output can judge"  # why a problem is refused
MBPP_REG_IDS = range(11, 211)  # contract 4

_SPLIT = re.compile(r"(?<![a-z])(train|valid|test)(?:ation)?(?![a-z])", re.IGNORECASE)
_CODEFORCES_NAME = re.compile(r"\s*(\d+)_([A-Za-z]\d*)\s*\.")


class Refused(Exception):
    """A problem that cannot be judged; the message is the reason that the report counts."""


class Located(NamedTuple):
    """A row and where it stands, such as "file:line"."""

    where: str
    row: Row


@dataclass(frozen=True)
class PublicData:
    """A published data set: its place on Hugging Face, and the flag of prepare_eval_data.py that names a local copy.

    Where `copy_is_directory`, a local copy is several files whose names tell the split. `columns`: those that are read
    of it, None for all.
    """

    repository: str
    config: str | None
    flag: str
    name: str
    copy_is_directory: bool = False
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Reader:
    """How an evaluation set is made of a public data set.

    Attributes:
        data: the public data set.
        record: a row of it as a raw record; raises Refused for one that cannot be judged, and KeyError, TypeError,
            ValueError or AttributeError for one that is not in the published schema.
        split: the part of the data set to read; None for all of it.
        belongs: which rows of that part are candidates.
        drawn: the set is a random sample of the candidates, without the problems of other sets of the same data.
    """

    data: PublicData
    record: Callable[[Row], Row]
    split: str | None = None
    belongs: Callable[[Row], bool] = lambda row: True
    drawn: bool = False

    def source(self, copy: Path | None) -> str:
        """The local copy or the Hugging Face repository, for messages."""
        return str(copy or self.data.repository)

    def rows(self, copy: Path | None) -> Iterator[Located]:
        """The candidates, from a local copy or else from Hugging Face.

        Raises:
            BadInput: a file is missing or damaged, or the split is not there.
        """
        for found in self._all_rows(copy):
            if self.belongs(found.row):
                yield found

    def _all_rows(self, copy: Path | None) -> Iterator[Located]:
        if copy is None:
            yield from hub_rows(self.data, self.split)
            return
        paths = [copy]
        if self.data.copy_is_directory and self.split:
            paths = split_files(copy).get(self.split, [])
            if not paths:
                raise BadInput(
                    f"{copy}: no {self.split} file; add it, or leave out with --datasets the sets made of it"
                )
        # A copy may be in the form of a raw file already.
        columns = self.data.columns and (*self.data.columns, *RAW_COLUMNS)
        for path in paths:
            yield from rows_of(path, columns)


# ---------------------------------------------------------------------------------------------------------- reading
def rows_of(path: Path, columns: Sequence[str] | None = None) -> Iterator[Located]:
    """The rows of a .parquet, .jsonl or .jsonl.gz file; of Parquet only `columns`, as far as the file has them.

    Raises:
        BadInput: the file is missing or damaged, or a line is no JSON object.
    """
    if path.suffix != ".parquet":
        for number, row in read_jsonl(path):
            yield Located(f"{path}:{number}", row)
        return
    import pyarrow.parquet as pq

    number = 0
    with whole_parquet(path), pq.ParquetFile(path) as file:
        present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=32, columns=present):  # a row may hold megabytes of tests
            for row in batch.to_pylist():
                number += 1
                yield Located(f"{path}:{number}", row)


def split_files(source: Path) -> dict[str, list[Path]]:
    """The files of a local copy by split (train, valid, test), which the path of each below `source` must name.

    `source` may be a single file.

    Raises:
        BadInput: nothing is there, or a name tells no split.
    """
    if not source.exists():
        raise BadInput(
            f"{source}: no such file or directory; correct the path, or leave the flag out to download the data set"
        )
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    files = [p for p in files if p.name.endswith((".parquet", ".jsonl", ".jsonl.gz"))]
    splits: dict[str, list[Path]] = {}
    for path in files:
        named = _SPLIT.findall(path.name if path == source else str(path.relative_to(source)))
        if not named:
            raise BadInput(f"{path}: the name tells no split; call it train…, valid… or test…")
        splits.setdefault(named[-1].lower(), []).append(path)
    if not splits:
        raise BadInput(f"{source}: holds no .parquet, .jsonl or .jsonl.gz file")
    return splits


def hub_rows(data: PublicData, split: str | None) -> Iterator[Located]:
    """Rows of a public data set through `datasets` (downloaded once, then cached); `split` None reads every split.

    Raises:
        BadInput: it cannot be loaded.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(data.repository, data.config, split=split)
    except Exception as e:  # no network, no such split, a damaged cache: `datasets` raises a dozen types for them
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise BadInput(f"{data.repository}: cannot be loaded ({reason}); download it and give {data.flag}") from None
    for name, table in {split: loaded}.items() if split else loaded.items():
        kept = table
        if data.columns:
            kept = table.select_columns([c for c in data.columns if c in table.column_names])
        for number, row in enumerate(kept, 1):
            yield Located(f"{data.repository}:{name}:{number}", row)


# ------------------------------------------------------------------------------------------------------ raw records
def raw_record(problem_id: str, prompt: str, test_cases: Row, solution: str | None = None) -> Row:
    """A line of a raw file.

    Raises:
        Refused: the statement is blank.
    """
    if not prompt.strip():
        raise Refused("no statement")
    row: Row = {
        "problem_id": problem_id,
        "prompt": prompt,
        "test_cases": test_cases,
        "prompt_sha256": sha256_text(prompt),
    }
    return row if solution is None else row | {"canonical_solution": solution}


def codecontests_id(row: Row) -> str:
    """`Codeforces/1575/G` from cf_contest_id and cf_index or the name `1575_G. …`; elsewhere `Codechef/digjump`."""
    source = row.get("source")
    name = str(row.get("name") or "").strip()
    judge = source.capitalize() if isinstance(source, str) else SOURCES.get(source or 0, "Unknown")
    if judge != "Codeforces":
        return f"{judge}/{name}"
    if row.get("cf_contest_id") and row.get("cf_index"):
        return f"Codeforces/{row['cf_contest_id']}/{row['cf_index']}"
    match = _CODEFORCES_NAME.match(name)
    return f"Codeforces/{match[1]}/{match[2].upper()}" if match else f"Codeforces/{name}"


def row_id(row: Row) -> str:
    """The id of a row in any of the schemas, as far as it can be told."""
    return str(row.get("problem_id") or row.get("task_id") or codecontests_id(row))


def codecontests_record(row: Row) -> Row:
    """A CodeContests row, or one already in the form of a raw file, as a raw record.

    Its own time and memory limits, which were set for compiled languages, are left out: EVAL@1's hold. What the
    statement tells of its answers is put beside the tests.

    Raises:
        Refused: it has no tests, or is interactive.
    """
    cases = row.get("test_cases")
    if isinstance(cases, dict):
        if not cases.get("tests"):
            raise Refused("no tests")
        _refuse_interactive(row["prompt"])
        return raw_record(
            row["problem_id"], row["prompt"], with_rule(cases, row["prompt"]), row.get("canonical_solution")
        )
    prompt = row["description"]
    tests = []
    for kind in TEST_KINDS:
        group = row[f"{kind}_tests"] or {}
        pairs = zip(group.get("input") or (), group.get("output") or (), strict=True)
        tests += [{"input": given, "output": wanted} for given, wanted in pairs]
    if not tests:
        raise Refused("no tests")
    _refuse_interactive(prompt)
    return raw_record(codecontests_id(row), prompt, with_rule({"type": "codecontests", "tests": tests}, prompt))


def _refuse_interactive(statement: str) -> None:
    if is_interactive(statement):
        raise Refused(INTERACTIVE)


def humaneval_record(row: Row) -> Row:
    """An openai_humaneval row as a raw record.

    Raises:
        Refused: it has no tests.
    """
    if not (row.get("test") or "").strip():
        raise Refused("no tests")
    cases: Row = {"type": "humaneval", "test_code": row["test"], "entry_point": row["entry_point"]}
    return raw_record(row["task_id"], row["prompt"], cases, row["canonical_solution"])


def mbpp_record(row: Row) -> Row:
    """An MBPP row (full or sanitized) as a raw record, `MBPP/11`.

    Raises:
        Refused: it has no tests, or its first test calls no function.
    """
    if not row.get("test_list"):
        raise Refused("no tests")
    call = tested_call(row["test_list"], row["code"])
    setup = "\n".join([*(row.get("test_imports") or ()), row.get("test_setup_code") or ""]).strip("\n")
    cases: Row = {
        "type": "mbpp",
        "test_list": list(row["test_list"]),
        "test_setup_code": setup,
        "entry_point": call.function,
        "example_call": call.source,
    }
    return raw_record(f"MBPP/{row['task_id']}", row.get("text") or row.get("prompt") or "", cases, row["code"])


class TestedCall(NamedTuple):
    """A call in a test: the function's name, and the call as it is written."""

    function: str
    source: str


def tested_call(tests: Sequence[str], solution: str) -> TestedCall:
    """What the first assert calls: ("f", "f(1)") for `assert set(f(1)) == {2}`.

    It is the outermost call of a name that the reference solution defines at its top level; where it defines none of
    them, the outermost that is no builtin.

    Raises:
        Refused: the first test holds no such call, or does not parse.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # "\\d" in a plain string, which a dozen tasks have, warns
            first = ast.parse(tests[0])
            body = ast.parse(solution).body
    except SyntaxError as e:
        raise Refused(f"test or solution does not parse ({e.msg})") from None
    defined = {n.name for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    defined |= {t.id for n in body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    # ast.walk goes level by level, so an outer call comes before the calls in its arguments.
    calls = [(n.func.id, n) for n in ast.walk(first) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    known = [c for c in calls if c[0] in defined] or [c for c in calls if not hasattr(builtins, c[0])]
    if not known:
        raise Refused("no call to test in the first assert")
    name, call = known[0]
    return TestedCall(name, ast.get_source_segment(tests[0], call) or ast.unparse(call))


# ---------------------------------------------------------------------------------------------------------- the sets
RAW_COLUMNS = ("problem_id", "prompt", "test_cases", "canonical_solution")
# What tells a CodeContests problem apart and what its tests are; its solutions are many times as large.
CODECONTESTS_COLUMNS = (
    "name",
    "description",
    "source",
    "cf_contest_id",
    "cf_index",
    *(f"{kind}_tests" for kind in TEST_KINDS),
)
CODECONTESTS = PublicData(
    "deepmind/code_contests",
    None,
    "--code_contests_dir",
    "CodeContests",
    copy_is_directory=True,
    columns=CODECONTESTS_COLUMNS,
)
HUMANEVAL = PublicData("openai/openai_humaneval", None, "--humaneval_file", "HumanEval")
MBPP = PublicData("google-research-datasets/mbpp", "full", "--mbpp_file", "MBPP")


def _is_codeforces(row: Row) -> bool:
    return row_id(row).startswith("Codeforces/")


def _is_mbpp_reg(row: Row) -> bool:
    return row.get("task_id") in MBPP_REG_IDS


READERS = {
    "codecontests_valid": Reader(CODECONTESTS, codecontests_record, "valid"),
    "codecontests_test": Reader(CODECONTESTS, codecontests_record, "test"),
    "codecontests_valid_big": Reader(CODECONTESTS, codecontests_record, "train", belongs=_is_codeforces, drawn=True),
    "humaneval": Reader(HUMANEVAL, humaneval_record),
    "mbpp_reg": Reader(MBPP, mbpp_record, belongs=_is_mbpp_reg),
}


def reader_of(dataset: str) -> Reader:
    """The reader of an evaluation set.

    Raises:
        BadInput: it has none.
    """
    if dataset not in READERS:
        raise BadInput(f"{dataset}: no reader; add one to READERS in phase1/data/public_sets.py")
    return READERS[dataset]


def public_data() -> Iterable[PublicData]:
    """The public data sets that the sets are made of, each once."""
    return dict.fromkeys(reader.data for reader in READERS.values())
