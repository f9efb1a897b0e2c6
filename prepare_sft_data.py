"""Turn BEE records into verl's training Parquet: parse, filter, decontaminate, deduplicate, split, check, report.

    python prepare_sft_data.py --input_jsonl bee.jsonl --output_dir data --manifest_dir data/manifests --model MODEL_DIR
    python prepare_sft_data.py --input_jsonl a.jsonl b.jsonl.gz c.parquet --keep all --prompt_style raw
    python prepare_sft_data.py --input_jsonl bee.jsonl --model MODEL_DIR --verify_solutions \\
        --tests_raw code_contests/train-*.parquet

Writes sft_train.parquet, sft_val.parquet (one column `messages`: system, user, assistant), sft_report.json,
sft_lengths.png and sft_rejects.jsonl (a line for each record that was dropped, with its reason). Equal input, flags and
seed give equal Parquet bytes, whatever the number of workers. docs/01_data_preprocessing.md explains every field and
flag.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from tqdm import tqdm

from phase1.contract.problems import EVAL_SETS, load_problems, manifest_path, raw_path, read_manifest
from phase1.contract.prompts import PROMPTS_SHA256, chat
from phase1.data.decontaminate import EvalIndex
from phase1.data.duplicates import surplus
from phase1.data.filters import FILTERS, Filters, examine_all
from phase1.data.reading import read_chunks
from phase1.data.report import Rejects, histogram, lengths, print_report
from phase1.data.survivors import Survivors, without
from phase1.data.verify import verify
from phase1.data.verl_rows import check_rows, preview, verl_is_installed
from phase1.files import (
    BadInput,
    full_disk_told,
    only_writer,
    read_jsonl,
    replacing,
    run_script,
    run_stamp,
    sha256_file,
    write_json,
)
from phase1.judge.config import JudgeConfig, add_judge_arguments, config_from

HERE = Path(__file__).resolve().parent
SCHEMA = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
ROW_GROUP = 1024
OUTPUTS = ("sft_train.parquet", "sft_val.parquet", "sft_rejects.jsonl", "sft_lengths.png", "sft_report.json")
BROKEN = ("parse_errors", "empty_solution", "syntax_error")  # what --max_reject_ratio counts


def main() -> int:
    args, judge = parse_args()
    index, sets = evaluation_index(args)
    filters = Filters(
        index=index,
        prompt_style=args.prompt_style,
        skip=frozenset(args.skip),
        model=args.model,
        max_length=args.max_length,
        examples=args.verify_solutions,
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_writer(args.output_dir, ".prepare.*", *(f".{name}.*.tmp" for name in OUTPUTS)))
        temp = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".prepare.", dir=args.output_dir)))
        out = {
            name: stack.enter_context(replacing(args.output_dir / name)) for name in OUTPUTS
        }  # together at the end, or none
        survivors = stack.enter_context(contextlib.closing(Survivors(temp / "rows.pickle")))
        rejects = stack.enter_context(contextlib.closing(Rejects(temp / "rejects.jsonl")))
        total = examine_input(args, filters, judge.parallel, survivors, rejects)
        refuse_broken_input(args, rejects, total)
        kept = drop_repeats(args, survivors, rejects)
        kept, verified = drop_unverified(args, judge, survivors, kept, rejects)
        kept = drop_surplus(args, survivors, kept, rejects)
        if len(kept) < 2:
            keep_rejects(args, rejects)
            raise BadInput(
                f"{args.output_dir / 'sft_rejects.jsonl'}: {len(kept)} of {total} records are left, a training "
                "and a validation row need two; see the reasons there"
            )
        validates = split(len(kept), args.val_ratio, args.seed)
        parquet = {"sft_train.parquet": kept[~validates], "sft_val.parquet": kept[validates]}
        for name, rows in parquet.items():
            write_parquet(out[name], survivors, rows)
        verl_check = check_with_verl(args, {name: out[name] for name in parquet})
        rejects.close()
        histogram(out["sft_lengths.png"], survivors, kept, args.max_length)
        report = build_report(args, survivors, kept, int(validates.sum()), rejects, total) | {
            "verify": verified,
            "evaluation_sets": sets,
            "verl_check": verl_check,
            "outputs_sha256": {name: sha256_file(out[name]) for name in parquet},
        }
        write_json(out["sft_report.json"], report)
        os.replace(rejects.path, out["sft_rejects.jsonl"])
    print_report(report, args.output_dir)
    if args.preview:
        preview(args.output_dir / "sft_train.parquet", args.model, args.max_length, args.preview, Console())
    return 0


def parse_args() -> tuple[argparse.Namespace, JudgeConfig]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # input and output
    parser.add_argument(
        "--input_jsonl", type=Path, nargs="+", required=True, help="BEE records: .jsonl, .jsonl.gz or .parquet"
    )
    parser.add_argument("--output_dir", type=Path, default=HERE / "data", help="default: data")
    parser.add_argument(
        "--manifest_dir",
        type=Path,
        default=HERE / "data" / "manifests",
        help="evaluation sets to keep out of training; their raw files lie in ../raw (default: data/manifests)",
    )
    parser.add_argument(
        "--allow_missing_manifests", action="store_true", help="go on where a set of the contract is missing"
    )
    # the rows
    parser.add_argument(
        "--prompt_style",
        choices=("codecontests", "raw"),
        default="codecontests",
        help="user turn: evaluation's CodeContests template around the statement, or the bare statement",
    )
    parser.add_argument(
        "--val_ratio", type=float, default=0.02, help="share of rows for validation, at least one row (default: 0.02)"
    )
    parser.add_argument("--seed", type=int, default=42, help="of the split (default: 42)")
    # filters
    parser.add_argument(
        "--keep", default="all", help="solutions of a problem: all (default), shortest, first, or N (the N shortest)"
    )
    parser.add_argument(
        "--model",
        "--tokenizer",
        dest="model",
        type=Path,
        default=None,
        help="Hugging Face directory whose tokenizer and chat template measure length; none: no length filter",
    )
    parser.add_argument(
        "--max_length",
        type=int,
        default=4096,
        help="tokens of a whole row; longer ones are dropped, never cut (default: 4096)",
    )
    parser.add_argument(
        "--near_duplicates",
        type=float,
        default=0.8,
        help="Jaccard similarity of both statement and solution from which a record is a repeat (default: 0.8)",
    )
    parser.add_argument(
        "--containment",
        type=float,
        default=0.6,
        help="share of an evaluation problem's n-grams from which a record is taken for it (default: 0.6)",
    )
    parser.add_argument("--ngram", type=int, default=8, help="words of an n-gram (default: 8)")
    parser.add_argument(
        "--skip",
        nargs="*",
        default=[],
        choices=FILTERS,
        metavar="FILTER",
        help=f"filters to leave out: {', '.join(FILTERS)}",
    )
    parser.add_argument(
        "--max_reject_ratio",
        type=float,
        default=0.5,
        help=f"share of broken records ({', '.join(BROKEN)}) above which the input is refused (default: 0.5)",
    )
    # running the solutions
    parser.add_argument(
        "--verify_solutions",
        action="store_true",
        help="run each solution in the judge and drop those that fail: on the "
        "tests of --tests_raw where its problem is there, elsewhere on the examples in its statement",
    )
    parser.add_argument(
        "--tests_raw",
        type=Path,
        nargs="+",
        default=[],
        help="problems with tests: raw files as prepare_eval_data.py writes them, or CodeContests' own train files",
    )
    parser.add_argument(
        "--verify_tests", type=int, default=0, help="tests of a problem to run, the first ones; 0 = all (default)"
    )
    parser.add_argument(
        "--verify_cache",
        type=Path,
        default=None,
        help="verdicts by hash, so that a killed run goes on (default: OUTPUT_DIR/sft_verify_cache.jsonl)",
    )
    add_judge_arguments(parser, answers=False)
    # looking at the result
    parser.add_argument(
        "--preview",
        type=int,
        default=0,
        metavar="N",
        help="print N rows as verl will see them, trained tokens coloured (FORCE_COLOR=1 for a pager)",
    )
    parser.add_argument(
        "--verl_rows",
        type=int,
        default=64,
        help=(
            "rows of each file that are loaded through verl's data set and compared with their answers; 0 = all "
            "(default: 64)"
        ),
    )
    parser.add_argument(
        "--no_verl_check",
        action="store_true",
        help="do not load the rows through verl's own data set class (takes some seconds)",
    )
    args = parser.parse_args()
    if args.keep not in ("shortest", "first", "all") and not (args.keep.isdigit() and int(args.keep) > 0):
        raise BadInput(f"--keep {args.keep}: expected shortest, first, all or a number from 1")
    if not 0 <= args.val_ratio < 1:
        raise BadInput(f"--val_ratio {args.val_ratio}: expected a share from 0 up to, but not including, 1")
    if args.model and not args.model.is_dir():
        raise BadInput(
            f"{args.model}: no such directory; --model takes the directory of the model to train (hf download "
            "NAME --local-dir DIR)"
        )
    if not (0 < args.near_duplicates <= 1 and 0 < args.containment <= 1 and 0 <= args.max_reject_ratio <= 1):
        raise BadInput(
            "--near_duplicates and --containment take a share above 0 up to 1, --max_reject_ratio one from 0 to 1"
        )
    if args.preview and not args.model:
        raise BadInput("--preview shows tokens and needs --model, the model that will be trained")
    if args.preview and not verl_is_installed():
        raise BadInput(
            "--preview shows rows as verl sees them, and verl is not installed; pip install -r requirements.txt"
        )
    if args.tests_raw and not args.verify_solutions:
        raise BadInput("--tests_raw is read by --verify_solutions; give that too")
    if missing := [p for p in args.tests_raw if not p.is_file()]:
        raise BadInput(f"{missing[0]}: no such file")
    if min(args.verify_tests, args.preview, args.verl_rows) < 0 or min(args.max_length, args.ngram) < 1:
        raise BadInput(
            "--verify_tests, --preview and --verl_rows must not be negative, --max_length and --ngram must be positive"
        )
    return args, config_from(args)


def evaluation_index(args: argparse.Namespace) -> tuple[EvalIndex, dict[str, int | str]]:
    """What must stay out of training, and how many problems of each set (or why there are none).

    The contract's five sets must be there; what other manifests the directory holds is kept out too.
    """
    problems: list[tuple[str, str, str]] = []
    sets: dict[str, int | str] = {}
    others = {
        p.name.removesuffix("_manifest.jsonl") for p in args.manifest_dir.glob("*_manifest.jsonl")
    } - EVAL_SETS.keys()
    for name in (*EVAL_SETS, *sorted(others)):
        missing = [
            p for p in (manifest_path(args.manifest_dir, name), raw_path(args.manifest_dir, name)) if not p.exists()
        ]
        if missing and not args.allow_missing_manifests:
            raise BadInput(
                f"{missing[0]}: no such file, so {name} could leak into training; make it with "
                "prepare_eval_data.py or say --allow_missing_manifests"
            )
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


def examine_input(args, filters: Filters, workers: int, survivors: Survivors, rejects: Rejects) -> int:
    """Run the record filters over the input; the number of records."""
    total = 0
    examined = examine_all(read_chunks(args.input_jsonl), filters, workers)
    with tqdm(desc="records", unit="", unit_scale=True, mininterval=1) as bar, contextlib.closing(examined):
        for record in examined:
            total += 1
            bar.update()
            if record.reason:
                rejects.add(record.file, record.line, record.name, record.reason, record.detail)
            else:
                survivors.add(record)
    return total


def refuse_broken_input(args, rejects: Rejects, total: int) -> None:
    if not total:
        raise BadInput(f"{args.input_jsonl[0]}: holds no record; is it the file you meant?")
    broken = sum(rejects.counts[reason] for reason in BROKEN)
    if broken > args.max_reject_ratio * total:
        keep_rejects(args, rejects)
        first = next(r for _, r in read_jsonl(args.output_dir / "sft_rejects.jsonl") if r["reason"] in BROKEN)
        raise BadInput(
            f"{first['file']}:{first['line']}: {first['detail'] or first['reason']}; {broken} of {total} "
            "records are broken, more "
            f"than --max_reject_ratio {args.max_reject_ratio}; see {args.output_dir / 'sft_rejects.jsonl'}"
        )


def keep_rejects(args, rejects: Rejects) -> None:
    """Where the run is refused: the reasons are wanted all the same."""
    rejects.close()
    with replacing(args.output_dir / "sft_rejects.jsonl") as temp:
        os.replace(rejects.path, temp)


def drop(rows: np.ndarray, drops, survivors: Survivors, rejects: Rejects) -> np.ndarray:
    """`rows` without those in `drops`, which are (row, reason, detail) in row order."""
    gone = []
    for row, reason, detail in drops:
        gone.append(row)
        rejects.add(*survivors.where(row), survivors.texts(row).name, reason, detail)
    return without(rows, gone)


def drop_repeats(args, survivors: Survivors, rejects: Rejects) -> np.ndarray:
    """The rows that repeat no earlier one, neither exactly nor nearly."""
    kept = np.arange(len(survivors))
    if "duplicates" not in args.skip:
        kept = drop(kept, survivors.exact_repeats(), survivors, rejects)
    if "near_duplicates" not in args.skip:
        kept = drop(kept, survivors.near_repeats(kept, args.near_duplicates), survivors, rejects)
    return kept


def drop_unverified(
    args, judge: JudgeConfig, survivors: Survivors, kept: np.ndarray, rejects: Rejects
) -> tuple[np.ndarray, dict | str]:
    """The rows whose solution passed or could not be run, and what the report says of it."""
    if not args.verify_solutions:
        return kept, "skipped: no --verify_solutions"
    cache = args.verify_cache or args.output_dir / "sft_verify_cache.jsonl"
    verified = verify(kept.tolist(), survivors, args.tests_raw, cache, judge, args.verify_tests)
    return drop(kept, verified.drops, survivors, rejects), {
        "counts": dict(sorted(verified.counts.items())),
        "problems_where_every_solution_failed": verified.all_fail,
        "cache": cache,
        "tests_sha256": {str(p): sha256_file(p) for p in args.tests_raw},
    }


def drop_surplus(args, survivors: Survivors, kept: np.ndarray, rejects: Rejects) -> np.ndarray:
    """--keep's choice among the solutions of a problem; last, so that a solution that fails takes no place."""
    if args.keep == "all":
        return kept
    chosen = surplus([survivors.problem[r] for r in kept], [survivors.solution_chars[r] for r in kept], args.keep)
    return drop(
        kept, [(int(kept[at]), "surplus_solution", f"--keep {args.keep}") for at in sorted(chosen)], survivors, rejects
    )


def split(count: int, ratio: float, seed: int) -> np.ndarray:
    """Which rows validate: a random `ratio` of them, at least one on each side, (count,) bool."""
    size = min(max(1, round(count * ratio)), count - 1)
    validates = np.zeros(count, bool)
    validates[random.Random(seed).sample(range(count), size)] = True
    return validates


def write_parquet(path: Path, survivors: Survivors, rows: np.ndarray) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(rows), ROW_GROUP):
            texts = [survivors.texts(row) for row in rows[start : start + ROW_GROUP]]
            writer.write_table(pa.table({"messages": [chat(t.user, t.answer) for t in texts]}, schema=SCHEMA))


def check_with_verl(args, out: dict[str, Path]) -> dict | str:
    """Load the files as the trainer will; BadInput when verl would train on anything but the answers."""
    if args.no_verl_check or not args.model:
        return "skipped: --no_verl_check" if args.no_verl_check else "skipped: no --model, so no tokenizer to load with"
    return {name: check_rows(path, args.model, args.max_length, args.verl_rows) for name, path in out.items()}


def build_report(args, survivors: Survivors, kept: np.ndarray, val_samples: int, rejects: Rejects, total: int) -> dict:
    return {
        "input_file": str(args.input_jsonl[0]) if len(args.input_jsonl) == 1 else [str(p) for p in args.input_jsonl],
        "input_total": total,
        "parse_errors": rejects.counts["parse_errors"],
        "empty_solution_dropped": rejects.counts["empty_solution"],
        "dropped": {reason: rejects.counts[reason] for reason in sorted(+rejects.counts)},
        "final_total": len(kept),
        "train_samples": len(kept) - val_samples,
        "val_samples": val_samples,
        **lengths(survivors, kept, args.max_length),
        "contamination": rejects.contaminated(),
        "prompts_sha256": PROMPTS_SHA256,
        "input_sha256": {str(p): sha256_file(p) for p in args.input_jsonl},
        "stamp": run_stamp(vars(args)),
    }


def run() -> int:
    """main(); SIGTERM clears up like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM; run the same command again"))
    with full_disk_told("three times the size of the input is needed there"):
        return main()


if __name__ == "__main__":
    run_script(run)
