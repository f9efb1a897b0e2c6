"""Checks of a real run: transformers loads the model and answers, and what it answers is Python."""

from __future__ import annotations

from phase1.contract.compile_apart import compile_apart
from phase1.contract.extraction import extract_code
from phase1.contract.state.handoff import CheckResult
from phase1.handoff.handoff import Handoff, failed, not_run, verdict

BEGINNING = 200  # characters by which an answer is compared with the evaluation's


def check_generation(h: Handoff) -> CheckResult:
    """transformers loads the model in a process of its own and answers the questions greedily."""
    g = h.generation
    if g.problem:
        return failed("generation", g.problem)
    if g.random_weights:
        return verdict("generation", g.random_weights, [], "")
    failures, warnings = [], []
    if not any(text.strip() for text in g.texts):
        failures.append("every answer is empty")
    if not any(g.ended):
        warnings.append(f"no answer ends within {h.settings.max_new_tokens} tokens")
    recorded = [q.recorded for q in g.questions if q.recorded is not None]
    same = sum(text[:BEGINNING] == own[:BEGINNING] for text, own in zip(g.texts, recorded, strict=False))
    agreement = f", {same} begin as in the evaluation" if recorded else ""
    return verdict(
        "generation",
        failures,
        warnings,
        f"loads, {g.parameters:,} parameters, {sum(g.ended)} of {len(g.texts)} answers end{agreement}",
        questions=[q.user for q in g.questions],
        answers=list(g.texts),
        agreement=same if recorded else None,
    )


def check_generated_code(h: Handoff) -> CheckResult:
    """What transformers answered compiles. It is never run."""
    g = h.generation
    if g.problem:
        return not_run("generated_code", "no answers")
    if g.random_weights:
        return not_run("generated_code", "transformers filled weights in at random")
    errors = [compile_error(extract_code(text)) for text in g.texts]
    good = errors.count(None)
    first = next((e for e in errors if e), "")
    text = f"{good} of {len(errors)} answers compile" + (f" ({first})" if first else "")
    failures = [text] if good == 0 else []
    warnings = [text] if 0 < good < len(errors) else []
    return verdict("generated_code", failures, warnings, text, errors=errors)


def compile_error(code: str) -> str | None:
    """Why `code` does not compile, None if it does. Compiled apart: a deep enough program can end the parser."""
    if not code.strip():
        return "empty"
    compiled = compile_apart([code], "answer", timeout=60)
    return compiled.death or compiled.errors[0]
