"""The check that the installed verl starts GRPO from what is written: this model, its template, this reward."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from phase1.contract.state.handoff import CheckResult
from phase1.files import write_text
from phase1.handoff.ask_model import PROMPTS, TOOLKIT
from phase1.handoff.check_config import end_of_text_ids
from phase1.handoff.grpo import NAME, grpo_yaml
from phase1.handoff.handoff import Handoff, failed, not_run, verdict
from phase1.handoff.verl_process import ANSWERS, Start
from phase1.model.tokenizer import chat_text

TIMEOUT = 600.0  # seconds: importing verl takes 10, on a machine under load several times that


def check_grpo(h: Handoff) -> CheckResult:
    """Write grpo_model.yaml to a folder of its own and see what verl's own configuration and loaders make of it.

    A verl that reads the reward elsewhere drops it without a word and trains on scores of its own (0.9.1 did so with
    the place of 0.7.0: verl#7331).
    """
    with tempfile.TemporaryDirectory(prefix="grpo.") as folder:
        write_text(Path(folder) / NAME, grpo_yaml(h.model, TOOLKIT, h.context_length))
        command = [sys.executable, "-m", "phase1.handoff.verl_process", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=TOOLKIT)
        except subprocess.TimeoutExpired:
            return failed("grpo", f"verl did not resolve {NAME} within {TIMEOUT:.0f} s")
    if done.returncode:
        return failed("grpo", f"verl's process died: {(done.stderr.strip().splitlines() or ['?'])[-1][:500]}")
    return judge_start(h, Start.model_validate_json(done.stdout.splitlines()[-1]))


def judge_start(h: Handoff, found: Start) -> CheckResult:
    """The check on what verl made of a grpo_model.yaml."""
    if found.missing:
        return not_run("grpo", f"verl cannot be imported here ({found.missing}); run again in Phase 3's environment")
    if found.broken:
        return failed("grpo", f"verl cannot start from {NAME}: {found.broken}")
    failures, warnings = wrong_in(h, found), []
    if found.sandbox_error:
        warnings.append("the reward's judge does not run here; see python -m phase1.judge --probe")
    evidence = (
        f"verl {found.verl} resolves {NAME}: this model, its template and stop ids {found.stops}, "
        f"{found.max_prompt_length} + {found.max_response_length} tokens, the reward of {found.reward}"
    )
    return verdict("grpo", failures, warnings, evidence, **found.model_dump(exclude={"prompt", "missing", "broken"}))


def wrong_in(h: Handoff, found: Start) -> list[str]:
    """What GRPO would do otherwise than Phase 1 did, a line each."""
    reward = f"{TOOLKIT / 'phase1' / 'reward.py'}:compute_score"
    wrong = []
    if found.reward != reward:
        taken = found.reward or "its own default scores"
        wrong.append(f"verl {found.verl} would train on {taken}, not on {reward}")
    elif not found.sandbox_error and found.scores != list(ANSWERS):
        wrong.append(f"the reward gives {found.scores} to answers worth {list(ANSWERS)}")
    if found.model != str(h.model):
        wrong.append(f"verl {found.verl} would start from {found.model}")
    if found.estimator != "grpo":
        wrong.append(f"algorithm.adv_estimator is {found.estimator}")
    if found.prompt != chat_text(h.tokenizer, PROMPTS[0]):
        wrong.append("verl renders other prompts than evaluation sent")
    stops = end_of_text_ids(h.model, h.config)
    if sorted(found.stops) != sorted(id for id in stops if isinstance(id, int)):
        wrong.append(f"rollouts would stop at {found.stops}, evaluation stopped at {stops}")
    return wrong
