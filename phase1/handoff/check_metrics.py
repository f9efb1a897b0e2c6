"""The check of the checkpoint's evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phase1.contract.prompts import PROMPTS_SHA256
from phase1.contract.state import evaluation_run
from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.contract.state.handoff import CheckResult
from phase1.files import fingerprint, read_json
from phase1.handoff.handoff import Handoff, failed, not_run, verdict

KEPT = ("total_problems", "exec_success_rate", "accepted_at_1", "pass_ratio_mean")  # of each data set, for handoff.json


def check_metrics(h: Handoff) -> CheckResult:
    """The evaluation of this very checkpoint is complete, agrees with best_checkpoint.json, and passes the gate."""
    if h.evaluation is None:
        return not_run("metrics", "no --best_checkpoint given")
    if not (h.evaluation / evaluation_run.NAME).exists():
        return failed("metrics", f"{h.evaluation}: no evaluation of this checkpoint; run phase1_eval.py")
    run = EvaluationRun.read(h.evaluation / evaluation_run.NAME)
    if not run.complete:
        return failed("metrics", f"{h.evaluation}: the evaluation is {run.status!r}, not complete; run it again")
    failures, warnings = [], []
    if run.model.fingerprint is None:
        warnings.append("the evaluation names no fingerprint")
    elif run.model.fingerprint != fingerprint(h.model):
        failures.append("the evaluation was of other files than this directory's (fingerprint differs)")
    if run.prompts_sha256 not in (None, PROMPTS_SHA256):
        failures.append("the evaluation used other prompts than this toolkit's")
    if h.best and h.best.warning:
        warnings.append(h.best.warning)
    kept = read_metrics(h.evaluation)
    rate = kept.get("codecontests_valid", {}).get("exec_success_rate")
    if h.best and rate != h.best.best_exec_success_rate:
        failures.append(f"exec_success_rate {rate}, best_checkpoint.json says {h.best.best_exec_success_rate}")
    gate = h.settings.min_exec_success_rate
    if gate is not None and (rate is None or rate < gate):
        failures.append(f"exec_success_rate {rate} on codecontests_valid is below the gate {gate}")
    shown = []
    for dataset, m in kept.items():
        if None not in (m["exec_success_rate"], m["accepted_at_1"]):
            shown.append(f"{dataset} exec {m['exec_success_rate']:.1%}, accepted {m['accepted_at_1']:.1%}")
    return verdict("metrics", failures, warnings, ", ".join(shown), metrics=kept, evaluation=str(h.evaluation))


def read_metrics(evaluation: Path) -> dict[str, dict[str, Any]]:
    """The KEPT numbers of every data set in metrics.json; None where neither it nor summary.json has one."""
    summary = read_json(evaluation / "summary.json").get("datasets", {})
    metrics = read_json(evaluation / "metrics.json")
    return {
        dataset: {key: summary.get(dataset, {}).get(key, m.get(key)) for key in KEPT} for dataset, m in metrics.items()
    }
