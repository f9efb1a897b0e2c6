"""How many programs each rule for outputs accepts: the problem's own where it has one, and the modes beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import JsonValue

from phase1.contract.records import Record
from phase1.judge.compare import SHOWN


def comparison_summary(records: Sequence[Record]) -> dict[str, JsonValue] | None:
    """The `comparison` entry of summary.json; None where no outputs were compared, or the records do not say.

    `rules`: a problem's own rule in words -> problems, which may be empty; for each mode of SHOWN `accepted_at_1` over
    all problems and `differ`, the problems whose verdict would be another.
    """
    if all(r.accepted_under is None for r in records):
        return None
    if any(r.accepted_under is None and r.test_verdicts for r in records):
        return None  # a part was judged before it was recorded
    summary: dict[str, JsonValue] = {
        "rules": dict(Counter(r.compared_by for r in records if r.compared_by).most_common())
    }
    for mode in SHOWN:
        accepted = [bool(r.accepted_under and r.accepted_under.get(mode)) for r in records]
        summary[mode] = {
            "accepted_at_1": sum(accepted) / len(records),
            "differ": sum(a != r.accepted for a, r in zip(accepted, records, strict=True)),
        }
    return summary
