"""The check of the report: no model is handed over that the report condemns."""

from __future__ import annotations

from phase1.contract.state.handoff import CheckResult
from phase1.files import fingerprint
from phase1.handoff.handoff import Handoff, verdict
from phase1.handoff.run_folders import Comparison, comparison_at

CONDEMNED = ("worse", "mixed", "maybe_worse", "silent", "not_comparable")  # words of phase1.report.verdict.WORDS
PRAISED = ("improved",)
CURE = 'mend it, or say --accept "reason"'


def check_report(h: Handoff) -> CheckResult:
    """The report compares this very model with this very base by the evaluations of now, alike measured, and does not
    call it worse.

    With `--accept` a failure becomes a warning, and the reason stands beside it.
    """
    comparison = comparison_at(h.report) if h.report else None
    failures, warnings = faults(h, comparison)
    reason = h.settings.accept
    data = {"accepted": reason} if failures and reason else {}
    if failures and reason:
        failures, warnings = [], [*failures, *warnings, f"accepted: {reason}"]
    line = comparison.line if comparison else ""
    found = comparison.verdict if comparison else None
    return verdict("report", failures, warnings, line, path=str(h.report), verdict=found, **data)


def faults(h: Handoff, comparison: Comparison | None) -> tuple[list[str], list[str]]:
    """What the report says against the model, and what is merely to be known."""
    if comparison is None:
        return [f"{h.report or 'the report'}: no report of this model; run generate_report.py, or {CURE}"], []
    failures, warnings = [], []
    if comparison.word in CONDEMNED or comparison.word is None:
        failures.append(f"the report says: {comparison.line}; {CURE}")
    elif comparison.mismatches:
        found = comparison.mismatches
        failures.append(f"the report passes over {len(found)} mismatches (--allow_mismatch), first {found[0]}; {CURE}")
    elif comparison.word not in PRAISED:
        warnings.append(f"the report says: {comparison.line}")
    if comparison.outdated:
        failures.append(f"{comparison.outdated[0]}: is not what the report read; write the report again, or {CURE}")
    if comparison.phase1 is None:
        warnings.append("the report does not say which files it is of")
    elif comparison.phase1 != [fingerprint(h.model)]:
        failures.append(f"the report is of other files than this model's; write it again, or {CURE}")
    if h.base and comparison.phase0 is None:
        warnings.append("the report does not say which base model it compares with")
    elif h.base and comparison.phase0 != [fingerprint(h.base)]:
        failures.append(f"the report compares with another base model than {h.base}; write it again, or {CURE}")
    return failures, warnings
