"""comparison_data.json: everything that the pages show, in full precision. docs/05 says what each field holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from phase1.report.anomalies import check_anomalies
from phase1.report.answer_forms import form_and_programs
from phase1.report.caveats import train_data_warnings, warnings_of
from phase1.report.comparisons import rules_for_outputs
from phase1.report.evidence import Evidence
from phase1.report.expected_and_seen import check_expected
from phase1.report.flips import Flips, top_exceptions
from phase1.report.inputs import Side
from phase1.report.same_weights import SameWeights
from phase1.report.tables import overview

METHOD = (
    "Answers: improved, worse, equivalent (within 2 pp; asked of HumanEval and MBPP_reg only), no clear difference, or "
    "too small to tell: not even the largest change that is expected would have been found; rose or fell where neither "
    "direction is better. Finds: the smallest true change that 80 of 100 such runs show, before the correction for "
    "many rows. That correction (Holm): of many rows asked together some fall below .05 by chance, so each must do "
    "better than that; it runs over the quality and error rows together, over the cost rows, over the pooled rows and "
    "over those of several answers. Rates: McNemar's mid-p test on the same problems, Tango's interval; "
    "numbers: paired permutation test, bootstrap interval ({resamples:,} resamples, seed {seed}), both by problem; "
    "percentiles: that interval and no answer. Without per-problem records: score test and Newcombe's interval of two "
    "independent rates, which pairing would narrow."
)


def what_was_seen(e: Evidence) -> dict[str, Any]:
    """The fields that follow from the evidence alone."""
    return {
        "rows": [r.as_json() for r in e.rows],
        "more_rows": [r.as_json() for r in e.more_rows],
        "expected": check_expected(e),
        "anomalies": check_anomalies(e),
        "flips": {f.dataset: _flipped(f) for f in e.flips},
        "transitions": {f.dataset: _transitions(f) for f in e.flips},
        "exceptions": _exceptions(e.phase0, e.phase1),
        "overview": overview(e.phase0, e.phase1),
        "form": form_and_programs(e.phase0, e.phase1),
        "outputs": rules_for_outputs(e.phase0, e.phase1),
    }


def warnings(e: Evidence, looked_too_often: Sequence[str], repeated: SameWeights) -> list[str]:
    """What to know before believing a figure; `looked_too_often` is what the log of the test-only sets says,
    `repeated` what two evaluations of the same weights do."""
    silent = [f"{rise.dataset}: {rise.words()}" for rise in e.silent_rises]
    noisy = [r.sentence() for r in repeated.rows if r.hides_the_gain]
    return [*silent, *noisy, *warnings_of(e.phase1, e.phase0), *looked_too_often, *train_data_warnings(e.train_data)]


def train_data_field(e: Evidence) -> dict[str, Any] | None:
    """What the training rows look like, None where they were not given."""
    return asdict(e.train_data) if e.train_data else None


def _flipped(f: Flips) -> dict[str, Any]:
    return {
        "pairs": f.pairs,
        "broken": [before.problem_id for before, _ in f.broken],
        "fixed": [before.problem_id for before, _ in f.fixed],
    }


def _transitions(f: Flips) -> dict[str, Any]:
    counts = [[f.transitions.get((before, after), 0) for after in f.types] for before in f.types]
    return {"pairs": f.pairs, "types": f.types, "rows": counts}


def _exceptions(phase0: Side, phase1: Side) -> dict[str, Any]:
    found = {}
    for name, result in phase1.datasets.items():
        if result.records:
            before = phase0.datasets.get(name)
            found[name] = {
                "phase0": top_exceptions(before.records.values()) if before else [],
                "phase1": top_exceptions(result.records.values()),
            }
    return found
