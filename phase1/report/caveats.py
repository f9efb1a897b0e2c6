"""What a reader must know before believing a figure of the report."""

from __future__ import annotations

from statistics import fmean

from phase1.contract.own_sets import size_warning
from phase1.contract.problems import EVAL_SETS
from phase1.report.inputs import Side
from phase1.report.train_data import TrainData


def warnings_of(phase1: Side, phase0: Side) -> list[str]:
    """What a reader must know before believing a figure: sets of another size than the
    contract's, problems without a verdict, truncation, many timeouts."""
    sizes = {name: d.n for side in (phase0, phase1) for name, d in side.datasets.items() if d.n}
    found = [warning] if (warning := size_warning(sizes, EVAL_SETS)) else []
    for side in (phase0, phase1):
        for name, d in side.datasets.items():
            counts = {
                e: sum(r.error_type == e for r in d.records.values())
                for e in ("empty_output", "api_error", "sandbox_error")
            }
            if any(counts.values()):
                what = ", ".join(f"{e} {n}" for e, n in counts.items() if n)
                judged = [r for r in d.records.values() if r.error_type not in ("api_error", "sandbox_error")]
                share = (
                    f"; accepted@1 of the {len(judged)} judged ones: {fmean(r.accepted for r in judged):.1%}"
                    if judged and len(judged) < len(d.records)
                    else ""
                )
                found.append(f"{side.label}, {name}: {what} of {len(d.records)} count as unsolved above{share}")
            elif (rate := d.values.get("api_error_rate", 0) or 0) > 0:
                found.append(
                    f"{side.label}, {name}: generation failed for {rate:.1%} of the problems, which count as unsolved"
                )
            for key, limit, what in (
                ("truncation_rate", 0.05, "answers were cut off at the token limit"),
                ("timeout_rate", 0.10, "programs timed out"),
                ("silent_rate", 0.05, "programs ran to their end and printed nothing, which exec_success_rate counts"),
            ):
                if (d.values.get(key) or 0) > limit:
                    found.append(f"{side.label}, {name}: {d.values[key]:.1%} of the {what} (more than {limit:.0%})")
    return found


def train_data_warnings(train_data: TrainData | None) -> list[str]:
    """The training row that ended the compiler, where there is one."""
    return [train_data.compiler_died] if train_data and train_data.compiler_died else []
