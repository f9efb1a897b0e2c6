"""run.json of an evaluation folder: what is refused, what joins, what is kept."""

import json
from dataclasses import asdict

import pytest

from phase1.contract.identity import Identity
from phase1.contract.problems import load_problems
from phase1.contract.prompts import PROMPTS_SHA256
from phase1.contract.records import Completion
from phase1.contract.state.base import Stamp
from phase1.contract.state.evaluation_run import Behaviour, EvaluationRun
from phase1.evaluate.folder import (
    begin_session,
    close_run,
    need_known_rules,
    open_run,
    read_run,
    set_aside_results,
    stored_problems,
)
from phase1.files import BadInput, read_json
from tests.evaluate.running import MANIFESTS

SETTINGS = {
    "status": "running",
    "model": {"path": "/models/a", "step": 5, "fingerprint": "f"},
    "prompts_sha256": "p",
    "sampling": {"temperature": 0.0, "backend": "vllm"},
    "judge": {"compare": "tokens", "extraction": "contract"},
    "datasets": {"mbpp_reg": {"manifest_sha256": "m", "problems_sha256": "q", "problems": 3}},
    "sessions": [],
}
RULES = Behaviour(**dict.fromkeys(Behaviour.model_fields, "rule"))
STAMP = Stamp(command=["phase1_eval.py"], versions={"torch": "2"}, time="2026-01-01T00:00:00+00:00")


def run_of(**changes) -> EvaluationRun:
    return EvaluationRun.model_validate({**SETTINGS, **changes})


def identity_of(**changes) -> Identity:
    return Identity.of(run_of(**changes))


@pytest.fixture
def begun(tmp_path):
    """A folder with one session that was killed behind its first answer."""
    begin_session(tmp_path, run_of(), STAMP)
    (tmp_path / "completions").mkdir()
    (tmp_path / "completions/mbpp_reg.jsonl").write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize("empty", [False, True])
def test_a_start_that_failed_before_anything_was_generated_does_not_block_the_folder(tmp_path, empty):
    begin_session(tmp_path, run_of(), STAMP)
    if empty:
        (tmp_path / "completions").mkdir()
        (tmp_path / "completions/mbpp_reg.jsonl").touch()
    other = {"temperature": 0.5, "backend": "transformers"}
    run = open_run(tmp_path, identity_of(sampling=other))
    assert run.sampling == other and len(run.sessions) == 1 and not run.complete


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": {"path": "/models/a", "step": 6, "fingerprint": "f"}}, "model.step"),
        ({"model": {"path": "/models/a", "step": 5, "fingerprint": "g"}}, "model.fingerprint"),
        ({"prompts_sha256": "q"}, "prompts_sha256"),
        ({"sampling": {"temperature": 0.5, "backend": "vllm"}}, "sampling.temperature"),
        ({"sampling": {"temperature": 0.0, "backend": "vllm", "batch_invariant": True}}, "sampling.batch_invariant"),
        ({"judge": {"compare": "tokens", "extraction": "reader"}}, "judge.extraction"),
        ({"datasets": {"mbpp_reg": {**SETTINGS["datasets"]["mbpp_reg"], "problems": 2}}}, "datasets.mbpp_reg.problems"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_identity_is_refused_by_its_first_field(begun, changes, field):
    with pytest.raises(BadInput, match=f"was begun with {field} = "):
        open_run(begun, identity_of(**changes))


def test_a_mode_that_is_left_out_later_is_refused(begun):
    begin_session(begun, run_of(sampling={**SETTINGS["sampling"], "batch_invariant": True}), STAMP)
    with pytest.raises(BadInput, match="sampling.batch_invariant = True, now it is None"):
        open_run(begun, identity_of())


def test_a_moved_model_and_a_further_data_set_are_the_same_evaluation(begun):
    wanted = identity_of(
        model={"path": "/moved/a", "step": 5, "fingerprint": "f"}, datasets={"humaneval": {"problems": 164}}
    )
    assert list(open_run(begun, wanted).datasets) == ["mbpp_reg", "humaneval"]


def test_rules_that_a_run_json_of_before_does_not_name_are_asked_for_before_a_verdict_is_added(begun):
    wanted = identity_of(behaviour=RULES.model_dump())
    run = open_run(begun, wanted)
    assert run.behaviour == RULES  # nothing was judged yet: the rules of now are the first
    need_known_rules(begun, run)
    (begun / "results").mkdir()
    (begun / "results" / "mbpp_reg.jsonl").write_text("{}\n")
    run = open_run(begun, wanted)  # a complete folder may be looked at
    assert run.behaviour is None
    with pytest.raises(BadInput, match="is not known: an earlier version wrote it; .* --rejudge"):
        need_known_rules(begun, run)


@pytest.mark.parametrize(("prompts", "form"), [(PROMPTS_SHA256, "rule"), ("p", None)], ids=["same", "other"])
def test_judging_old_answers_again_names_every_rule_but_an_answer_form_that_is_not_known(tmp_path, prompts, form):
    begin_session(tmp_path, run_of(prompts_sha256=prompts), STAMP)
    old = read_run(tmp_path)
    run = set_aside_results(tmp_path, old, judge=old.judge, datasets=old.datasets, behaviour=RULES, stamp=STAMP)
    assert run.behaviour == RULES.model_copy(update={"answer_form": form})


def test_results_without_a_run_json_are_refused(tmp_path):
    (tmp_path / "results").mkdir()
    with pytest.raises(BadInput, match="holds results but no run.json"):
        open_run(tmp_path, identity_of())


def test_sessions_are_kept_and_the_last_one_is_closed(begun):
    run = begin_session(begun, open_run(begun, identity_of()), STAMP)
    assert (read_run(begun).status, len(read_run(begun).sessions)) == ("running", 2)
    close_run(begun, run, "complete")
    closed = read_json(begun / "run.json")
    assert closed["status"] == "complete" and closed["finished"]
    assert [session.get("finished") for session in closed["sessions"]] == [None, closed["finished"]]
    assert closed["stamp"] == closed["sessions"][1]["stamp"] == STAMP.model_dump(exclude_unset=True)


def test_judging_again_keeps_each_set_of_old_verdicts(begun):
    for number in range(2):
        (begun / "results").mkdir()
        (begun / "results" / "mbpp_reg.jsonl").write_text(f"{number}\n")
        judge = {"compare": f"rule {number}"}
        run = set_aside_results(
            begun, read_run(begun), judge=judge, datasets=run_of().datasets, behaviour=RULES, stamp=STAMP
        )
        assert run.judge == judge and run.sandbox is None and not (begun / "results").exists()
    for number in range(2):
        assert (begun / f"results_before_rejudge_{number}" / "mbpp_reg.jsonl").read_text() == f"{number}\n"


@pytest.mark.parametrize("sample", [0, 3])
def test_no_answer_to_a_statement_in_other_words_is_judged_again(tmp_path, sample):
    """Not even where the first of several answers is the one that failed and is not there."""
    problem = load_problems(MANIFESTS, "mbpp_reg", 1)[0]
    answer = Completion(
        dataset="mbpp_reg",
        problem_id=problem.problem_id,
        prompt=problem.user,
        prompt_sha256=problem.user_sha256,
        completion="pass",
        finish_reason="stop",
        prompt_tokens=1,
        gen_tokens=1,
        gen_time=1.0,
        started=1.0,
        session=0,
        sample=sample,
    )
    (tmp_path / "completions").mkdir()
    path = tmp_path / "completions" / "mbpp_reg.jsonl"
    path.write_text(json.dumps(asdict(answer)) + "\n")
    assert len(stored_problems(tmp_path, run_of(), MANIFESTS, ["mbpp_reg"])["mbpp_reg"]) == 3
    path.write_text(json.dumps(asdict(answer) | {"prompt_sha256": "of other words"}) + "\n")
    with pytest.raises(BadInput, match=f"{problem.problem_id} was asked in other words"):
        stored_problems(tmp_path, run_of(), MANIFESTS, ["mbpp_reg"])
