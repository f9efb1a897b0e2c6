"""The check of the report: no model is handed over that the report condemns."""

import json
import shutil

import pytest

from phase1.files import fingerprint, read_json, write_json
from phase1.handoff.check_report import check_report
from phase1.handoff.handoff import Handoff, Settings
from phase1.report.verdict import WORDS
from tests.handoff.conftest import report
from tests.report.fake_evaluations import IMPROVED, PHASE0, Fake, write_evaluation
from tests.report.running import compare

# What must become of a hand-off, by the report's word; a new word has to be added here by hand.
STATUS = {
    "improved": "pass",
    "worse": "fail",
    "mixed": "fail",
    "maybe_worse": "fail",
    "silent": "fail",
    "not_comparable": "fail",
    "not_better": "warn",
    "not_shown": "warn",
    "too_small": "warn",
}
CONDEMNED = [word for word, status in STATUS.items() if status == "fail"]


@pytest.fixture
def models(tmp_path):
    """Two folders that are different models, as far as a fingerprint goes."""
    for name in ("base", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    return tmp_path


@pytest.mark.parametrize("word", WORDS)
def test_what_the_report_condemns_is_not_handed_over(models, word):
    path = report(models, models / "model", word=word, base=models / "base")
    result = check_report(Handoff(models / "model", models / "base", report=path))
    assert result.status == STATUS[word] and f"{word.upper()} - as it says" in result.evidence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, p: p.unlink(), "no report of this model"),
        (lambda m, p: report(m, m / "base"), "of other files than this model's"),
        (lambda m, p: report(m, m / "model", m / "base"), "of other files than this model's"),
        (lambda m, p: report(m, m / "model", base=m / "model"), "another base model"),
        (lambda m, p: p.write_text("{}"), "the report says: nothing"),
    ],
    ids=["none", "another model", "two models", "another base", "no verdict"],
)
def test_a_report_that_is_not_of_this_model_and_base_is_none(models, change, words):
    path = report(models, models / "model", base=models / "base")
    change(models, path)
    result = check_report(Handoff(models / "model", models / "base", report=path))
    assert result.status == "fail" and words in result.evidence and "--accept" in result.evidence


@pytest.mark.parametrize("word", CONDEMNED)
def test_a_reason_overrides_the_report_and_stands_beside_it(models, word):
    path = report(models, models / "model", word=word)
    result = check_report(Handoff(models / "model", report=path, settings=Settings(accept="a probe")))
    assert result.status == "warn" and "accepted: a probe" in result.evidence and word.upper() in result.evidence
    assert result.data["accepted"] == "a probe"


def test_a_reason_that_is_not_needed_is_not_noted(models):
    path = report(models, models / "model")
    result = check_report(Handoff(models / "model", report=path, settings=Settings(accept="a probe")))
    assert result.status == "pass" and "accepted" not in result.data


def test_a_report_of_before_does_not_say_whose_it_is(models):
    path = report(models)
    result = check_report(Handoff(models / "model", models / "base", report=path))
    assert result.status == "warn" and "does not say which files" in result.evidence


def test_a_report_that_does_not_name_its_base_is_a_warning(models):
    path = report(models, models / "model")
    result = check_report(Handoff(models / "model", models / "base", report=path))
    assert result.status == "warn" and "does not say which base model" in result.evidence


def written_report(folder, change=lambda run: None, *more):
    """What generate_report.py writes of two evaluations that lie in `folder`, of the models there."""
    for name, model, rates in (("phase0", "base", PHASE0), ("eval_final", "model", IMPROVED)):
        run = {"model": {"path": model, "fingerprint": fingerprint(folder / model)}}
        write_evaluation(folder / name, Fake(rates, run=run))
    run = read_json(folder / "eval_final/run.json")
    change(run)
    write_json(folder / "eval_final/run.json", run)
    compare(folder, folder / "phase0/metrics.json", folder / "eval_final/metrics.json", *more)
    return Handoff(folder / "model", folder / "base", report=folder / "out/comparison_data.json")


def test_mismatches_that_the_report_was_told_to_pass_over_are_not_handed_over(models):
    handoff = written_report(models, lambda run: run.update(prompts_sha256="e" * 64), "--allow_mismatch")
    result = check_report(handoff)
    assert result.status == "fail" and "prompts_sha256" in result.evidence and "--allow_mismatch" in result.evidence
    handoff.settings = Settings(accept="the prompt was mended")
    assert check_report(handoff).status == "warn"


def test_an_evaluation_that_changed_after_the_report_makes_it_an_old_one(models, tmp_path_factory):
    handoff = written_report(models)
    assert check_report(handoff).status == "pass"
    moved = tmp_path_factory.mktemp("moved") / "project"
    shutil.copytree(models, moved)
    path = moved / "eval_final/metrics.json"
    write_json(path, read_json(path) | {"again": None})
    result = check_report(Handoff(moved / "model", moved / "base", report=moved / "out/comparison_data.json"))
    assert result.status == "fail" and f"{path}: is not what the report read" in result.evidence
