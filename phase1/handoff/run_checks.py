"""The checks of the hand-off in their order. To add one: write its function, list it here, and test it.

A check `fail`s where Phase 3 would train or serve something other than what Phase 1 measured, `warn`s where something
merely costs, or where the check could not be run; the evidence says which. None runs what the model wrote.
"""

from __future__ import annotations

from collections.abc import Callable

from phase1.contract.state.handoff import CheckResult
from phase1.files import BadInput
from phase1.handoff.check_config import check_chat_template, check_config, check_tokenizer
from phase1.handoff.check_generation import check_generated_code, check_generation
from phase1.handoff.check_grpo import check_grpo
from phase1.handoff.check_metrics import check_metrics
from phase1.handoff.check_report import check_report
from phase1.handoff.check_vllm import check_vllm
from phase1.handoff.check_weights import (
    check_base_difference,
    check_dtype,
    check_files,
    check_parameters,
    check_values,
    check_weights_index,
)
from phase1.handoff.handoff import Handoff, failed

HandoffCheck = Callable[[Handoff], CheckResult]

CHECKS: tuple[HandoffCheck, ...] = (  # cheap ones first; a function is named check_ and the check's name
    check_files,
    check_weights_index,
    check_dtype,
    check_parameters,
    check_values,
    check_base_difference,
    check_config,
    check_tokenizer,
    check_chat_template,
    check_generation,
    check_generated_code,
    check_vllm,
    check_grpo,
    check_metrics,
    check_report,
)


def run_checks(handoff: Handoff, checks: tuple[HandoffCheck, ...] = CHECKS) -> list[CheckResult]:
    """The result of every check. Damage that stops one is that check's failure, and the others still run."""
    return [_attempt(check, handoff) for check in checks]


def _attempt(check: HandoffCheck, handoff: Handoff) -> CheckResult:
    try:
        return check(handoff)
    except Exception as e:  # a damaged model can raise anything, in any library
        reason = str(e) if isinstance(e, BadInput) else f"{type(e).__name__}: {e}"
        return failed(check.__name__.removeprefix("check_"), reason)
