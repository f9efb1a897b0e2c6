"""Turn BEE records into verl's training Parquet: parse, filter, decontaminate, deduplicate, split, check, report.

    python prepare_sft_data.py --input_jsonl bee.jsonl --output_dir data --manifest_dir data/manifests --model MODEL_DIR
    python prepare_sft_data.py --input_jsonl a.jsonl b.jsonl.gz c.parquet --keep all --prompt_style raw
    python prepare_sft_data.py --input_jsonl bee.jsonl --allow_missing_manifests --no_verl_check

Writes sft_train.parquet, sft_val.parquet (one column `messages`: system, user, assistant), sft_report.json and
sft_rejects.jsonl (a line for each record that was dropped, with its reason). Equal input, flags and seed give equal bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from phase1.bee_filters import FILTERS, Examined, Filters, examine_all
from phase1.bee_input import read_chunks
from phase1.decontaminate import EvalIndex
from phase1.duplicates import near_duplicates, surplus
from phase1.files import BadInput, replacing, run_script, run_stamp, sha256_file, write_json
from phase1.problems import EVAL_SETS, load_problems, manifest_path, raw_path, read_manifest
from phase1.prompts import PROMPTS_SHA256, chat
from phase1.verl_rows import check_rows

HERE = Path(__file__).resolve().parent
SCHEMA = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
ROW_GROUP = 1024
BROKEN = ("parse_errors", "empty_solution", "syntax_error")  # what --max_reject_ratio counts


def main() -> int:
    args = parse_args()
    index, sets = evaluation_index(args)
    filters = Filters(index=index, prompt_style=args.prompt_style, skip=frozenset(args.skip), model=args.model,
                      max_length=args.max_length)  # fmt: skip
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prepare.", dir=args.output_dir) as temp, contextlib.ExitStack() as outputs:
        out = {n: outputs.enter_context(replacing(args.output_dir / n)) for n in ("sft_train.parquet", "sft_val.parquet")}
        spool = Path(temp) / "rows.pickle"
        with open(Path(temp) / "rejects.jsonl", "w", encoding="utf-8", errors="backslashreplace") as rejects:
            survivors, dropped, total = examine_input(args, filters, spool, rejects)
            refuse_broken_input(args, dropped, total, Path(temp) / "rejects.jsonl")
            kept = deduplicate(args, survivors, dropped, rejects)
        if len(kept) < 2:
            keep_rejects(args, Path(temp) / "rejects.jsonl")
            raise BadInput(f"{args.output_dir / 'sft_rejects.jsonl'}: {len(kept)} of {total} records are left, a training "
                           "and a validation row need two; see the reasons there")  # fmt: skip
        validation = split(len(kept), args.val_ratio, args.seed)
        write_parquet(out["sft_train.parquet"], spool, [r for i, r in enumerate(kept) if i not in validation])
        write_parquet(out["sft_val.parquet"], spool, [r for i, r in enumerate(kept) if i in validation])
        verl_check = check_with_verl(args, out)
        keep_rejects(args, Path(temp) / "rejects.jsonl")
        hashes = {name: sha256_file(path) for name, path in out.items()}
    report = build_report(args, kept, validation, dropped, total) | {
        "evaluation_sets": sets, "verl_check": verl_check, "outputs_sha256": hashes}  # fmt: skip
    write_json(args.output_dir / "sft_report.json", report)
    print_report(report, args.output_dir)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # input and output
    parser.add_argument("--input_jsonl", type=Path, nargs="+", required=True, help="BEE records: .jsonl, .jsonl.gz or .parquet")
    parser.add_argument("--output_dir", type=Path, default=HERE / "data", help="default: data")
    parser.add_argument("--manifest_dir", type=Path, default=HERE / "data" / "manifests",
                        help="evaluation sets to keep out of training; their raw files lie in ../raw (default: data/manifests)")  # fmt: skip
    parser.add_argument("--allow_missing_manifests", action="store_true", help="go on where a set of the contract is missing")
    # the rows
    parser.add_argument("--prompt_style", choices=("codecontests", "raw"), default="codecontests",
                        help="user turn: evaluation's CodeContests template around the statement, or the bare statement")  # fmt: skip
    parser.add_argument("--val_ratio", type=float, default=0.02, help="share of rows for validation, at least one")
    parser.add_argument("--seed", type=int, default=42, help="of the split")
    # filters
    parser.add_argument("--keep", default="all", help="solutions of a problem: all (default), shortest, first, or N (the N shortest)")
    parser.add_argument("--model", "--tokenizer", dest="model", type=Path, default=None,
                        help="Hugging Face directory whose tokenizer and chat template measure length; none: no length filter")  # fmt: skip
    parser.add_argument("--max_length", type=int, default=4096, help="tokens of a whole row; longer ones are dropped, never cut")
    parser.add_argument("--near_duplicates", type=float, default=0.8,
                        help="Jaccard similarity of both statement and solution from which a record is a repeat")  # fmt: skip
    parser.add_argument("--containment", type=float, default=0.6,
                        help="share of an evaluation problem's n-grams from which a record is taken for it")  # fmt: skip
    parser.add_argument("--ngram", type=int, default=8, help="words of an n-gram")
    parser.add_argument("--skip", nargs="*", default=[], choices=FILTERS, metavar="FILTER",
                        help=f"filters to leave out: {', '.join(FILTERS)}")  # fmt: skip
    parser.add_argument("--max_reject_ratio", type=float, default=0.5,
                        help=f"share of broken records ({', '.join(BROKEN)}) above which the input is refused")  # fmt: skip
    # running
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 = one a core")
    parser.add_argument("--no_verl_check", action="store_true",
                        help="do not load the rows through verl's own data set class (takes some seconds)")  # fmt: skip
    args = parser.parse_args()
    if args.keep not in ("shortest", "first", "all") and not (args.keep.isdigit() and int(args.keep) > 0):
        raise BadInput(f"--keep {args.keep}: expected shortest, first, all or a number from 1")
    if not 0 <= args.val_ratio < 1:
        raise BadInput(f"--val_ratio {args.val_ratio}: expected a share from 0 up to, but not including, 1")
    if args.model and not args.model.is_dir():
        raise BadInput(f"{args.model}: no such directory; --model takes the model that will be trained")
    args.workers = args.workers or len(os.sched_getaffinity(0))
    return args


def evaluation_index(args: argparse.Namespace) -> tuple[EvalIndex, dict[str, int | str]]:
    """What must stay out of training, and how many problems of each set (or why there are none)."""
    problems: list[tuple[str, str, str]] = []
    sets: dict[str, int | str] = {}
    for name in EVAL_SETS:
        missing = [p for p in (manifest_path(args.manifest_dir, name), raw_path(args.manifest_dir, name)) if not p.exists()]
        if missing and not args.allow_missing_manifests:
            raise BadInput(f"{missing[0]}: no such file, so {name} could leak into training; make it with "
                           "prepare_eval_data.py or say --allow_missing_manifests")  # fmt: skip
        if not manifest_path(args.manifest_dir, name).exists():
            sets[name] = "no manifest"
        elif missing:
            ids = read_manifest(args.manifest_dir, name)
            problems += [(name, problem_id, "") for problem_id in ids]
            sets[name] = f"{len(ids)} ids, no statements"
        else:
            found = load_problems(args.manifest_dir, name)
            problems += [(name, p.problem_id, p.prompt) for p in found]
            sets[name] = len(found)
    return EvalIndex(problems, n=args.ngram, threshold=args.containment), sets


def examine_input(args, filters: Filters, spool: Path, rejects) -> tuple[list[Examined], Counter, int]:
    """Run the record filters over the input; survivors' texts go to `spool`, so memory holds only their numbers."""
    survivors: list[Examined] = []
    dropped: Counter[str] = Counter()
    total = 0
    with open(spool, "wb") as f, tqdm(desc="records", unit="", unit_scale=True, mininterval=1) as bar:
        for record in examine_all(read_chunks(args.input_jsonl), filters, args.workers):
            total += 1
            bar.update()
            if record.reason:
                reject(record, record.reason, record.detail, dropped, rejects)
                continue
            record.at = f.tell()
            pickle.dump((record.user, record.answer), f, protocol=4)
            record.user = record.answer = ""
            survivors.append(record)
    return survivors, dropped, total


def reject(record: Examined, reason: str, detail, dropped: Counter, rejects) -> None:
    dropped[reason] += 1
    row = {"file": record.file, "line": record.line, "name": record.name, "reason": reason, "detail": detail}
    rejects.write(json.dumps(row, ensure_ascii=False) + "\n")


def refuse_broken_input(args, dropped: Counter, total: int, rejects: Path) -> None:
    if not total:
        raise BadInput(f"{args.input_jsonl[0]}: holds no record")
    broken = sum(dropped[reason] for reason in BROKEN)
    if broken > args.max_reject_ratio * total:
        keep_rejects(args, rejects)
        raise BadInput(f"{args.input_jsonl[0]}: {broken} of {total} records are broken ({', '.join(BROKEN)}), more than "
                       f"--max_reject_ratio {args.max_reject_ratio}; see {args.output_dir / 'sft_rejects.jsonl'}")  # fmt: skip


def keep_rejects(args, rejects: Path) -> None:
    with replacing(args.output_dir / "sft_rejects.jsonl") as temp:
        os.replace(rejects, temp)


def deduplicate(args, survivors: list[Examined], dropped: Counter, rejects) -> list[Examined]:
    """Exact repeats, near repeats, then surplus solutions of a problem; input order is kept."""
    kept = survivors
    if "duplicates" not in args.skip:
        first: dict[bytes, Examined] = {}
        for record in kept:
            if (earlier := first.setdefault(record.pair_hash, record)) is not record:
                reject(record, "exact_duplicate", f"{earlier.file}:{earlier.line}", dropped, rejects)
        kept = list(first.values())
    if "near_duplicates" not in args.skip and kept:
        repeats = near_duplicates(np.stack([r.statement_signature for r in kept]),
                                  np.stack([r.solution_signature for r in kept]), args.near_duplicates)  # fmt: skip
        for row, earlier in repeats.items():
            reject(kept[row], "near_duplicate", f"{kept[earlier].file}:{kept[earlier].line}", dropped, rejects)
        kept = [r for row, r in enumerate(kept) if row not in repeats]
    drop = surplus(problem_numbers(kept), [r.solution_chars for r in kept], args.keep)
    for row in sorted(drop):
        reject(kept[row], "surplus_solution", f"--keep {args.keep}", dropped, rejects)
    return [r for row, r in enumerate(kept) if row not in drop]


def problem_numbers(records: list[Examined]) -> list[int]:
    """A number a problem: records with the same id or with the same statement are of one problem."""
    number: dict[object, int] = {}
    numbers = []
    for record in records:
        keys = [k for k in (record.id_key, record.statement_hash) if k]
        known = next((number[k] for k in keys if k in number), len(number))
        for k in keys:
            number.setdefault(k, known)
        numbers.append(known)
    return numbers


def split(count: int, ratio: float, seed: int) -> set[int]:
    """The rows that validate: a random `ratio` of them, at least one on each side."""
    size = min(max(1, round(count * ratio)), count - 1)
    return set(random.Random(seed).sample(range(count), size))


def write_parquet(path: Path, spool: Path, records: list[Examined]) -> None:
    def groups() -> Iterator[list[list[dict]]]:
        with open(spool, "rb") as f:
            for start in range(0, len(records), ROW_GROUP):
                rows = []
                for record in records[start : start + ROW_GROUP]:
                    f.seek(record.at)
                    user, answer = pickle.load(f)
                    rows.append(chat(user, answer))
                yield rows

    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for rows in groups():
            writer.write_table(pa.table({"messages": rows}, schema=SCHEMA))


def check_with_verl(args, out: dict[str, Path]) -> dict | str:
    """Load the files as the trainer will; BadInput when verl would train on anything but the answers."""
    if args.no_verl_check or not args.model:
        return "skipped: --no_verl_check" if args.no_verl_check else "skipped: no --model, so no tokenizer to load with"
    return {name: check_rows(path, args.model, args.max_length) for name, path in out.items()}


def build_report(args, kept: list[Examined], validation: set[int], dropped: Counter, total: int) -> dict:
    prompts, responses = [r.user_chars for r in kept], [r.answer_chars for r in kept]
    tokens = np.array([r.tokens for r in kept if r.tokens])
    percentiles = {f"p{p}": int(np.percentile(tokens, p)) for p in (1, 50, 90, 95, 99, 100)} if len(tokens) else None
    return {
        "input_file": str(args.input_jsonl[0]) if len(args.input_jsonl) == 1 else [str(p) for p in args.input_jsonl],
        "input_total": total,
        "parse_errors": dropped["parse_errors"],
        "empty_solution_dropped": dropped["empty_solution"],
        "dropped": {reason: dropped[reason] for reason in sorted(dropped)},
        "final_total": len(kept),
        "train_samples": len(kept) - len(validation),
        "val_samples": len(validation),
        "avg_prompt_length_chars": round(sum(prompts) / len(kept), 1),
        "max_prompt_length_chars": max(prompts),
        "avg_response_length_chars": round(sum(responses) / len(kept), 1),
        "max_response_length_chars": max(responses),
        "tokens": percentiles,
        "padding_share_at_max_length": round(1 - float(tokens.mean()) / args.max_length, 4) if len(tokens) else None,
        "contamination": [json.loads(line) for line in open(args.output_dir / "sft_rejects.jsonl", encoding="utf-8")
                          if '"reason": "contaminated"' in line],
        "prompts_sha256": PROMPTS_SHA256,
        "input_sha256": {str(p): sha256_file(p) for p in args.input_jsonl},
        "stamp": run_stamp(vars(args)),
    }  # fmt: skip


def print_report(report: dict, output_dir: Path) -> None:
    print(f"{report['input_total']:,} records -> {report['train_samples']:,} training and {report['val_samples']:,} validation rows")
    for reason, count in report["dropped"].items():
        print(f"  {reason:<20}{count:>9,}")
    if report["tokens"]:
        print(f"  tokens a row: {report['tokens']}; padding at max_length: {report['padding_share_at_max_length']:.0%}")
    print(f"  verl check: {report['verl_check']}")
    print(f"{output_dir}: sft_train.parquet, sft_val.parquet, sft_report.json, sft_rejects.jsonl")


if __name__ == "__main__":
    run_script(main)
