"""Build the manifests and raw files of the five evaluation sets, from the public data sets or from local copies.

    python prepare_eval_data.py --output_dir data
    python prepare_eval_data.py --output_dir data --humaneval_file HumanEval.jsonl.gz --mbpp_file mbpp.jsonl.gz \
        --code_contests_dir code_contests/
    python prepare_eval_data.py --output_dir data --datasets humaneval mbpp_reg --humaneval_file H --mbpp_file M

Writes OUTPUT/manifests/{dataset}_manifest.jsonl, OUTPUT/raw/{dataset}_raw.jsonl and OUTPUT/eval_data_report.json:
all of them or, on any error, none. Without a local copy the data sets come from Hugging Face (a download of 7.6 GB
for CodeContests, whose train split is read only for codecontests_valid_big).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from phase1.contract.problems import EVAL_SETS
from phase1.data import public_sets as sources
from phase1.data.output_folder import full_disk_told, only_writer
from phase1.files import (
    BadInput,
    replacing,
    run_script,
    run_stamp,
    sha256_file,
    write_json,
)

HERE = Path(__file__).resolve().parent
MBPP_REG_IDS = range(11, 211)  # contract 4
SPLITS = {"codecontests_valid": "valid", "codecontests_test": "test", "codecontests_valid_big": "train"}
# What tells a CodeContests problem apart and whether it can be drawn, without loading its solutions.
CODECONTESTS_COLUMNS = [
    "name",
    "description",
    "source",
    "cf_contest_id",
    "cf_index",
    "time_limit",
    "memory_limit_bytes",
    "public_tests",
    "private_tests",
    "generated_tests",
]
RAW_COLUMNS = ["problem_id", "prompt", "test_cases", "canonical_solution"]  # of a local copy already in raw form


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # where from and where to
    p.add_argument(
        "--output_dir",
        type=Path,
        default=HERE / "data",
        help="manifests/ and raw/ are written below it (default: data)",
    )
    p.add_argument(
        "--datasets",
        nargs="+",
        default=list(EVAL_SETS),
        choices=list(EVAL_SETS),
        metavar="SET",
        help=f"sets to build (default: all of {', '.join(EVAL_SETS)})",
    )
    p.add_argument("--humaneval_file", help="HumanEval as .jsonl, .jsonl.gz or .parquet (default: Hugging Face)")
    p.add_argument("--mbpp_file", help="MBPP as .jsonl, .jsonl.gz or .parquet (default: Hugging Face)")
    p.add_argument(
        "--code_contests_dir",
        help="CodeContests as .parquet, .jsonl or .jsonl.gz files whose names tell "
        "the split, train, valid or test (default: Hugging Face)",
    )
    # which problems and tests
    p.add_argument("--seed", type=int, default=42, help="of the draw of codecontests_valid_big (default: 42)")
    p.add_argument(
        "--test_kinds",
        nargs="+",
        default=list(sources.TEST_KINDS),
        choices=sources.TEST_KINDS,
        help="CodeContests tests to keep (default: all three)",
    )
    p.add_argument(
        "--source_limits",
        action="store_true",
        help="keep each CodeContests problem's own time and memory limit, which "
        "then replaces EVAL@1's 30 s and 1024 MB (default: leave them out)",
    )
    p.add_argument(
        "--exclude_multi_answer",
        action="store_true",
        help="leave problems whose statement accepts any of "
        "several answers out of the manifests; they are counted and flagged in any case",
    )
    p.add_argument(
        "--allow_size_mismatch", action="store_true", help="write a set whose size differs from the contract's"
    )
    return p.parse_args()


@dataclass
class Tally:
    """What became of the rows of one set."""

    rows: int = 0
    duplicates: list[str] = field(default_factory=list)  # ids left out, their prompt_sha256 seen before
    refused: dict[str, list[str]] = field(default_factory=dict)  # reason -> ids
    multi_answer: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)  # multi-answer problems kept out of the manifest
    problems: int = 0
    tests: int = 0


def main() -> None:
    args = parse_args()
    output = Path(args.output_dir)
    report: dict = {"status": "complete", "datasets": {}}
    seen_statements: dict[
        str, str
    ] = {}  # prompt_sha256 -> id, over the CodeContests sets: none may hold another's problem
    with full_disk_told("make room, or give another --output_dir"), ExitStack() as files:
        output.mkdir(parents=True, exist_ok=True)
        files.enter_context(only_writer(output, "manifests/.*.tmp", "raw/.*.tmp", ".eval_data_report.json.*.tmp"))
        # Files are renamed into place together at the end, removed together on an error.
        # valid_big is drawn last, from what is not in the other sets
        for dataset in sorted(dict.fromkeys(args.datasets), key=lambda d: SPLITS.get(d) == "train"):
            manifest = files.enter_context(replacing(output / "manifests" / f"{dataset}_manifest.jsonl"))
            raw = files.enter_context(replacing(output / "raw" / f"{dataset}_raw.jsonl"))
            tally = build(dataset, args, manifest, raw, seen_statements if dataset in SPLITS else {})
            check_size(dataset, tally, args)
            report["datasets"][dataset] = tally.__dict__ | {
                "expected": EVAL_SETS[dataset].size,
                "source": source_of(dataset, args),
                "manifest_sha256": sha256_file(manifest),
                "raw_sha256": sha256_file(raw),
            }
            print(
                f"{dataset:24} {tally.problems:4} problems, {tally.tests:6} tests, {len(tally.duplicates)} duplicates, "
                f"{sum(map(len, tally.refused.values()))} refused, {len(tally.multi_answer)} accept any answer"
            )
        report["stamp"] = run_stamp(vars(args))
        write_json(files.enter_context(replacing(output / "eval_data_report.json")), report)
    print(f"written: {output}/manifests, {output}/raw, {output}/eval_data_report.json")


def build(dataset: str, args: argparse.Namespace, manifest: Path, raw: Path, seen: dict[str, str]) -> Tally:
    """Write one set's manifest and raw file; `seen` maps prompt_sha256 to id and is extended."""
    tally = Tally()
    chosen = draw_valid_big(args, seen, tally) if dataset == "codecontests_valid_big" else None
    found: dict[str, dict] = {}
    written: set[str] = set()  # ids in the raw file
    with open(manifest, "w", encoding="utf-8") as m, open(raw, "w", encoding="utf-8") as r:
        for record in records(dataset, args, tally, chosen):
            problem_id, sha = record["problem_id"], record["prompt_sha256"]
            if chosen is None and duplicate(problem_id, sha, seen, tally):
                continue
            if problem_id in written:
                tally.refused.setdefault("an id that stood before, on another statement", []).append(problem_id)
                continue
            written.add(problem_id)
            seen[sha] = problem_id
            entry = {"problem_id": problem_id, "prompt_sha256": sha}
            cases = record["test_cases"]
            tally.problems += 1
            tally.tests += len(cases.get("tests") or cases.get("test_list") or (1,))  # HumanEval: one check function
            if cases["type"] == "codecontests" and sources.accepts_any_answer(record["prompt"]):
                record["multi_answer"] = entry["multi_answer"] = True
                tally.multi_answer.append(problem_id)
            r.write(json.dumps(record, ensure_ascii=False) + "\n")
            if entry.get("multi_answer") and args.exclude_multi_answer:
                tally.excluded.append(problem_id)
            else:
                found[problem_id] = entry
        # in the order drawn, so that the first N (--limit N) are a random sample too
        for problem_id in found if chosen is None else [i for i in chosen if i in found]:
            m.write(json.dumps(found[problem_id], ensure_ascii=False) + "\n")
    if not found:
        raise BadInput(f"{source_of(dataset, args)}: holds no problem of {dataset}")
    return tally


def records(dataset: str, args: argparse.Namespace, tally: Tally, chosen: list[str] | None) -> Iterator[dict]:
    """The raw records of a set; rows that cannot be judged are tallied with the reason."""
    wanted = set(chosen or ())
    for where, row in rows(dataset, args):
        if chosen is not None and problem_id_of(row) not in wanted:
            continue
        if dataset == "mbpp_reg" and row.get("task_id") not in MBPP_REG_IDS:
            continue
        if chosen is None:
            tally.rows += 1
        if (made := convert(where, row, converter(dataset, args), tally)) is not None:
            wanted.discard(made["problem_id"])  # an id that stands twice in train is taken once
            yield made


def rows(dataset: str, args: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """("file:line", row) of the split a set is made of, with a progress bar."""
    if dataset in SPLITS:
        split = SPLITS[dataset]
        if args.code_contests_dir:
            paths = sources.split_files(Path(args.code_contests_dir)).get(split)
            if not paths:
                raise BadInput(
                    f"{args.code_contests_dir}: no {split} file for {dataset}; add it or restrict --datasets"
                )
            found: Iterator[tuple[str, dict]] = (
                row for path in paths for row in sources.rows_of(path, CODECONTESTS_COLUMNS + RAW_COLUMNS)
            )
        else:
            found = sources.hub_rows("codecontests", split, CODECONTESTS_COLUMNS)
    else:
        family = "humaneval" if dataset == "humaneval" else "mbpp"
        local = getattr(args, f"{family}_file")
        found = sources.rows_of(Path(local)) if local else sources.hub_rows(family, None)
    yield from tqdm(found, desc=dataset, unit=" rows", disable=None, leave=False)


def converter(dataset: str, args: argparse.Namespace) -> Callable[[dict], dict]:
    """The function that makes a raw record of a row of this set."""
    if dataset in SPLITS:
        return lambda row: sources.codecontests_record(row, args.test_kinds, args.source_limits)
    return sources.humaneval_record if dataset == "humaneval" else sources.mbpp_record


def convert(where: str, row: dict, make: Callable[[dict], dict], tally: Tally) -> dict | None:
    """The raw record of a row, or None when it is refused. BadInput for a row that breaks its schema."""
    try:
        return make(row)
    except sources.Refused as e:
        tally.refused.setdefault(str(e), []).append(problem_id_of(row))
        return None
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise BadInput(f"{where}: not in the public schema ({type(e).__name__}: {e}); check the file") from None


def problem_id_of(row: dict) -> str:
    """The id of a row in any of the schemas, as far as it can be told."""
    return str(row.get("problem_id") or row.get("task_id") or sources.codecontests_id(row))


def duplicate(problem_id: str, sha: str, seen: dict[str, str], tally: Tally) -> bool:
    """Whether this statement was seen before; tallies it if so."""
    if sha in seen:
        tally.duplicates.append(problem_id)
    return sha in seen


def draw_valid_big(args: argparse.Namespace, seen: dict[str, str], tally: Tally) -> list[str]:
    """500 ids of Codeforces problems of the train split, in drawn order; reads the split once, keeps ids only.

    Ids are sorted before the draw, so it depends on the seed and the problems, not on the order of files.
    """
    candidates: dict[str, str] = {}
    statements = dict(seen)
    make = converter("codecontests_valid_big", args)
    for where, row in rows("codecontests_valid_big", args):
        if not problem_id_of(row).startswith("Codeforces/"):
            continue
        tally.rows += 1
        made = convert(where, row, make, tally)
        if made is None or (args.exclude_multi_answer and sources.accepts_any_answer(made["prompt"])):
            continue
        problem_id, sha = made["problem_id"], made["prompt_sha256"]
        if problem_id not in candidates and not duplicate(problem_id, sha, statements, tally):
            candidates[problem_id] = statements[sha] = sha
    size = min(EVAL_SETS["codecontests_valid_big"].size, len(candidates))
    return random.Random(args.seed).sample(sorted(candidates), size)


def check_size(dataset: str, tally: Tally, args: argparse.Namespace) -> None:
    """BadInput when a set has not the contract's size, with what was left out and why."""
    expected = EVAL_SETS[dataset].size
    if tally.problems == expected or args.allow_size_mismatch:
        return
    left_out = [f"{len(tally.duplicates)} duplicates"] * bool(tally.duplicates)
    left_out += [f"{len(ids)} with {reason} (first {ids[0]})" for reason, ids in tally.refused.items()]
    because = f" after leaving out {', '.join(left_out)}" if left_out else ""
    raise BadInput(
        f"{source_of(dataset, args)}: {tally.problems} problems for {dataset}{because}, the contract says "
        f"{expected}; use the whole public data set or --allow_size_mismatch"
    )


def source_of(dataset: str, args: argparse.Namespace) -> str:
    """The local path or the Hugging Face repository a set is read from."""
    family = "codecontests" if dataset in SPLITS else "humaneval" if dataset == "humaneval" else "mbpp"
    local = args.code_contests_dir if family == "codecontests" else getattr(args, f"{family}_file")
    return str(local or sources.HUB[family][0])


if __name__ == "__main__":
    run_script(main)
