"""Figures against the records that they derive from: metrics.json and summary.json are copies, and may be edited."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from phase1.contract.records import Record
from phase1.evaluate.metrics import dataset_metrics, dataset_summary


def first_difference(figures: Mapping[str, object], records: Sequence[Record]) -> str:
    """The first figure of a data set that its records do not make, in words; "" where all follow from them.

    Args:
        figures: by the names of metrics.json or summary.json; what is no number is passed over.
        records: of all answers, or of the first to each problem, which all of these figures count alone.
    """
    counted = {**dataset_summary(records), **dataset_metrics(records)}
    for key, figure in figures.items():
        said, again = _number(figure), _number(counted.get(key))
        if said is not None and again is not None and not math.isclose(said, again, rel_tol=1e-6, abs_tol=1e-6):
            return f"{key} {said:g}, the records beside it {again:g}"
    return ""


def _number(value: object) -> float | None:
    """A finite number; true and false are none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None  # type: ignore[return-value,arg-type]
