"""The rates by which checkpoints are judged, and the paired test of one between two evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from phase1.contract.records import EXEC_SUCCESS, Record
from phase1.report import stats

SELECTION_SET = "codecontests_valid"  # contract 4: tier 1, evaluated at every checkpoint
REGRESSION_SET = "mbpp_reg"  # contract 4: tier 1, shows what training has spoilt


@dataclass(frozen=True)
class Rate:
    """A share of a data set's problems, or the mean of shares of their tests, named as in summary.json."""

    dataset: str
    metric: str

    def counts(self, record: Record) -> bool:
        """Whether a problem counts as a success of this rate."""
        if self.metric == "exec_success_rate":
            return record.error_type in EXEC_SUCCESS
        return bool(record.accepted)


EXEC_SUCCESS_RATE = Rate(SELECTION_SET, "exec_success_rate")
ACCEPTED = Rate(SELECTION_SET, "accepted_at_1")
PASS_RATIO = Rate(SELECTION_SET, "pass_ratio_mean")
SILENT = Rate(SELECTION_SET, "silent_rate")  # of programs that run to their end and print nothing
IDLE = Rate(SELECTION_SET, "idle_rate")  # of these, and of wrong ones that read nothing of their input
MBPP_ACCEPTED = Rate(REGRESSION_SET, "accepted_at_1")


def paired_test(rate: Rate, before: Mapping[str, Record], after: Mapping[str, Record]) -> stats.Comparison | None:
    """McNemar's test of a rate, or the permutation test of PASS_RATIO, on the problems that both evaluations have.

    None where they have none in common.

    Args:
        before, after: the records by problem id.
    """
    common = sorted(before.keys() & after.keys())
    if not common:
        return None
    if rate == PASS_RATIO:
        return stats.paired_mean([before[i].pass_ratio for i in common], [after[i].pass_ratio for i in common])
    return stats.paired_rate([rate.counts(before[i]) for i in common], [rate.counts(after[i]) for i in common])
