"""comparison_table.md and summary.txt: the report for pull requests and notes, and for terminal, mail and cron."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from phase1.report import comparisons, same_weights
from phase1.report.answer_forms import HEADING, form_lines, markdown_form
from phase1.report.comparability import MISMATCH, NOTE, UNCHECKED
from phase1.report.escaping import markdown_text, shown
from phase1.report.tables import (
    HEADINGS,
    MORE_HEADINGS,
    NONE,
    Row,
    markdown_overview,
    markdown_table,
    row_answer,
    row_change,
    show_value,
)

COLUMNS = 80  # of a terminal: the rows of summary.txt are no wider
NAMED = 36  # of them for a row's name


def markdown(data: dict[str, Any], rows: Sequence[Row]) -> str:
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
    parts += [
        f"## {heading}\n\n{markdown_table(rows, t)}"
        for t, heading in MORE_HEADINGS.items()
        if any(r.spec.table == t for r in rows)
    ]
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
    if data["outputs"]["rows"]:
        parts.append(f"## {comparisons.HEADING}\n\n{comparisons.markdown_rules(data['outputs'])}")
    if data["same_weights"]:
        parts.append(f"## {same_weights.HEADING}\n\n{same_weights.markdown_same_weights(data['same_weights'])}")
    parts.append("## All data sets\n\n" + markdown_overview(data["overview"]))
    notes = [*data["notes"], *(f["text"] for f in data["findings"] if f["kind"] == NOTE)]
    parts += ["## Notes\n\n" + bullets(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def bullets(texts: list[str]) -> str:
    """The texts as a list in Markdown."""
    return "\n".join(f"- {markdown_text(t, 600)}" for t in texts)


def anomaly_lines(anomalies: list[dict[str, Any]]) -> list[str]:
    """A line an anomaly in Markdown: what was seen with causes, remedy and evidence."""
    lines = []
    for a in anomalies:
        if a["state"] == "seen":
            lines.append(f"- SEEN: {a['name']}. Likely: {a['causes']}. What to do: {a['remedy']}.")
            lines += [f"  - {shown(text, 600)}" for text in a["evidence"]]
        else:
            lines.append(f"- {a['state']}: {a['name']}")
    return lines


def text_summary(data: dict[str, Any], rows: Sequence[Row]) -> str:
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
    lines += ["", f"{'':<{NAMED}}{'Phase 0':>13}{'Phase 1':>13}{'change':>18}"]
    for r in rows:
        if r.phase0 is not None or r.phase1 is not None:
            values = [show_value(v, r.spec.unit) for v in (r.phase0, r.phase1)]
            label = shown(r.spec.label, COLUMNS)
            if len(label) >= NAMED:  # a line of its own
                lines, label = [*lines, label], ""
            lines.append(f"{label:<{NAMED}}{values[0]:>13}{values[1]:>13}{row_change(r):>18}")
            lines += textwrap.wrap(row_answer(r), COLUMNS, initial_indent="    ", subsequent_indent="    ")
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
    lines += [f"same weights: {r['sentence']}" for r in data["same_weights"]]
    lines += [f"form: {line}" for line in form_lines(data["form"])]
    lines += [f"outputs: {line}" for line in comparisons.rule_lines(data["outputs"])]
    return "\n".join(lines).rstrip() + "\n"
