"""The report's section `Form and programs`: how much of a change is how the answer is written, how much what is in it.

Form is what the contract's extraction finds less what a careful reader finds; programs is what the reader finds. A base
model that never writes `<code>` may gain points by form alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phase1.evaluate.answer_forms import extraction_summary
from phase1.report.inputs import DatasetResult, Side
from phase1.report.tables import NONE, show_change, show_value

METRICS = (("accepted_at_1", "accepted@1"), ("exec_success_rate", "exec_success"))
HEADING = "Form and programs"
MEANING = (
    "contract: the program that EVAL@1's order takes; reader: the one that a careful reader would take. The "
    "reader's change is what the programs "
    "gained; what the contract's change has beyond it is form."
)


@dataclass(frozen=True)
class FormRow:
    """One metric of one data set under both extractions. A value is None where a phase did not record it."""

    dataset: str
    metric: str
    contract0: float | None
    contract1: float | None
    reader0: float | None
    reader1: float | None

    @property
    def programs(self) -> float | None:
        """The change under the reader's extraction."""
        return None if self.reader0 is None or self.reader1 is None else self.reader1 - self.reader0

    @property
    def form(self) -> float | None:
        """The change under the contract's extraction that the reader's does not show."""
        if self.programs is None or self.contract0 is None or self.contract1 is None:
            return None
        return self.contract1 - self.contract0 - self.programs

    def sentence(self) -> str:
        """What became of a change, in words."""
        if self.form is None or self.programs is None:
            return "not recorded in both phases"
        change = show_change(self.form + self.programs, "rate")
        return (
            f"{change}: {show_change(self.programs, 'rate')} by the programs, {show_change(self.form, 'rate')} by "
            "their form"
        )


def form_and_programs(phase0: Side, phase1: Side) -> dict[str, Any]:
    """What comparison_data.json holds of it: `rows` with both extractions, and `counts` of forms and rules a data set
    and phase.

    Both are empty where neither phase recorded how its programs were found.
    """
    rows, counts = [], {}
    for name in dict.fromkeys([*phase0.datasets, *phase1.datasets]):
        before, after = _summary(phase0.datasets.get(name)), _summary(phase1.datasets.get(name))
        if before is None and after is None:
            continue
        for metric, label in METRICS:
            values = [s[e][metric] if s else None for e in ("contract", "reader") for s in (before, after)]
            row = FormRow(name, label, *values)
            rows.append({**asdict(row), "programs": row.programs, "form": row.form, "sentence": row.sentence()})
        counts[name] = {"phase0": _counts(before), "phase1": _counts(after)}
    return {"rows": rows, "counts": counts}


def _summary(result: DatasetResult | None) -> dict[str, Any] | None:
    return extraction_summary(list(result.records.values())) if result else None


def _counts(summary: Mapping[str, Any] | None) -> dict[str, str]:
    """Forms, rules and differences of one phase, each as a line of text."""
    if summary is None:
        return {"forms": "not recorded", "rules": "not recorded", "differ": "not recorded"}
    forms, rules = (", ".join(f"{n} {k}" for k, n in summary[what].items()) for what in ("forms", "rules"))
    return {"forms": forms, "rules": rules, "differ": str(summary["differ"])}


def markdown_form(found: Mapping[str, Any]) -> str:
    """The section's two tables in Markdown; "" where nothing was recorded."""
    if not found["rows"]:
        return ""
    lines = [
        "| Data set | Metric | contract, Phase 0 | Phase 1 | reader, Phase 0 | Phase 1 | Change |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in found["rows"]:
        values = [show_value(r[k], "rate") for k in ("contract0", "contract1", "reader0", "reader1")]
        lines.append(f"| {r['dataset']} | {r['metric']} | " + " | ".join(values) + f" | {r['sentence']} |")
    lines += ["", "| Data set | Phase | Forms | The reader's rules | Other program |", "|---|---|---|---|---|"]
    for name, phases in found["counts"].items():
        for phase, c in phases.items():
            lines.append(f"| {name} | {phase[-1]} | {c['forms'] or NONE} | {c['rules'] or NONE} | {c['differ']} |")
    return "\n".join([MEANING, "", *lines])


def form_lines(found: Mapping[str, Any]) -> Sequence[str]:
    """A line a data set whose change in accepted@1 or exec_success is partly form, for summary.txt."""
    return [
        f"{r['dataset']}, {r['metric']}: {r['sentence']}"
        for r in found["rows"]
        if r["form"] is not None and abs(r["form"]) > 1e-9
    ]
