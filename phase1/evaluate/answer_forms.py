"""What the answers of an evaluation look like, and what they would have scored under the other extraction.

`contract` is the order that EVAL@1 fixes, `reader` what a careful reader takes (phase1/contract/extraction.py). Their
difference is form: programs that were right and not found, or wrong text that happened to be taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import JsonValue

from phase1.contract.extraction import COMPARED
from phase1.contract.records import EXEC_SUCCESS, Record


def extraction_summary(records: Sequence[Record]) -> dict[str, JsonValue] | None:
    """The `extraction` entry of summary.json; None where the records do not say how their programs were found.

    `forms`: how many answers have each of the contract's forms; `rules`: by which rule the reader found the program;
    `differ`: answers of which the two take different programs; for each extraction `accepted_at_1` and
    `exec_success_rate` over all problems.
    """
    known = [r for r in records if r.rule]
    if not known:
        return None
    summary: dict[str, JsonValue] = {
        "forms": dict(Counter(r.form for r in known).most_common()),
        "rules": dict(Counter(r.rule for r in known).most_common()),
        "differ": sum(r.other is not None for r in records),
    }
    for extraction in COMPARED:
        accepted = succeeded = 0
        for r in records:
            other = r.other if r.other is not None and r.other["extraction"] == extraction else None
            accepted += other["accepted"] if other else r.accepted
            succeeded += (other["error_type"] if other else r.error_type) in EXEC_SUCCESS
        summary[extraction] = {"accepted_at_1": accepted / len(records), "exec_success_rate": succeeded / len(records)}
    return summary
