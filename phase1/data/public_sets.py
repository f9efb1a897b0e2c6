"""Public data sets -> raw records of contract 4: CodeContests, HumanEval and MBPP in their published schemas.

Local copies (.parquet, .jsonl, .jsonl.gz) and the Hugging Face data sets give the same rows; `rows_of` reads either,
and one function a schema turns a row into a record, or says why it cannot be judged (`Refused`).
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from phase1.data.reading import whole_parquet
from phase1.files import BadInput, read_jsonl, sha256_text

# Hugging Face repository and configuration, read when no local copy is given.
HUB = {
    "codecontests": ("deepmind/code_contests", None),
    "humaneval": ("openai/openai_humaneval", None),
    "mbpp": ("google-research-datasets/mbpp", "full"),
}

# The `source` enum of CodeContests' contest_problem.proto. 5 is reserved there, but its card on Hugging Face says 5
# AtCoder, 6 Aizu.
SOURCES = {1: "Codechef", 2: "Codeforces", 3: "HackerEarth", 4: "CodeJam", 5: "AtCoder", 6: "AtCoder", 7: "Aizu"}
TEST_KINDS = ("public", "private", "generated")

_SPLIT = re.compile(r"(?<![a-z])(train|valid|test)(?:ation)?(?![a-z])", re.IGNORECASE)
_CODEFORCES_NAME = re.compile(r"\s*(\d+)_([A-Za-z]\d*)\s*\.")
# Statements that several outputs satisfy: comparing with the one recorded output calls right answers wrong.
_MULTI_ANSWER = re.compile(
    r"(?:if|when|in case)\s+there\s+(?:are|is|exist|exists)\s+(?:several|multiple|many|more\s+than\s+one)"
    r"[^.]{0,80}?(?:print|output|find|choose|you\s+(?:can|may))\s+any"
    r"|(?:print|output|find|return|choose)\s+any\s+(?:one\s+)?of\s+(?:them|these|the)"
    r"|(?:can|may)\s+(?:print|output|choose|find)\s+any(?!\s+(?:letter|number\s+of))"
    r"|any\s+(?:valid|correct|suitable|possible|such|of\s+the\s+possible)\s+(?:answer|solution|sequence|output)s?"
    r"(?:\s+(?:is|are|will\s+be|would\s+be))?\s*(?:accepted|allowed|acceptable|\.)",
    re.IGNORECASE,
)


class Refused(Exception):
    """A problem that cannot be judged; the message is the reason that the report counts."""


# ---------------------------------------------------------------------------------------------------------- reading
def rows_of(path: Path, columns: list[str] | None = None) -> Iterator[tuple[str, dict]]:
    """Yield ("file:line", row) of a .parquet, .jsonl or .jsonl.gz; of Parquet only `columns`, where the file has
    them."""
    if path.suffix != ".parquet":
        for number, row in read_jsonl(path):
            yield f"{path}:{number}", row
        return
    import pyarrow.parquet as pq

    number = 0
    with whole_parquet(path), pq.ParquetFile(path) as file:
        present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=32, columns=present):  # a row may hold megabytes of tests
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row


def split_files(source: Path) -> dict[str, list[Path]]:
    """The files of a local CodeContests copy by split, which the path below `source` must name (train, valid, test).

    A single file may be given too. BadInput when nothing is there or a name tells no split.
    """
    if not source.exists():
        raise BadInput(f"{source}: no such file or directory")
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


def hub_rows(family: str, split: str | None, columns: list[str] | None = None) -> Iterator[tuple[str, dict]]:
    """Rows of a public data set through `datasets` (downloaded once, then cached); `split` None reads every split."""
    import datasets

    repository, config = HUB[family]
    try:
        loaded = datasets.load_dataset(repository, config, split=split)
    except Exception as e:  # no network, no such split, a damaged cache: `datasets` raises a dozen types for them
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        flag = "--code_contests_dir" if family == "codecontests" else f"--{family}_file"
        raise BadInput(f"{repository}: cannot be loaded ({reason}); download it and give {flag}") from None
    for name, table in {split: loaded}.items() if split else loaded.items():
        kept = table.select_columns([c for c in columns if c in table.column_names]) if columns else table
        for number, row in enumerate(kept, 1):
            yield f"{repository}:{name}:{number}", row


# ------------------------------------------------------------------------------------------------------ raw records
def record(problem_id: str, prompt: str, test_cases: dict, solution: str | None = None) -> dict:
    """A line of a raw file. Refused for a blank statement."""
    if not prompt.strip():
        raise Refused("no statement")
    row = {"problem_id": problem_id, "prompt": prompt, "test_cases": test_cases, "prompt_sha256": sha256_text(prompt)}
    return row if solution is None else row | {"canonical_solution": solution}


def accepts_any_answer(statement: str) -> bool:
    """Whether a statement says that any of several answers is right (an estimate: it reads phrases, not meaning)."""
    return bool(_MULTI_ANSWER.search(statement))


def codecontests_id(row: dict) -> str:
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


def codecontests_record(row: dict, kinds: Iterable[str] = TEST_KINDS, limits: bool = False) -> dict:
    """A CodeContests row, or one already in the form of a raw file, as a raw record. Refused without tests.

    `limits` carries the problem's own time and memory limit over, which then go before EVAL@1's 30 s and 1024 MB; they
    were set for compiled languages.
    """
    if isinstance(row.get("test_cases"), dict):
        if not row["test_cases"].get("tests"):
            raise Refused("no tests")
        return record(row["problem_id"], row["prompt"], row["test_cases"], row.get("canonical_solution"))
    prompt, tests = row["description"], []
    for kind in kinds:
        group = row[f"{kind}_tests"] or {}
        tests += [
            {"input": i, "output": o} for i, o in zip(group.get("input") or (), group.get("output") or (), strict=True)
        ]
    if not tests:
        raise Refused("no tests")
    cases: dict = {"type": "codecontests", "tests": tests}
    limit = (limits and row.get("time_limit")) or {}
    if seconds := (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9:
        cases["time_limit"] = seconds
    if limits and row.get("memory_limit_bytes"):
        cases["memory_limit_mb"] = row["memory_limit_bytes"] // 1_000_000
    return record(codecontests_id(row), prompt, cases)


def humaneval_record(row: dict) -> dict:
    """An openai_humaneval row as a raw record."""
    if not (row.get("test") or "").strip():
        raise Refused("no tests")
    cases = {"type": "humaneval", "test_code": row["test"], "entry_point": row["entry_point"]}
    return record(row["task_id"], row["prompt"], cases, row["canonical_solution"])


def mbpp_record(row: dict) -> dict:
    """An MBPP row (full or sanitized) as a raw record, `MBPP/11`."""
    if not row.get("test_list"):
        raise Refused("no tests")
    call = tested_call(row["test_list"], row["code"])
    setup = "\n".join([*(row.get("test_imports") or ()), row.get("test_setup_code") or ""]).strip("\n")
    cases = {
        "type": "mbpp",
        "test_list": list(row["test_list"]),
        "test_setup_code": setup,
        "entry_point": call[0],
        "example_call": call[1],
    }
    return record(f"MBPP/{row['task_id']}", row.get("text") or row.get("prompt") or "", cases, row["code"])


def tested_call(tests: list[str], solution: str) -> tuple[str, str]:
    """(function name, source of the call) of the first assert: `("f", "f(1)")` for `assert set(f(1)) == {2}`.

    The outermost call of a name that the reference solution defines at its top level; where it defines none of them,
    the outermost that is no builtin. Refused when the first test holds no such call.
    """
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # "\\d" in a plain string is a warning, and a dozen tasks have it
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
    return name, ast.get_source_segment(tests[0], call) or ast.unparse(call)
