"""The seed's 3.2 held against what was seen: a line for each range of EXPECTED."""

from __future__ import annotations

from phase1.report.evidence import Evidence
from phase1.report.expected import EXPECTED, Expected
from phase1.report.silent import of_dataset
from phase1.report.tables import NONE


def check_expected(e: Evidence) -> list[dict[str, str]]:
    """For each row of EXPECTED: expected, seen, verdict (as expected, more or less than expected, wrong direction, no
    data)."""
    found = []
    for rule in EXPECTED:
        seen = e.change(rule.dataset, rule.metric) if rule.kind == "pp" else e.relative(rule.dataset, rule.metric)
        found.append(
            {
                "metric": rule.metric,
                "dataset": rule.dataset,
                "expected": _range(rule),
                "seen": _seen(seen, rule.kind),
                "verdict": _place(rule, seen, e),
                "why": rule.why,
            }
        )
    return found


def _place(rule: Expected, seen: float | None, e: Evidence) -> str:
    if seen is None:
        return "no data" if e.change(rule.dataset, rule.metric) is None else "no relative change from 0"
    if rule.metric == "exec_success_rate" and (rise := of_dataset(e.silent_rises, rule.dataset)):
        return f"a rise of programs that {rise.kind}"
    if rule.low - 1e-9 <= seen <= rule.high + 1e-9:
        return "as expected"
    if rule.low < 0 < rule.high:
        return "rose out of the range" if seen > 0 else "fell out of the range"
    sign = 1 if rule.low > 0 else -1
    if seen * sign <= 0:
        return "no change" if seen == 0 else "wrong direction"
    return "more than expected" if abs(seen) > max(abs(rule.low), abs(rule.high)) else "less than expected"


def _range(rule: Expected) -> str:
    unit = "pp" if rule.kind == "pp" else "% relative"
    return f"{100 * rule.low:+.0f} to {100 * rule.high:+.0f} {unit}".replace(" %", "%")


def _seen(value: float | None, kind: str) -> str:
    if value is None:
        return NONE
    return f"{100 * value:+.1f} pp" if kind == "pp" else f"{100 * value:+.1f}% relative"
