"""Compare Phase 0 and Phase 1: three tables, statistics, flips and one verdict.

    python generate_report.py --phase0_metrics outputs/phase0_*/metrics.json \\
        --phase1_metrics outputs/eval_final/metrics.json --output_dir outputs/report/
    python generate_report.py --phase0_metrics P0/metrics.json --phase1_metrics P1/metrics.json \\
        --output_dir outputs/report/ --gate rules.toml
    python generate_report.py … --train_log outputs/logs/train.log --train_data data/sft_train.parquet --qa_html

Writes comparison_table.md, comparison_data.json, summary.txt and report.html (and qa.html). The first line of each is
the verdict. Exit 0 done, 1 the phases are not comparable or a gate rule failed (the report is written all the same), 2
bad input.
"""

import argparse
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phase1.evaluate.looks import looks
from phase1.files import BadInput, run_script, run_stamp, write_json, write_text
from phase1.report import stats
from phase1.report.figures import figures
from phase1.report.flips import all_flips, top_exceptions
from phase1.report.form import HEADING, form_and_programs, form_lines, markdown_form
from phase1.report.inputs import (
    MISMATCH,
    NOTE,
    UNCHECKED,
    check_train_data,
    comparability,
    read_checkpoints,
    read_side,
)
from phase1.report.pages import qa_html, report_html
from phase1.report.tables import (
    HEADINGS,
    NONE,
    fill_rows,
    markdown_overview,
    markdown_table,
    overview,
    row_answer,
    row_change,
    show_value,
)
from phase1.report.text import markdown_text, shown
from phase1.report.verdict import (
    Evidence,
    check_anomalies,
    check_expected,
    check_gate,
    read_gate,
    train_data_warnings,
    verdict,
    warnings_of,
)
from phase1.train.log import read_train_log

METHOD = (
    "Answers: improved, worse, equivalent (within 2 pp; asked of HumanEval and MBPP_reg only) or not shown; "
    "rose or fell where neither "
    "direction is better. Rates: McNemar's mid-p test on the same problems, Tango's interval; numbers: paired "
    "permutation test, "
    "bootstrap interval ({resamples:,} resamples, seed {seed}); percentiles: that interval and no answer. p is "
    "Holm-corrected over the quality and error rows together, and "
    "over the cost rows. Without per-problem records: score test and Newcombe's interval of two independent "
    "rates, which pairing would narrow."
)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # what is compared
    p.add_argument(
        "--phase0_metrics",
        nargs="+",
        required=True,
        metavar="F",
        help="metrics.json of the base model; of several, the newest a data set wins",
    )
    p.add_argument("--phase1_metrics", nargs="+", required=True, metavar="F", help="metrics.json of the SFT model")
    p.add_argument("--output_dir", type=Path, required=True, help="where the report goes")
    p.add_argument("--allow_mismatch", action="store_true", help="exit 0 although the phases were measured differently")
    # what else is known of the run
    p.add_argument(
        "--train_log",
        nargs="+",
        type=Path,
        default=[],
        metavar="F",
        help="verl's console log or train_metrics.jsonl, for the loss curve",
    )
    p.add_argument(
        "--train_data",
        type=Path,
        metavar="F",
        help="sft_train.parquet: 2,000 rows are compiled and compared with the evaluation's form",
    )
    p.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="folder of the eval_step_N folders (default: the one that holds Phase 1's)",
    )
    # what else is wanted
    p.add_argument("--gate", type=Path, metavar="F", help="rules.toml: exit 1 with the failing rules")
    p.add_argument("--qa_html", action="store_true", help="also write qa.html from Phase 1's qa_logs/, failures first")
    p.add_argument(
        "--resamples", type=int, default=stats.RESAMPLES, help="of the bootstrap and permutation tests (default: 10000)"
    )
    p.add_argument("--seed", type=int, default=stats.SEED, help="of the same (default: 42)")
    args = p.parse_args()
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
    rules = read_gate(args.gate) if args.gate else []
    phase0, phase1 = read_side("Phase 0", args.phase0_metrics), read_side("Phase 1", args.phase1_metrics)
    findings = comparability(phase0, phase1)
    rows = fill_rows(phase0, phase1, args.seed, args.resamples)
    flips = all_flips(phase0, phase1)
    source = next(iter(phase1.datasets.values())).source.parent
    checkpoints, checkpoint_notes = read_checkpoints(args.checkpoints or source.resolve().parent)
    train_log = read_train_log(args.train_log)
    looked, looked_too_often = looks(
        (d.source.parent for side in (phase0, phase1) for d in side.datasets.values()), phase1.datasets
    )
    evidence = Evidence(
        phase0, phase1, rows, flips, train_log, check_train_data(args.train_data) if args.train_data else None
    )
    v = verdict(rows, findings, args.allow_mismatch)
    gate_failed = check_gate(rules, evidence, v)

    data: dict[str, Any] = {
        "verdict": asdict(v),
        "sources": [*phase0.sources(), *phase1.sources()],
        "findings": [asdict(f) for f in findings],
        "gate": rules,
        "gate_failed": gate_failed,
        "warnings": [*warnings_of(phase1, phase0), *looked_too_often, *train_data_warnings(evidence.train_data)],
        "rows": [r.as_json() for r in rows],
        "expected": check_expected(evidence),
        "anomalies": check_anomalies(evidence),
        "flips": {
            f.dataset: {
                "pairs": f.pairs,
                "broken": [x.problem_id for x, _ in f.broken],
                "fixed": [x.problem_id for x, _ in f.fixed],
            }
            for f in flips
        },
        "transitions": {
            f.dataset: {
                "pairs": f.pairs,
                "types": f.types,
                "rows": [[f.transitions.get((a, b), 0) for b in f.types] for a in f.types],
            }
            for f in flips
        },
        "exceptions": {
            d: {
                "phase0": top_exceptions(phase0.datasets[d].records.values()) if d in phase0.datasets else [],
                "phase1": top_exceptions(r.records.values()),
            }
            for d, r in phase1.datasets.items()
            if r.records
        },
        "overview": overview(phase0, phase1),
        "form": form_and_programs(phase0, phase1),
        "checkpoints": [{"step": s, "datasets": d} for s, d in checkpoints],
        "train_data": evidence.train_data,
        "notes": [*phase0.notes, *phase1.notes, *looked, *checkpoint_notes],
        "method": METHOD.format(resamples=args.resamples, seed=args.seed),
        "stamp": run_stamp(vars(args)),
    }

    summary = text_summary(data, rows)
    pages = {
        "comparison_table.md": markdown(data, rows),
        "report.html": report_html(data, rows, v, flips, figures(evidence, checkpoints)),
        "summary.txt": summary,
    }
    if args.qa_html:
        logs = [d.source.parent / "qa_logs" / f"{d.dataset}_qa.jsonl" for d in phase1.datasets.values()]
        pages["qa.html"] = qa_html(logs, f"QA log of {source.name}")
    write_json(args.output_dir / "comparison_data.json", data)  # from here on no input can be bad
    for name, text in pages.items():
        write_text(args.output_dir / name, text)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # cron may run under an ASCII locale
    print(summary)
    print(f"written: {', '.join(sorted(['comparison_data.json', *pages]))} in {args.output_dir}")
    return int(bool(gate_failed) or v.word == "not_comparable")


def markdown(data: dict[str, Any], rows: list) -> str:
    """comparison_table.md: the verdict, the seed's three tables, and what one must know to read them."""
    parts = [f"**VERDICT: {markdown_text(data['verdict']['line'], 2000)}**", bullets(data["sources"])]
    for kind, heading in (
        (MISMATCH, "NOT COMPARABLE: the two phases did not measure the same thing"),
        (UNCHECKED, "Could not be checked"),
    ):
        found = [f["text"] for f in data["findings"] if f["kind"] == kind]
        parts += [f"**{heading}**\n\n{bullets(found)}"] if found else []
    if data["gate_failed"]:
        parts.append("**GATE CLOSED**\n\n" + bullets(data["gate_failed"]))
    if data["warnings"]:
        parts.append("**Before believing a figure**\n\n" + bullets(data["warnings"]))
    parts += [f"## {HEADINGS[t]}\n\n{markdown_table(rows, t)}" for t in HEADINGS]
    parts.append(data["method"])
    expected = ["| Metric | Data set | Expected | Seen | Verdict |", "|---|---|---|---|---|"]
    expected += [
        f"| {r['metric']} | {r['dataset']} | {r['expected']} | {r['seen']} | {r['verdict']} |" for r in data["expected"]
    ]
    parts.append("## Expected and seen\n\n" + "\n".join(expected))
    parts.append("## Anomalies\n\n" + "\n".join(anomaly_lines(data["anomalies"])))
    if data["flips"]:
        lines = [
            (
                f"{d}: {len(f['broken'])} solved before and not now, {len(f['fixed'])} solved now and not before, "
                f"of {f['pairs']}"
            )
            for d, f in data["flips"].items()
        ]
        parts.append("## Flips\n\n" + bullets(lines))
    if data["form"]["rows"]:
        parts.append(f"## {HEADING}\n\n{markdown_form(data['form'])}")
    parts.append("## All data sets\n\n" + markdown_overview(data["overview"]))
    notes = [*data["notes"], *(f["text"] for f in data["findings"] if f["kind"] == NOTE)]
    parts += ["## Notes\n\n" + bullets(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def bullets(texts: list[str]) -> str:
    return "\n".join(f"- {markdown_text(t, 600)}" for t in texts)


def anomaly_lines(anomalies: list[dict[str, Any]]) -> list[str]:
    lines = []
    for a in anomalies:
        if a["state"] == "seen":
            lines.append(f"- SEEN: {a['name']}. Likely: {a['causes']}. What to do: {a['remedy']}.")
            lines += [f"  - {shown(text, 600)}" for text in a["evidence"]]
        else:
            lines.append(f"- {a['state']}: {a['name']}")
    return lines


def text_summary(data: dict[str, Any], rows: list) -> str:
    """summary.txt: the verdict, the headline rows, what failed and what looks odd."""
    lines = [
        f"VERDICT: {shown(data['verdict']['line'], 2000)}",
        "",
        *(shown(source, 600) for source in data["sources"]),
    ]
    for kind, heading in ((MISMATCH, "NOT COMPARABLE"), (UNCHECKED, "not checked")):
        lines += [f"{heading}: {shown(f['text'], 600)}" for f in data["findings"] if f["kind"] == kind]
    lines += [f"GATE CLOSED: {shown(g, 600)}" for g in data["gate_failed"]]
    lines += [f"warning: {shown(w, 600)}" for w in data["warnings"]]
    lines += ["", f"{'':<30} {'Phase 0':>12} {'Phase 1':>12} {'change':>20}  answer"]
    for r in rows:
        if r.phase0 is not None or r.phase1 is not None:
            lines.append(
                f"{r.spec.label:<30} {show_value(r.phase0, r.spec.unit):>12} "
                f"{show_value(r.phase1, r.spec.unit):>12} {row_change(r):>20}  {row_answer(r)}"
            )
    expected = [
        f"{r['metric']} ({r['dataset']}): expected {r['expected']}, seen {r['seen']}: {r['verdict']}"
        for r in data["expected"]
        if r["seen"] != NONE
    ]
    lines += ["", *expected, "", *anomaly_lines([a for a in data["anomalies"] if a["state"] == "seen"])]
    lines += [
        f"{d}: {len(f['broken'])} problems solved before are not now, {len(f['fixed'])} the other way"
        for d, f in data["flips"].items()
    ]
    lines += [f"form: {line}" for line in form_lines(data["form"])]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    run_script(main)
