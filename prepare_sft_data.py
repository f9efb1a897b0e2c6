"""Turn BEE records into verl's training Parquet: parse, filter, decontaminate, deduplicate, split, check, report.

    python prepare_sft_data.py --input_jsonl bee.jsonl --output_dir data --manifest_dir data/manifests --model MODEL_DIR
    python prepare_sft_data.py --input_jsonl a.jsonl b.jsonl.gz c.parquet --keep all --prompt_style raw
    python prepare_sft_data.py --input_jsonl bee.jsonl --model MODEL_DIR --verify_solutions \\
        --tests_raw code_contests/train-*.parquet
    python prepare_sft_data.py --grpo_raw code_contests/train-*.parquet     Phase 3's rows instead

Writes sft_train.parquet, sft_val.parquet (one column `messages`: system, user, assistant), sft_report.json,
sft_lengths.png and sft_rejects.jsonl (a line for each record that was dropped, with its reason). Equal input, flags and
seed give equal Parquet bytes, whatever the number of workers. With --grpo_raw it writes grpo_train.parquet,
grpo_val.parquet and grpo_report.json instead, and touches no SFT file. docs/01_data_preprocessing.md explains every
field and flag.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from phase1.arguments import Parser, output_folder, show_next, with_variables, words_of_command
from phase1.contract.prompts import PROMPTS_SHA256
from phase1.contract.state.sft_report import SftReport
from phase1.data.decontaminate import read_kept_out
from phase1.data.filters import FILTERS, Filters, examine_all
from phase1.data.grpo_rows import TRAIN, VAL, choose, write_rows
from phase1.data.kept_records import Survivors
from phase1.data.output_folder import full_disk_told, made_folder, only_writer
from phase1.data.report import Rejects, histogram, print_report
from phase1.data.selection import Selection, counts_and_lengths, sort_out
from phase1.data.training_file import write_training_file
from phase1.data.training_records import other_form, read_chunks
from phase1.data.verify import VerifySettings, verify
from phase1.data.verl_rows import check_rows, preview, verl_is_installed
from phase1.files import (
    BadInput,
    read_jsonl,
    replacing,
    run_script,
    run_stamp,
    sha256_file,
    write_json,
)
from phase1.judge.config import JudgeConfig, add_judge_arguments, config_from
from phase1.machine import has_driver
from phase1.model.hub import how_to_get

if TYPE_CHECKING:
    from pydantic import JsonValue

HERE = Path(__file__).resolve().parent
OUTPUTS = ("sft_train.parquet", "sft_val.parquet", "sft_rejects.jsonl", "sft_lengths.png", "sft_report.json")
GRPO_OUTPUTS = (TRAIN, VAL, "grpo_report.json")
BROKEN = ("parse_errors", "empty_solution", "syntax_error")  # what --max_reject_ratio counts
FEW_ROWS = 8 * 128  # fewer make less than eight of run_sft.sh's batches
TRAINED_LENGTH = 4096  # tokens, run_sft.sh's MAX_LENGTH
COMPARED = 64  # rows of each file that go through verl's data set


def main() -> int:
    args, judge = parse_args()
    if args.grpo_raw:
        return prepare_grpo(args)
    kept_out = read_kept_out(args.manifest_dir, args.allow_missing_manifests, args.containment)
    filters = Filters(
        index=kept_out.index,
        prompt_style=args.prompt_style,
        skip=frozenset(args.skip),
        model=args.model,
        max_length=args.max_length,
        examples=args.verify_solutions,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(made_folder(args.output_dir))
        stack.enter_context(only_writer(args.output_dir, ".prepare.*", *(f".{name}.*.tmp" for name in OUTPUTS)))
        temp = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".prepare.", dir=args.output_dir)))
        # All are renamed into place at the end, or none.
        out = {name: stack.enter_context(replacing(args.output_dir / name)) for name in OUTPUTS}
        survivors = stack.enter_context(contextlib.closing(Survivors(temp / "rows.pickle")))
        rejects = stack.enter_context(contextlib.closing(Rejects(temp / "rejects.jsonl")))
        examined = examine_all(read_chunks(args.input_jsonl), filters, judge.parallel)
        total = sort_out(examined, survivors, rejects)
        refuse_broken_input(args, rejects, total)
        chosen = Selection(survivors, rejects)
        if "duplicates" not in args.skip:
            chosen.drop_exact_repeats()
        if "near_duplicates" not in args.skip:
            chosen.drop_near_repeats(args.near_duplicates)
        verified = drop_unverified(args, judge, chosen)
        chosen.drop_surplus(args.keep)  # last, so that a solution that fails takes no place
        refuse_too_few(args, chosen, total)
        validates = chosen.validation(args.val_ratio, args.seed)
        write_training_file(out["sft_train.parquet"], survivors, chosen.rows[~validates])
        write_training_file(out["sft_val.parquet"], survivors, chosen.rows[validates])
        verl_check = check_with_verl(args, out)
        rejects.close()
        histogram(out["sft_lengths.png"], survivors, chosen.rows, args.max_length)
        report = SftReport(
            **counts_and_lengths(args.input_jsonl, total, chosen, int(validates.sum()), max_length=args.max_length),
            contamination=rejects.contaminated(),
            prompts_sha256=PROMPTS_SHA256,
            input_sha256={str(path): sha256_file(path) for path in args.input_jsonl},
            stamp=run_stamp(vars(args)),
            verify=verified,
            evaluation_sets=kept_out.sets,
            verl_check=verl_check,
            outputs_sha256={name: sha256_file(out[name]) for name in ("sft_train.parquet", "sft_val.parquet")},
        )
        report.write(out["sft_report.json"])
        os.replace(rejects.path, out["sft_rejects.jsonl"])
    print_report(report, args.output_dir)
    if args.preview:
        from rich.console import Console

        preview(
            parquet=args.output_dir / "sft_train.parquet",
            model=args.model,
            max_length=args.max_length,
            count=args.preview,
            console=Console(),
        )
    show_next("train on them (--dry_run checks first)", training_command(args, report.train_samples or 0))
    return 0


def training_command(args: argparse.Namespace, rows: int) -> str:
    """run_sft.sh on these `rows`, with what differs from its defaults, which are for many rows and eight GPUs."""
    variables: dict[str, object] = {}
    if args.output_dir.resolve() != HERE / "data":
        out = args.output_dir
        variables |= {"TRAIN_FILE": out / "sft_train.parquet", "VAL_FILE": out / "sft_val.parquet"}
    if args.model:
        variables |= {"MODEL_PATH": args.model}
    if args.max_length != TRAINED_LENGTH:
        variables |= {"MAX_LENGTH": args.max_length}
    processes = [] if has_driver() else ["1"]
    preset = ["--preset", "small"] if rows < FEW_ROWS else []
    return with_variables(variables, words_of_command("./run_sft.sh", *processes, *preset))


def prepare_grpo(args: argparse.Namespace) -> int:
    """Phase 3's files, beside those of Phase 1: the same evaluation sets are kept out by the same rules."""
    kept_out = read_kept_out(args.manifest_dir, args.allow_missing_manifests, args.containment)
    chosen = choose(args.grpo_raw, kept_out.index, args.val_ratio, args.seed)
    with contextlib.ExitStack() as stack:
        stack.enter_context(made_folder(args.output_dir))
        stack.enter_context(only_writer(args.output_dir, *(f".{name}.*.tmp" for name in GRPO_OUTPUTS)))
        out = {name: stack.enter_context(replacing(args.output_dir / name)) for name in GRPO_OUTPUTS}
        write_rows(args.grpo_raw, chosen, out, args.verify_tests)
        report = {
            "train_samples": chosen.rows(TRAIN),
            "val_samples": chosen.rows(VAL),
            "dropped": dict(sorted(chosen.dropped.items())),
            "contamination": chosen.contamination,
            "evaluation_sets": kept_out.sets,
            "prompts_sha256": PROMPTS_SHA256,
            "input_sha256": {str(path): sha256_file(path) for path in args.grpo_raw},
            "outputs_sha256": {name: sha256_file(out[name]) for name in (TRAIN, VAL)},
            "stamp": run_stamp(vars(args)),
        }
        write_json(out["grpo_report.json"], report)
    print(
        f"{args.output_dir}: {report['train_samples']} problems in {TRAIN}, {report['val_samples']} in {VAL}; dropped: "
        f"{report['dropped'] or 'none'}"
    )
    checked = words_of_command("python", "verify_handoff.py", "--best_checkpoint", "outputs/best_checkpoint.json")
    show_next("verify the model that GRPO starts from", checked)
    return 0


def parse_args() -> tuple[argparse.Namespace, JudgeConfig]:
    p = Parser(__doc__)
    files = p.add_argument_group("input and output")
    files.add_argument("--input_jsonl", type=Path, nargs="+", help="BEE: .jsonl, .jsonl.gz or .parquet")
    files.add_argument(
        "--grpo_raw",
        type=Path,
        nargs="+",
        default=[],
        help="instead: problems with tests, as --tests_raw takes them, that become Phase 3's GRPO rows",
    )
    files.add_argument(
        "--output_dir", type=output_folder, default=HERE / "data", help="where the files go (default: data)"
    )
    files.add_argument(
        "--manifest_dir",
        type=Path,
        default=HERE / "data" / "manifests",
        help="evaluation sets to keep out of training; their raw files lie in ../raw (default: data/manifests)",
    )
    files.add_argument(
        "--allow_missing_manifests", action="store_true", help="go on where a set of the contract is missing"
    )
    rows = p.add_argument_group("rows")
    rows.add_argument(
        "--prompt_style",
        choices=("codecontests", "raw"),
        default="codecontests",
        help="user turn: evaluation's CodeContests template around the statement (default), or the bare statement",
    )
    rows.add_argument(
        "--val_ratio", type=float, default=0.02, help="share of rows for validation, at least one row (default: 0.02)"
    )
    rows.add_argument("--seed", type=int, default=42, help="seed of the split (default: 42)")
    filters = p.add_argument_group("filters")
    filters.add_argument(
        "--keep", default="all", help="solutions of a problem: all (default), shortest, first, or N (the N shortest)"
    )
    filters.add_argument(
        "--model",
        "--tokenizer",
        dest="model",
        type=Path,
        help="Hugging Face directory whose tokenizer and chat template measure length (default: no length filter)",
    )
    filters.add_argument(
        "--max_length",
        type=int,
        default=TRAINED_LENGTH,
        help="tokens of a whole row; longer ones are dropped, never cut (default: 4096)",
    )
    filters.add_argument(
        "--near_duplicates",
        type=float,
        default=0.8,
        help="share of likeness (Jaccard) of statement and of solution from which a record is a repeat",
    )
    filters.add_argument(
        "--containment",
        type=float,
        default=0.6,
        help="share of an evaluation problem's 8-word phrases, or of its reference program, from which a record is "
        "taken for it (default: 0.6)",
    )
    filters.add_argument(
        "--skip",
        nargs="*",
        default=[],
        choices=FILTERS,
        metavar="FILTER",
        help=f"filters to leave out: {', '.join(FILTERS)} (default: none)",
    )
    filters.add_argument(
        "--max_reject_ratio",
        type=float,
        default=0.5,
        help=f"share of broken records ({', '.join(BROKEN)}) above which the input is refused (default: 0.5)",
    )
    running = p.add_argument_group("running the solutions")
    running.add_argument(
        "--verify_solutions",
        action="store_true",
        help="run each solution in the judge and drop those that fail: on the "
        "tests of --tests_raw where its problem is there, elsewhere on the examples in its statement",
    )
    running.add_argument(
        "--tests_raw",
        type=Path,
        nargs="+",
        default=[],
        help="problems with tests: raw files as prepare_eval_data.py writes them, or CodeContests' own train files",
    )
    running.add_argument(
        "--verify_tests",
        type=int,
        default=0,
        help="tests of a problem to run, or to keep in a GRPO row, the first ones (default: 0 = all)",
    )
    add_judge_arguments(p, answers=False)
    result = p.add_argument_group("looking at the result")
    result.add_argument(
        "--preview",
        type=int,
        default=0,
        metavar="N",
        help="print N rows as verl will see them, trained tokens coloured (FORCE_COLOR=1 for a pager; default: 0)",
    )
    result.add_argument(
        "--no_verl_check",
        action="store_true",
        help="do not load the rows through verl's own data set class (takes some seconds)",
    )
    args = p.parse_args()
    refuse_bad_flags(args)
    return args, config_from(args)


def refuse_bad_flags(args: argparse.Namespace) -> None:
    if bool(args.input_jsonl) == bool(args.grpo_raw):
        raise BadInput("give either --input_jsonl, for SFT rows, or --grpo_raw, for GRPO rows")
    if args.keep not in ("shortest", "first", "all") and not (args.keep.isdigit() and int(args.keep) > 0):
        raise BadInput(f"--keep {args.keep}: expected shortest, first, all or a number from 1")
    if not 0 <= args.val_ratio < 1:
        raise BadInput(f"--val_ratio {args.val_ratio}: expected a share from 0 up to, but not including, 1")
    if args.model and not args.model.is_dir():
        raise BadInput(f"{args.model}: no such directory, of the model to train; {how_to_get(str(args.model))}")
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
    if missing := [p for p in (*args.tests_raw, *args.grpo_raw) if not p.is_file()]:
        raise BadInput(f"{missing[0]}: no such file; correct what --tests_raw or --grpo_raw names")
    if min(args.verify_tests, args.preview) < 0 or args.max_length < 1:
        raise BadInput("--verify_tests and --preview must not be negative, --max_length must be positive")


def refuse_broken_input(args: argparse.Namespace, rejects: Rejects, total: int) -> None:
    if not total:
        raise BadInput(f"{args.input_jsonl[0]}: holds no record; is it the file you meant?")
    broken = sum(rejects.counts[reason] for reason in BROKEN)
    if broken > args.max_reject_ratio * total:
        path = rejects.keep(args.output_dir)
        first = next(row for _, row in read_jsonl(path) if row["reason"] in BROKEN)
        mend = other_form(Path(str(first["file"])))
        raise BadInput(
            f"{first['file']}:{first['line']}: {first['detail'] or first['reason']}{mend}; {broken} of {total} records "
            f"are broken, more than --max_reject_ratio {args.max_reject_ratio}; see {path}"
        )


def refuse_too_few(args: argparse.Namespace, chosen: Selection, total: int) -> None:
    if len(chosen) < 2:
        path = chosen.rejects.keep(args.output_dir)
        raise BadInput(
            f"{path}: {len(chosen)} of {total} records are left, a training and a validation row need two; see the "
            "reasons there"
        )


def drop_unverified(args: argparse.Namespace, judge: JudgeConfig, chosen: Selection) -> dict[str, JsonValue] | str:
    """Drop the rows whose solution was run and failed; returns what the report says of it."""
    if not args.verify_solutions:
        return "skipped: no --verify_solutions"
    cache = args.output_dir / "sft_verify_cache.jsonl"
    settings = VerifySettings(tests_raw=args.tests_raw, most=args.verify_tests, cache=cache, judge=judge)
    verified = verify(chosen.rows.tolist(), chosen.survivors, settings)
    chosen.drop(verified.drops)
    return verified.told(settings)


def check_with_verl(args: argparse.Namespace, out: dict[str, Path]) -> dict[str, JsonValue] | str:
    """Load the files as the trainer will; BadInput when verl would train on anything but the answers."""
    if args.no_verl_check:
        return "skipped: --no_verl_check"
    if not args.model:
        return "skipped: no --model, so no tokenizer to load with"
    names = ("sft_train.parquet", "sft_val.parquet")
    return {name: check_rows(out[name], args.model, args.max_length, COMPARED) for name in names}


def run() -> int:
    """main(); SIGTERM clears up like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM; run the same command again"))
    with full_disk_told("three times the size of the input is needed there"):
        return main()


if __name__ == "__main__":
    run_script(run)
