"""Compare Phase 0 and Phase 1: three tables, statistics, flips and one verdict.

    python generate_report.py --phase0_metrics outputs/phase0_*/metrics.json \\
        --phase1_metrics outputs/eval_final/metrics.json --output_dir outputs/report/
    python generate_report.py --phase0_metrics P0/metrics.json --phase1_metrics P1/metrics.json \\
        --output_dir outputs/report/ --gate rules.toml
    python generate_report.py --runs base=outputs/phase0/metrics.json step_200=outputs/eval_step_200/metrics.json \\
        step_400=outputs/eval_step_400/metrics.json --output_dir outputs/runs/
    python generate_report.py … --train_log outputs/logs/train.log --train_data data/sft_train.parquet --qa_html

Writes comparison_table.md, comparison_data.json, summary.txt and report.html (and qa.html); with --runs runs.html,
runs.md and runs.json instead. The first line of each is the verdict. Exit 0 done, 1 the sides are not comparable or a
gate rule failed (the report is written all the same), 2 bad input.
"""

import argparse
import io
import sys
from dataclasses import asdict
from pathlib import Path

from phase1.arguments import Parser, output_folder, show_next
from phase1.contract.state.base import path_beside
from phase1.evaluate.finished import FinishedEvaluation, finished_evaluations
from phase1.evaluate.looks_at_test_sets import looks
from phase1.files import BadInput, json_text, run_script, run_stamp, sha256_file, write_together
from phase1.report import stats
from phase1.report.comparability import comparability
from phase1.report.data_file import METHOD, train_data_field, warnings, what_was_seen
from phase1.report.evidence import Evidence
from phase1.report.first_screen import first_screen
from phase1.report.flips import all_flips
from phase1.report.gate import check_gate, read_gate, refuse_unknown_sets
from phase1.report.inputs import read_side, refuse_same_file
from phase1.report.more_rows import more_rows
from phase1.report.pages import qa_html, report_html
from phase1.report.plain_text import markdown, text_summary
from phase1.report.runs import parse_named, read_runs
from phase1.report.same_weights import same_weights
from phase1.report.tables import fill_rows
from phase1.report.train_data import check_train_data
from phase1.report.verdict import verdict
from phase1.train.step_log import read_train_log


def parse_args() -> argparse.Namespace:
    p = Parser(__doc__)
    g = p.add_argument_group("what is compared")
    g.add_argument(
        "--phase0_metrics",
        nargs="+",
        metavar="F",
        help="metrics.json of the base model; of several, the newest a data set wins",
    )
    g.add_argument("--phase1_metrics", nargs="+", metavar="F", help="metrics.json of the SFT model")
    g.add_argument("--runs", nargs="+", metavar="NAME=F", help="instead: any number of evaluations against one base")
    g.add_argument(
        "--base", metavar="NAME", help="of --runs, the one that the others are held against (default: the first)"
    )
    g.add_argument("--output_dir", type=output_folder, required=True, help="where the report goes")
    g.add_argument("--allow_mismatch", action="store_true", help="exit 0 although the phases were measured differently")
    g = p.add_argument_group("what else is known of the run")
    g.add_argument(
        "--train_log",
        nargs="+",
        type=Path,
        default=[],
        metavar="F",
        help="verl's console log or train_metrics.jsonl, for the loss curve",
    )
    g.add_argument(
        "--train_data",
        type=Path,
        metavar="F",
        help="sft_train.parquet: 2,000 rows are compiled and compared with the evaluation's form",
    )
    g.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="folder of the eval_step_N folders (default: the one that holds Phase 1's)",
    )
    g = p.add_argument_group("what else is wanted")
    g.add_argument("--gate", type=Path, metavar="F", help="rules.toml: exit 1 with the failing rules")
    g.add_argument("--qa_html", action="store_true", help="also write qa.html from Phase 1's qa_logs/, failures first")
    g.add_argument(
        "--resamples", type=int, default=stats.RESAMPLES, help="of the bootstrap and permutation tests (default: 10000)"
    )
    g.add_argument("--seed", type=int, default=stats.SEED, help="seed of the same tests (default: 42)")
    args = p.parse_args()
    if bool(args.runs) == bool(args.phase0_metrics or args.phase1_metrics):
        raise BadInput("give --phase0_metrics and --phase1_metrics, or --runs NAME=metrics.json … instead of both")
    if not args.runs and not (args.phase0_metrics and args.phase1_metrics):
        raise BadInput("--phase0_metrics and --phase1_metrics go together; give the metrics.json of both sides")
    if args.base and not args.runs:
        raise BadInput("--base names one of --runs; leave it out, Phase 0 is the base")
    for name in ("gate", "qa_html", "train_log", "train_data", "checkpoints"):
        if args.runs and getattr(args, name):
            raise BadInput(f"--{name} belongs to a comparison of two phases; leave it out beside --runs")
    if args.resamples < 100:
        raise BadInput(
            f"--resamples {args.resamples}: fewer than 100 give no p below .02 and no 95% interval; leave it "
            f"at {stats.RESAMPLES}"
        )
    if not 0 <= args.seed < 2**32:
        raise BadInput(f"--seed {args.seed}: numpy takes seeds from 0 to 4294967295")
    if args.checkpoints and not args.checkpoints.is_dir():
        raise BadInput(f"--checkpoints {args.checkpoints}: no such folder; give the one that holds eval_step_N/")
    return args


def main() -> int:
    args = parse_args()
    if args.runs:
        return many_runs(args)
    rules = read_gate(args.gate) if args.gate else []
    phase0, phase1 = read_side("Phase 0", args.phase0_metrics), read_side("Phase 1", args.phase1_metrics)
    refuse_same_file(phase0, phase1)
    refuse_unknown_sets(args.gate, rules, phase0.datasets | phase1.datasets)
    files = dict.fromkeys(d.source for side in (phase0, phase1) for d in side.datasets.values())
    folders = [d.source.parent for side in (phase0, phase1) for d in side.datasets.values()]
    final = next(iter(phase1.datasets.values())).source.parent
    checkpoints, damaged = finished_evaluations(args.checkpoints or final.resolve().parent)
    looked, looked_too_often = looks(folders, phase1.datasets)
    evidence = Evidence(
        phase0,
        phase1,
        rows=fill_rows(phase0, phase1, args.seed, args.resamples),
        more_rows=more_rows(phase0, phase1, args.seed, args.resamples),
        flips=all_flips(phase0, phase1),
        train_log=read_train_log(args.train_log),
        train_data=check_train_data(args.train_data) if args.train_data else None,
    )

    findings = comparability(phase0, phase1)
    repeated = same_weights(phase0, phase1, checkpoints.values())
    v = verdict(evidence.rows, findings, args.allow_mismatch, evidence.silent_rises, evidence.more_rows)
    gate_failed = check_gate(rules, evidence, v)
    left_out = [f"checkpoint curves leave out {line}" for line in damaged]
    warned = warnings(evidence, looked_too_often, repeated)
    data = {
        "verdict": asdict(v),
        "sources": [*phase0.sources(), *phase1.sources()],
        "read": {path_beside(file, args.output_dir / "comparison_data.json"): sha256_file(file) for file in files},
        "models": {"phase0": phase0.fingerprints(), "phase1": phase1.fingerprints()},
        "findings": [asdict(f) for f in findings],
        "gate": rules,
        "gate_failed": gate_failed,
        "warnings": warned,
        **what_was_seen(evidence),
        "checkpoints": [{"step": c.step, "datasets": c.datasets} for c in checkpoints.values()],
        "same_weights": [r.as_json() for r in repeated.rows],
        "train_data": train_data_field(evidence),
        "notes": [*phase0.notes, *phase1.notes, *looked, *left_out, *repeated.left_out],
        "method": METHOD.format(resamples=args.resamples, seed=args.seed),
        "stamp": run_stamp(vars(args)),
    }

    rows = [*evidence.rows, *evidence.more_rows]
    summary = text_summary(data, rows)
    screen = first_screen(phase0, phase1, v, findings, warned, args.output_dir)
    plots = figures(evidence, list(checkpoints.values()))
    pages = {
        "comparison_table.md": markdown(data, rows),
        "report.html": report_html(
            context=data, rows=rows, verdict=v, screen=screen, flips=evidence.flips, figures=plots
        ),
        "summary.txt": summary,
    }
    if args.qa_html:
        logs = [d.source.parent / "qa_logs" / f"{d.dataset}_qa.jsonl" for d in phase1.datasets.values()]
        pages["qa.html"] = qa_html(logs, f"QA log of {final.name}")
    write_together(args.output_dir, {"comparison_data.json": json_text(data), **pages})
    print_plainly(summary)
    print(f"written: {', '.join(sorted(['comparison_data.json', *pages]))} in {args.output_dir}")
    show_next(screen.next.words, screen.next.command)
    return int(bool(gate_failed) or v.word == "not_comparable")


def figures(evidence: Evidence, checkpoints: list[FinishedEvaluation]) -> list[tuple[str, str]]:
    """(caption, SVG) of every plot of the page that the data allows."""
    from phase1.report import figures as plots  # late: matplotlib takes half a second, which refused input saves

    return plots.figures(evidence, checkpoints)


def many_runs(args: argparse.Namespace) -> int:
    """Any number of evaluations against one of them, instead of Phase 1 against Phase 0."""
    runs = read_runs(parse_named(args.runs), args.base, args.seed, args.resamples)
    data = {
        **runs.as_json(),
        "notes": [note for r in runs.runs for note in r.side.notes],
        "method": METHOD.format(resamples=args.resamples, seed=args.seed)
        + " With --runs it runs over all rows of all.",
        "stamp": run_stamp(vars(args)),
    }
    from phase1.report.runs_pages import markdown_runs, runs_html, terminal  # late, as figures

    summary = terminal(runs)
    pages = {"runs.html": runs_html(data, runs), "runs.md": markdown_runs(data, runs)}
    write_together(args.output_dir, {"runs.json": json_text(data), **pages})
    print_plainly(summary)
    print(f"written: runs.json, {', '.join(pages)} in {args.output_dir}")
    return int(not runs.comparable and not args.allow_mismatch)


def print_plainly(text: str) -> None:
    """Print, also under an ASCII locale, which cron may have."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text)


if __name__ == "__main__":
    run_script(main)
