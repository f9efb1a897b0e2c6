"""The check by a real run of transformers: what it says of each model, and the process of its own that it is."""

import shutil
from pathlib import Path

import pytest

from phase1.contract.state.handoff import CheckResult
from phase1.handoff.ask_model import PROMPTS, Question, generation_of, questions
from phase1.handoff.check_generation import check_generated_code, check_generation, compile_error
from phase1.handoff.handoff import Handoff, Settings
from phase1.handoff.transformers_process import Job, answer_all
from tests.handoff.handoff_damage import NORM, UP, damaged, edit_json, edit_weights


def checks(handoff: Handoff) -> tuple[CheckResult, CheckResult]:
    """The results of loading and answering, and of compiling the answers."""
    return check_generation(handoff), check_generated_code(handoff)


def answered_here(model: Path, max_new_tokens: int) -> Handoff:
    """A model that transformers has answered for in this process, where its import is paid for."""
    job = Job(model=model, users=list(PROMPTS), max_new_tokens=max_new_tokens, dtype="bfloat16")
    handoff = Handoff(model, settings=Settings(max_new_tokens))
    handoff.generation = generation_of([Question(p) for p in PROMPTS], answer_all(job), tied=True)
    return handoff


@pytest.mark.slow
def test_missing_weights_and_answers_that_are_no_python_fail(base_model, tmp_path):
    model = Path(shutil.copytree(base_model, tmp_path / "m"))
    edit_weights(model, lambda s: s.pop(UP))
    loads, compiles = checks(answered_here(model, 2))
    assert loads.status == "fail" and f"weights missing: {UP}" in loads.evidence
    assert compiles.status == "warn" and compiles.evidence == "not run: transformers filled weights in at random"
    loads, compiles = checks(answered_here(base_model, 60))
    assert compiles.status == "fail" and compiles.evidence.startswith("0 of 3 answers compile")


@pytest.mark.slow
def test_a_model_that_answers_nothing_or_without_end_is_told(run, tmp_path):
    model = damaged(run, tmp_path)
    loads, _ = checks(answered_here(model, 2))
    assert loads.status == "warn" and "no answer ends within 2 tokens" in loads.evidence
    edit_weights(model, lambda s: s[NORM].fill_(0.0))  # all logits equal: the first token is id 0, <|endoftext|>
    loads, compiles = checks(answered_here(model, 8))
    assert loads.status == "fail" and "every answer is empty" in loads.evidence and compiles.status == "fail"


@pytest.mark.slow
def test_a_process_that_takes_too_long_or_dies_of_the_model_fails(run, tmp_path):
    model = damaged(run, tmp_path)
    loads, _ = checks(Handoff(model, settings=Settings(8, 0.5)))
    assert loads.status == "fail" and "no answer within" in loads.evidence
    edit_json(model / "config.json", model_type="nonesuch")
    loads, compiles = checks(Handoff(model, settings=Settings(8)))
    assert loads.status == "fail" and "cannot load or run it" in loads.evidence
    assert compiles.evidence == "not run: no answers"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("print(1)", None),
        ("def f(:", "SyntaxError"),
        ("", "empty"),
        ("import os; os._exit(0)", None),
        ("(" * 5000 + ")" * 5000, ""),
        ("x = 1\x00", ""),
        ("\udcff", ""),
    ],
    ids=["a program", "broken", "empty", "would end the process", "deep", "a null byte", "a lone surrogate"],
)
def test_answers_are_compiled_and_never_run(code, error):
    found = compile_error(code)
    assert found is None if error is None else found is not None and error in found


def test_without_an_evaluation_one_question_for_each_kind_of_test_is_asked(tmp_path):
    assert [q.user for q in questions(None)] == list(PROMPTS)
    assert [q.user for q in questions(tmp_path)] == list(PROMPTS)  # an evaluation that holds no records
