"""The seed's 3.2: the change that is expected of each metric. A new range: a line of EXPECTED."""

from __future__ import annotations

from dataclasses import dataclass

VALID = "codecontests_valid"


@dataclass(frozen=True)
class Expected:
    """One row of the seed's 3.2. `low` to `high` in the stated kind: change in pp (as a share) or relative change."""

    metric: str
    dataset: str
    kind: str  # pp, relative
    low: float
    high: float
    why: str


EXPECTED = (
    Expected("exec_success_rate", VALID, "pp", 0.20, 0.40, "SFT teaches the I/O form and Python's syntax"),
    Expected("syntax_error_rate", VALID, "relative", -0.60, -0.30, "the most direct effect of SFT"),
    Expected("runtime_error_rate", VALID, "relative", -0.30, -0.10, "better code overall"),
    Expected("timeout_rate", VALID, "relative", -0.30, -0.10, "more efficient algorithms"),
    Expected("accepted_at_1", VALID, "pp", 0.01, 0.05, "more programs run, so more may pass"),
    Expected("pass_ratio_mean", VALID, "pp", 0.05, 0.15, "fewer errors, more tests passed"),
    Expected("accepted_at_1", "humaneval", "pp", -0.02, 0.02, "no significant regression"),
    Expected("accepted_at_1", "mbpp_reg", "pp", -0.02, 0.02, "no significant regression"),
)


def largest_expected(dataset: str, metric: str, phase0: float | None) -> float | None:
    """The largest change, up or down, that the seed expects, in the metric's own unit; what it expects of
    codecontests_valid is expected of all sets of CodeContests.

    Args:
        dataset: a data set's name.
        metric: a metric's name.
        phase0: the metric's value in Phase 0, on which a relative range rests.

    Returns:
        None where nothing is expected, or a relative range has no value to rest on.
    """
    like = VALID if dataset.startswith("codecontests_") else dataset
    for rule in EXPECTED:
        if (rule.dataset, rule.metric) == (like, metric):
            largest = max(abs(rule.low), abs(rule.high))
            return largest if rule.kind == "pp" else largest * phase0 if phase0 else None
    return None
