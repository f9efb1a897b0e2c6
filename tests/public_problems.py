"""HumanEval, MBPP and the CodeContests sample as published, as problems of the toolkit; used by tests and
benchmarks."""

import gzip
import json
import re
from pathlib import Path

from phase1.contract.problems import Problem


def rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def humaneval(data: Path) -> list[Problem]:
    return [
        Problem(
            "humaneval",
            d["task_id"],
            d["prompt"],
            {"type": "humaneval", "test_code": d["test"], "entry_point": d["entry_point"]},
            d["canonical_solution"],
        )
        for d in rows(data / "HumanEval.jsonl.gz")
    ]


def mbpp(data: Path) -> list[Problem]:
    problems = []
    for d in rows(data / "mbpp.jsonl.gz"):
        tests = "\n".join(d["test_list"])
        entry = next(n for n in reversed(re.findall(r"def\s+(\w+)", d["code"])) if re.search(rf"\b{n}\s*\(", tests))
        cases = {
            "type": "mbpp",
            "test_list": d["test_list"],
            "test_setup_code": d["test_setup_code"],
            "entry_point": entry,
        }
        problems.append(Problem("mbpp", f"MBPP/{d['task_id']}", d["text"], cases, d["code"]))
    return problems


def codecontests(data: Path) -> list[Problem]:
    return [
        Problem("codecontests", d["problem_id"], d["prompt"], d["test_cases"])
        for d in rows(data / "codecontests_sample.jsonl.gz")
    ]
