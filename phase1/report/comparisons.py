"""The report's section `Rules for outputs`: what a problem's own rule does to the figures, and what others would.

Outputs are compared by the problem's own rule where it has one (docs/judge.md). It was read out of the statement, so it
may be wrong: how many problems it touches, and what they would have come to without it, is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phase1.evaluate.comparisons import comparison_summary
from phase1.judge.compare import SHOWN
from phase1.report.escaping import markdown_text
from phase1.report.inputs import DatasetResult, Side, value_of
from phase1.report.tables import show_value

HEADING = "Rules for outputs"
MEANING = (
    "As judged: by the problem's own rule where it has one, read out of its statement or corrected by hand, and by "
    "--compare elsewhere. Beside it the same programs under one rule for all problems; other verdicts: the problems "
    "that it would judge otherwise."
)
JUDGED = "as judged"
NOT_RECORDED = "not recorded"


def rules_for_outputs(phase0: Side, phase1: Side) -> dict[str, Any]:
    """What comparison_data.json holds of it: `rules` by data set and phase, and `rows`, one a data set and rule.

    A row has `accepted0` and `accepted1` (accepted@1) and `differ0` and `differ1` (problems); None where a phase did
    not record it. Both are empty where neither did.
    """
    rows: list[dict[str, Any]] = []
    rules: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys([*phase0.datasets, *phase1.datasets]):
        sides = [phase0.datasets.get(name), phase1.datasets.get(name)]
        summaries = [_summary(side) for side in sides]
        if summaries == [None, None]:
            continue
        rules[name] = {f"phase{i}": _rules(found) for i, found in enumerate(summaries)}
        values = [value_of(side, "accepted_at_1") for side in sides]
        rows.append({"dataset": name, "rule": JUDGED, **_row(values, [None, None])})
        for mode in SHOWN:
            under = [{} if summary is None else summary[mode] for summary in summaries]
            row = _row([u.get("accepted_at_1") for u in under], [u.get("differ") for u in under])
            rows.append({"dataset": name, "rule": mode, **row})
    return {"rows": rows, "rules": rules}


def _row(accepted: Sequence[float | None], differ: Sequence[int | None]) -> dict[str, float | None]:
    return {"accepted0": accepted[0], "accepted1": accepted[1], "differ0": differ[0], "differ1": differ[1]}


def _summary(result: DatasetResult | None) -> dict[str, Any] | None:
    return comparison_summary(list(result.records.values())) if result else None


def _rules(summary: Mapping[str, Any] | None) -> str:
    """The problems with a rule of their own in one phase, as a line of text."""
    if summary is None:
        return NOT_RECORDED
    found = summary["rules"]
    told = ", ".join(f"{n} by {rule}" for rule, n in found.items())
    return f"{sum(found.values())}: {told}" if found else "0"


def differ_cell(row: Mapping[str, Any], phase: int) -> str:
    """How many problems a rule would judge otherwise, as a cell of the table."""
    if row["rule"] == JUDGED:
        return "-"
    count = row[f"differ{phase}"]
    return NOT_RECORDED if count is None else str(count)


def markdown_rules(found: Mapping[str, Any]) -> str:
    """The section's two tables in Markdown."""
    lines = [
        "| Data set | Rule | accepted@1, Phase 0 | Phase 1 | Other verdicts, Phase 0 | Phase 1 |",
        "|---|---|---|---|---|---|",
    ]
    for r in found["rows"]:
        cells = [show_value(r[f"accepted{i}"], "rate") for i in (0, 1)] + [differ_cell(r, i) for i in (0, 1)]
        lines.append(f"| {markdown_text(r['dataset'], 60)} | {r['rule']} | " + " | ".join(cells) + " |")
    lines += ["", "| Data set | Phase | Problems with a rule of their own |", "|---|---|---|"]
    for name, phases in found["rules"].items():
        for phase, told in phases.items():
            lines.append(f"| {markdown_text(name, 60)} | {phase[-1]} | {markdown_text(told, 600)} |")
    return "\n".join([MEANING, "", *lines])


def rule_lines(found: Mapping[str, Any]) -> Sequence[str]:
    """A line a data set with problems that have a rule of their own, for summary.txt."""
    return [
        f"{name}: problems with a rule of their own: Phase 0 {told['phase0']}; Phase 1 {told['phase1']}"
        for name, told in found["rules"].items()
        if any(text not in ("0", NOT_RECORDED) for text in told.values())
    ]
