"""What moved below the means: problems that flipped, error-type transitions, exception messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from phase1.contract.records import MODEL_ERRORS, OTHER_ERRORS, Record
from phase1.report.escaping import shown
from phase1.report.inputs import DatasetResult, Side


@dataclass
class Flips:
    """One data set, problems in common: what was solved before and is not now (`broken`), and the reverse (`fixed`)."""

    dataset: str
    pairs: int
    broken: list[tuple[Record, Record]]
    fixed: list[tuple[Record, Record]]
    transitions: dict[tuple[str, str], int]  # (Phase 0 type, Phase 1 type) -> problems

    @property
    def types(self) -> list[str]:
        """The error types that occur, best first."""
        seen = {t for pair in self.transitions for t in pair}
        known = [t for t in (*reversed(MODEL_ERRORS), *OTHER_ERRORS) if t in seen]
        return known + sorted(seen - set(known))


def flips(a: DatasetResult, b: DatasetResult) -> Flips:
    """Pair two phases' records of one data set. The worst falls come first: those that no longer even run."""
    pairs = [(a.records[i], b.records[i]) for i in sorted(a.records.keys() & b.records.keys())]
    rank = {t: i for i, t in enumerate(MODEL_ERRORS)}
    broken = [(x, y) for x, y in pairs if x.accepted and not y.accepted]
    fixed = [(x, y) for x, y in pairs if y.accepted and not x.accepted]
    broken.sort(key=lambda p: (rank.get(p[1].error_type, -1), p[1].problem_id))
    fixed.sort(key=lambda p: (rank.get(p[0].error_type, -1), p[0].problem_id))
    return Flips(
        dataset=a.dataset,
        pairs=len(pairs),
        broken=broken,
        fixed=fixed,
        transitions=Counter((x.error_type, y.error_type) for x, y in pairs),
    )


def all_flips(phase0: Side, phase1: Side) -> list[Flips]:
    """The flips of every data set of which both phases have records."""
    both = [d for d in phase1.datasets if d in phase0.datasets]
    found = [flips(phase0.datasets[d], phase1.datasets[d]) for d in both]
    return [f for f in found if f.pairs]


def top_exceptions(records: Iterable[Record], n: int = 10) -> list[tuple[str, int]]:
    """The commonest failure messages of runtime and syntax errors, numbers and quoted names made equal."""
    counts = Counter(
        _message(r) or f"({r.error_type} without a message)"
        for r in records
        if r.error_type in ("runtime_error", "syntax_error")
    )
    return sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:n]


def exception_types(records: Iterable[Record], n: int = 5) -> list[tuple[str, int]]:
    """The commonest exception types among runtime and syntax errors."""
    counts = Counter(
        _message(r).split(":")[0] or "(no message)"
        for r in records
        if r.error_type in ("runtime_error", "syntax_error")
    )
    return sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:n]


def _message(r: Record) -> str:
    text = shown(str(r.detail).strip().rsplit("\n", 1)[-1], 300)
    if r.error_type == "syntax_error" and text and not re.match(r"\w*(Error|Exception)\b", text):
        text = f"SyntaxError: {text}"
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", text)
    return re.sub(r"\b\d+\b", "N", text)
