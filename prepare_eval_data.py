"""Build manifests and raw files of the evaluation sets: public data sets, local copies, files of one's own.

    python prepare_eval_data.py --output_dir data
    python prepare_eval_data.py --output_dir data --humaneval_file HumanEval.jsonl.gz --mbpp_file mbpp.jsonl.gz \
        --code_contests_dir code_contests/
    python prepare_eval_data.py --output_dir data --datasets humaneval mbpp_reg --humaneval_file H --mbpp_file M
    python prepare_eval_data.py --output_dir data --datasets my_set         named in data/manifests/sets.toml

Writes OUTPUT/manifests/{dataset}_manifest.jsonl, OUTPUT/raw/{dataset}_raw.jsonl and OUTPUT/eval_data_report.json:
all of them or, on any error, none. Without a local copy the data sets come from Hugging Face (a download of 7.6 GB
for CodeContests, whose train split is read only for codecontests_valid_big).
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from phase1.arguments import Parser, output_folder, show_next, words_of_command
from phase1.contract.own_sets import NAME, OwnSet, known_sets, need_known
from phase1.contract.problems import EVAL_SETS
from phase1.data.checkers import COLUMNS, CheckerFiles, columns_from
from phase1.data.evaluation_files import SetFiles, Tally
from phase1.data.output_folder import full_disk_told, made_folder, only_writer
from phase1.data.public_sets import PublicData, public_data, reader_of
from phase1.data.published_forms import own_reader
from phase1.files import BadInput, replacing, run_script, run_stamp, sha256_file, write_json

if TYPE_CHECKING:
    from pydantic import JsonValue

HERE = Path(__file__).resolve().parent
LEFTOVERS = ("manifests/.*.tmp", "raw/.*.tmp", ".eval_data_report.json.*.tmp")  # of a killed run


def main() -> None:
    args = parse_args()
    sets = sets_to_make(args)
    report: dict[str, JsonValue] = {}  # by set
    with full_disk_told("make room, or give another --output_dir"), ExitStack() as files:
        files.enter_context(made_folder(args.output_dir))
        files.enter_context(only_writer(args.output_dir, *LEFTOVERS))
        # What `replacing` opens is renamed into place together at the end, or removed together on an error.
        for made in sets:
            manifest = files.enter_context(replacing(args.output_dir / "manifests" / f"{made.dataset}_manifest.jsonl"))
            raw = files.enter_context(replacing(args.output_dir / "raw" / f"{made.dataset}_raw.jsonl"))
            tally = made.write(manifest, raw)
            if not args.allow_size_mismatch:
                made.check_size()
            report[made.dataset] = report_of(made, manifest, raw)
            print_tally(made.dataset, tally)
        path = files.enter_context(replacing(args.output_dir / "eval_data_report.json"))
        write_json(path, {"status": "complete", "datasets": report, "stamp": run_stamp(vars(args))})
    out = args.output_dir
    print(f"written: {out}/manifests, {out}/raw, {out}/eval_data_report.json")
    where = [] if out.resolve() == HERE / "data" else ["--manifest_dir", out / "manifests"]
    sets_made = ["--datasets", *report] if args.datasets else []
    command = ("python", "phase1_eval.py", "--model_path", "MODEL", "--output_dir", "outputs/phase0")
    show_next("evaluate the base model, MODEL", words_of_command(*command, *where, *sets_made))


def parse_args() -> argparse.Namespace:
    p = Parser(__doc__)
    places = p.add_argument_group("where to")
    places.add_argument(
        "--output_dir",
        type=output_folder,
        default=HERE / "data",
        help="directory that gets manifests/, raw/ and eval_data_report.json (default: data)",
    )
    copies = p.add_argument_group("local copies", "of the public data sets, read in place of Hugging Face")
    for data in public_data():
        form = "a .jsonl, .jsonl.gz or .parquet file"
        if data.copy_is_directory:
            form = ".jsonl, .jsonl.gz or .parquet files in a directory; their names tell the split: train, valid, test"
        copies.add_argument(data.flag, type=Path, help=f"{data.name}: {form} (default: {data.repository})")
    many = p.add_argument_group("checkers", "programs that decide where many answers are right (docs/judge.md)")
    many.add_argument(
        "--checkers",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help=".parquet, .jsonl or .jsonl.gz of open-r1/codeforces or CodeContests+, joined by problem id",
    )
    many.add_argument(
        "--checker_columns",
        nargs="+",
        default=[],
        metavar="WHAT=COLUMN",
        help=f"columns of other files (default: {' '.join(f'{k}={v}' for k, v in COLUMNS.items())})",
    )
    many.add_argument("--testlib_header", type=Path, help="testlib.h, which is put into C++ checkers that include it")
    which = p.add_argument_group("which problems")
    which.add_argument(
        "--datasets",
        nargs="+",
        metavar="SET",
        help=f"sets to build, of {', '.join(EVAL_SETS)} and those of manifests/sets.toml (default: these five)",
    )
    which.add_argument("--seed", type=int, default=42, help="seed of the draw of codecontests_valid_big (default: 42)")
    which.add_argument(
        "--exclude_multi_answer",
        action="store_true",
        help="leave problems whose statement accepts any of several answers out of the manifests; they are counted and "
        "flagged in any case",
    )
    which.add_argument(
        "--allow_size_mismatch", action="store_true", help="write a set whose size differs from the contract's"
    )
    return p.parse_args()


def sets_to_make(args: argparse.Namespace) -> list[SetFiles]:
    """The sets asked for; drawn ones last, since they are drawn from what the others do not hold.

    Raises:
        BadInput: a set has no reader, or a file of checkers cannot be used.
    """
    made = []
    columns = columns_from(args.checker_columns)
    checkers = CheckerFiles(args.checkers, columns, args.testlib_header) if args.checkers else None
    if (columns or args.testlib_header) and checkers is None:
        raise BadInput("--checker_columns and --testlib_header are read by --checkers; give it, or leave them out")
    seen: dict[PublicData, set[str]] = {}  # statements by public data: no set may hold a problem of another
    manifests = args.output_dir / "manifests"
    names = dict.fromkeys(args.datasets or EVAL_SETS)
    need_known(names, manifests)
    sets = known_sets(manifests)
    for eval_set in map(sets.__getitem__, names):
        if isinstance(eval_set, OwnSet):
            reader, copy = own_reader(eval_set.name), source_of(eval_set, manifests)
        else:
            reader = reader_of(eval_set.name)
            copy = getattr(args, reader.data.flag.removeprefix("--"))
        made.append(
            SetFiles(
                eval_set=eval_set,
                reader=reader,
                copy=copy,
                seed=args.seed,
                exclude_multi_answer=args.exclude_multi_answer,
                seen=seen.setdefault(reader.data, set()),
                checkers=checkers,
            )
        )
    return sorted(made, key=lambda each: each.reader.drawn)


def source_of(own: OwnSet, manifests: Path) -> Path:
    """The file of a set of one's own.

    Raises:
        BadInput: sets.toml names none, or one that is not there.
    """
    where = f"{manifests / NAME}: [{own.name}]"
    if own.source is None:
        raise BadInput(f'{where}: has no source; say source = "../{own.name}.jsonl", or write both files by hand')
    if not own.source.is_file():
        raise BadInput(f"{where}: {own.source}: no such file; source is looked for from the folder of {NAME}")
    return own.source


def report_of(made: SetFiles, manifest: Path, raw: Path) -> dict[str, JsonValue]:
    """What eval_data_report.json says of a set."""
    return asdict(made.tally) | {
        "expected": made.eval_set.size or None,
        "source": made.source,
        "manifest_sha256": sha256_file(manifest),
        "raw_sha256": sha256_file(raw),
    }


def print_tally(dataset: str, tally: Tally) -> None:
    refused = sum(len(ids) for ids in tally.refused.values())
    ruled = sum(len(ids) for ids in tally.rules.values())
    print(
        f"{dataset:24} {tally.problems:4} problems, {tally.tests:6} tests, {len(tally.duplicates)} duplicates, "
        f"{refused} refused, {len(tally.multi_answer)} accept any answer, {ruled} have a rule of their own for outputs"
    )


if __name__ == "__main__":
    run_script(main)
