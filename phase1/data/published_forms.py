"""Problems of sets of one's own, as raw records: written by hand, or in evalplus's or LiveCodeBench's published form.

Which form a line has is told by its fields. A form that cannot be judged as its authors judge it is refused, with a
reason that the report counts.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from typing import NoReturn

from phase1.contract.problems import wrong_in
from phase1.data.public_sets import (
    PublicData,
    Reader,
    Refused,
    Row,
    codecontests_record,
    humaneval_record,
    mbpp_record,
    raw_record,
)
from phase1.data.statements import is_interactive, with_rule

MOST_TESTS = 512 << 20  # bytes of a problem's private tests, unpacked
_PLATFORMS = {"atcoder": "AtCoder", "codeforces": "Codeforces", "leetcode": "LeetCode"}

# The comparison of evalplus's own files (tools/humaneval/to_original_fmt.py), against its reference solution.
_PLUS_TEST = """
import copy, json, math
_space = {{}}
exec({reference!r}, _space)
def _alike(out, wanted, atol):
    if out == wanted:
        return True
    if isinstance(wanted, (list, tuple)) and isinstance(out, (list, tuple)):
        return len(out) == len(wanted) and all(_alike(a, b, atol) for a, b in zip(out, wanted))
    if isinstance(wanted, float) or atol:
        return math.isclose(out, wanted, rel_tol=1e-07, abs_tol=atol or 1e-6)
    return False
def check(candidate):
    for given in json.loads({inputs!r}):
        wanted = _space[{entry!r}](*copy.deepcopy(given))
        assert _alike(candidate(*copy.deepcopy(given)), wanted, {atol!r})
"""
# HumanEval/32 has many right answers: a root, not that root.
_ROOT_TEST = """
import copy, json
def check(candidate):
    for given in json.loads({inputs!r}):
        x = candidate(*copy.deepcopy(given))
        assert abs(sum(c * x**i for i, c in enumerate(given[0]))) <= {atol!r}
"""


def own_reader(name: str) -> Reader:
    """The reader of a set of sets.toml."""
    return Reader(PublicData(name, None, f"source of [{name}] in sets.toml", name), own_record)


def own_record(row: Row) -> Row:
    """A line of an own set's file as a raw record.

    Raises:
        Refused: the problem cannot be judged.
        ValueError: the line is in none of the forms.
    """
    if "test_cases" in row:
        return _by_hand(row)
    if "question_content" in row:
        return _livecodebench(row)
    if "base_input" in row:
        return _evalplus(row)
    if "test_list" in row and "code" in row:
        return _mbpp_plus(row)
    if "entry_point" in row and "test" in row:
        return humaneval_record(row)
    raise ValueError("needs problem_id, prompt and test_cases; docs/01_data_preprocessing.md shows a line of each kind")


def _by_hand(row: Row) -> Row:
    cases, solution = row["test_cases"], row.get("canonical_solution")
    if not all(isinstance(row.get(key), str) and row[key] for key in ("problem_id", "prompt")):
        raise ValueError("problem_id and prompt must be texts that are not empty")
    if not isinstance(cases, dict):
        raise ValueError(f"test_cases is a {type(cases).__name__}, expected an object")
    if fault := wrong_in(cases):
        raise ValueError(fault)
    if not isinstance(solution, str | None):
        raise ValueError(f"canonical_solution is a {type(solution).__name__}, expected a text")
    if cases["type"] == "codecontests":
        return codecontests_record(row)
    return raw_record(row["problem_id"], row["prompt"], cases, solution)


# --------------------------------------------------------------------------------------------------------- evalplus
def _evalplus(row: Row) -> Row:
    """A line of HumanEvalPlus.jsonl, whose tests are inputs for the reference solution."""
    if str(row["task_id"]).lower().startswith("mbpp"):
        raise Refused("inputs whose tuples and sets the file does not hold; evalplus/mbppplus has them")
    inputs = json.dumps([*row["base_input"], *row["plus_input"]])
    entry, atol = row["entry_point"], row.get("atol") or 0
    if entry == "find_zero":
        code = _ROOT_TEST.format(inputs=inputs, atol=atol or 1e-4)
    else:
        reference = row["prompt"] + row["canonical_solution"]
        code = _PLUS_TEST.format(reference=reference, inputs=inputs, entry=entry, atol=atol)
    return humaneval_record({**row, "test": code})


def _mbpp_plus(row: Row) -> Row:
    """A row of evalplus/mbppplus: MBPP's asserts, and one program with all further inputs and outputs."""
    record = mbpp_record(row)
    if row.get("test"):
        record["test_cases"]["test_list"] = [*record["test_cases"]["test_list"], row["test"]]
    return record


# ---------------------------------------------------------------------------------------------------- LiveCodeBench
def _livecodebench(row: Row) -> Row:
    """A line of LiveCodeBench's files: stdin problems, named so that training records of the same problem are met."""
    tests = [*_tests(row["public_test_cases"]), *_tests(row["private_test_cases"])]
    if any(test["testtype"] != "stdin" for test in tests) or (row.get("starter_code") or "").strip():
        raise Refused("a function to complete in LeetCode's form, which the judge does not call")
    if not tests:
        raise Refused("no tests")
    prompt = row["question_content"]
    if is_interactive(prompt):
        raise Refused("an interactive statement, which no recorded output can judge")
    pairs = [{"input": test["input"], "output": test["output"]} for test in tests]
    platform = str(row["platform"]).lower()
    problem_id = f"{_PLATFORMS.get(platform, platform)}/{row['question_id']}"
    return raw_record(problem_id, prompt, with_rule({"type": "codecontests", "tests": pairs}, prompt))


def _tests(text: str) -> list[dict[str, str]]:
    """The tests in a field of LiveCodeBench: JSON, or JSON that was pickled as a text, packed and written in base64."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = json.loads(_unpacked(text))
    if not isinstance(found, list):
        raise ValueError(f"tests are a {type(found).__name__}, expected a list")
    return found


def _unpacked(text: str) -> str:
    """The text that a packed field holds. A pickle can call anything, so only one that is a plain text is read.

    Raises:
        ValueError: it is packed otherwise, too large, or holds something else.
    """
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(text, validate=True), MOST_TESTS)
        if not unpacker.eof:
            raise ValueError(f"tests are cut off, or larger than {MOST_TESTS >> 20} MiB")
        value = _TextAlone(io.BytesIO(data)).load()
    except (zlib.error, pickle.UnpicklingError, EOFError, IndexError, AttributeError, ImportError) as e:
        raise ValueError(f"tests are neither JSON nor a packed text ({e})") from None
    if not isinstance(value, str):
        raise ValueError(f"packed tests are a {type(value).__name__}, expected a text")
    return value


class _TextAlone(pickle.Unpickler):
    """Reads plain values and nothing that names a class, a function or a place."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only a text is read")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it names something outside, and only a text is read")
