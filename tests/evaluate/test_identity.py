"""Whatever decides a figure is named where it differs: by the report, and by a resumed evaluation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.contract.identity import Identity
from phase1.contract.state.base import Stamp
from phase1.contract.state.evaluation_run import EvaluatedModel, EvaluationRun
from phase1.evaluate.folder import begin_session, note_vllm, open_run
from phase1.files import BadInput, write_json
from phase1.report.comparability import comparability
from phase1.report.inputs import read_side
from tests.conftest import ROOT, first_problems
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation

SET = "codecontests_valid"
SAMPLING = {"temperature": 0.0, "backend": "vllm"}
# What phase1_eval.py makes of the tree that it lies in.
MADE = f"""
import json, sys
from pathlib import Path
from phase1.contract.identity import Identity, evaluated_sets
from phase1.contract.problems import load_problems
from phase1.contract.prompts import PROMPTS_SHA256
from phase1.contract.state.evaluation_run import EvaluatedModel, EvaluationRun
from phase1.judge.behaviour import behaviour
from phase1.judge.config import JudgeConfig
manifests, judge = Path(sys.argv[1]), JudgeConfig()
sets = evaluated_sets(manifests, {{"{SET}": load_problems(manifests, "{SET}")}})
made = Identity(EvaluatedModel(), PROMPTS_SHA256, {SAMPLING}, judge.identity(), sets, behaviour(judge))
print(EvaluationRun(status="running", **made.fields()).model_dump_json())
"""
EXTRACT = "def extract_code(completion: str) -> str:\n"


class Tree:
    """A copy of the toolkit's sources with the data of a few problems, to be changed."""

    def __init__(self, folder: Path):
        self.root = folder
        shutil.copytree(ROOT / "phase1", folder / "phase1", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "data").mkdir()
        self.manifests = first_problems(folder / "data", 3)
        (folder / "data" / "raw").unlink()
        shutil.copytree(ROOT / "data" / "samples" / "raw", folder / "data" / "raw")

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text, path
        (self.root / path).write_text(text.replace(old, new, 1))

    def identity(self) -> EvaluationRun:
        command = [sys.executable, "-c", MADE, str(self.manifests)]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True)
        return EvaluationRun.model_validate(json.loads(done.stdout))


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> EvaluationRun:
    return Tree(tmp_path_factory.mktemp("before")).identity()


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree(tmp_path)


def begun_with_an_answer(folder: Path, run: EvaluationRun) -> None:
    """An evaluation that was killed behind its first answer."""
    begin_session(folder, run, Stamp())
    (folder / "completions").mkdir()
    (folder / "completions" / f"{SET}.jsonl").write_text("{}\n")


def named_by_the_report(folder: Path, was: dict, is_now: dict) -> list[str]:
    """The mismatches that the report finds between two evaluations whose run.json differ as given."""
    sides = []
    for label, run in (("Phase 0", was), ("Phase 1", is_now)):
        write_evaluation(folder / label, Fake(PHASE0, {SET: 3}, run={"status": "complete", **run}))
        sides.append(read_side(label, [folder / label / "metrics.json"]))
    return [f.text for f in comparability(*sides) if f.kind == "mismatch"]


def fields(run: EvaluationRun) -> dict:
    return {name: run.model_dump(mode="json")[name] for name in Identity.of(run).fields()}


# What is changed: a file, what of it, into what, and the field by which it is named.
TREE = {
    "answer form": (
        "phase1/contract/prompts.py",
        'return f"{TAG}\\n{code',
        'return f"{TAG}{code',
        "behaviour.answer_form",
    ),
    "extraction": (
        "phase1/contract/extraction.py",
        EXTRACT,
        EXTRACT + '    return "print(0)"\n',
        "behaviour.extraction",
    ),
    "comparison": (
        "phase1/judge/compare.py",
        "if expected == actual:",
        "if expected[:1] == actual[:1]:",
        "behaviour.comparison",
    ),
    "tolerance": ("phase1/judge/compare.py", "TOLERANCE = 1e-6", "TOLERANCE = 2e-6", "behaviour.comparison"),
    "a problem's rule": (
        "phase1/judge/compare.py",
        "if rule.any_case:",
        "if not rule.any_case:",
        "behaviour.comparison",
    ),
    "what is made of a program": (
        "phase1/contract/problems.py",
        "return self.prompt + code",
        "return code",
        "behaviour.programs",
    ),
    "judge source": (
        "phase1/judge/inside/fork_server.py",
        "import",
        "import  # nothing else\nimport",
        "behaviour.judge_code",
    ),
    "order of errors": (
        "phase1/contract/records.py",
        '"syntax_error", "runtime_error"',
        '"runtime_error", "syntax_error"',
        "behaviour.judge_code",
    ),
    "system prompt": ("phase1/contract/prompts.py", "You are an expert", "You are a", "prompts_sha256"),
    "user template": ("phase1/contract/prompts.py", "Solve this problem.", "Solve it.", "prompts_sha256"),
    "manifest": (f"data/manifests/{SET}_manifest.jsonl", "}", ', "note": 1}', "manifest_sha256"),
    "tests": (f"data/raw/{SET}_raw.jsonl", '"input": "', '"input": "1', "problems_sha256"),
}
NOT_OF_THE_TREE = {  # by the report, by a start that would go on
    "sampling": ("`sampling.temperature`", "`sampling.temperature`"),
    "chat template": ("`chat template`", "`model.fingerprint`"),
    "vLLM version": ("`vLLM version`", "`vLLM version`"),
}


@pytest.mark.parametrize("changed", TREE)
def test_a_change_of_the_tree_is_named_by_the_report_and_by_a_resume(tree, before, tmp_path, changed):
    path, old, new, named = TREE[changed]
    tree.change(path, old, new)
    now = tree.identity()
    if named == "manifest_sha256":  # the same problems in another manifest are noted, and refused in one folder
        assert now.datasets[SET].problems_sha256 == before.datasets[SET].problems_sha256
    else:
        assert any(named in text for text in named_by_the_report(tmp_path, fields(before), fields(now)))
    begun_with_an_answer(tmp_path / "begun", before)
    with pytest.raises(BadInput) as refused:
        open_run(tmp_path / "begun", Identity.of(now))
    assert named in str(refused.value)


def test_a_comment_outside_the_judge_changes_nothing(tree, before, tmp_path):
    tree.change("phase1/contract/extraction.py", EXTRACT, f"# A comment.\n{EXTRACT}")
    assert tree.identity() == before


def test_another_sampling_is_named_by_the_report_and_by_a_resume(before, tmp_path):
    now = before.model_copy(update={"sampling": {**SAMPLING, "temperature": 0.5}})
    assert "sampling.temperature" in named_by_the_report(tmp_path, fields(before), fields(now))[0]
    begun_with_an_answer(tmp_path / "begun", before)
    with pytest.raises(BadInput, match="sampling.temperature"):
        open_run(tmp_path / "begun", Identity.of(now))


def test_another_chat_template_is_named_by_the_report_and_its_model_by_a_resume(before, tmp_path):
    """It lies in the model's folder, so the fingerprint is another."""
    was, is_now = ({**fields(before), "generation": {"chat_template_sha256": sha}} for sha in ("a" * 64, "b" * 64))
    assert "chat template (the text that it renders) differs" in named_by_the_report(tmp_path, was, is_now)[0]
    begun_with_an_answer(tmp_path / "begun", before)
    other = before.model_copy(update={"model": EvaluatedModel(fingerprint="other")})
    with pytest.raises(BadInput, match=r"model\.fingerprint"):
        open_run(tmp_path / "begun", Identity.of(other))


def test_other_arguments_of_vllm_are_said_to_be_unchecked(before, tmp_path):
    sides = []
    for label, args in (("Phase 0", ""), ("Phase 1", "--quantization fp8")):
        run = {**fields(before), "status": "complete", "stamp": {"arguments": {"vllm_args": args}}}
        write_evaluation(tmp_path / label, Fake(PHASE0, {SET: 3}, run=run))
        sides.append(read_side(label, [tmp_path / label / "metrics.json"]))
    assert any(f.kind == "unchecked" and "--quantization fp8" in f.text for f in comparability(*sides))


def test_a_later_session_that_only_judged_does_not_hide_which_vllm_generated(before, tmp_path):
    sessions = [{"started": "1970-01-01T00:16:00+00:00", "vllm": "0.12.0"}, {"started": "1970-01-01T00:17:00+00:00"}]
    was = {**fields(before), "stamp": {"versions": {"vllm": "0.13.0"}}}
    is_now = {**fields(before), "stamp": {"versions": {}}, "sessions": sessions}
    [text] = named_by_the_report(tmp_path, was, is_now)
    assert "vLLM version differs: '0.13.0' in Phase 0, '0.12.0' in Phase 1" in text


def table() -> str:
    """The table of docs/04."""
    lines = ["| changed | the report | a start that would go on |", "|---|---|---|"]
    for changed, (*_, named) in TREE.items():
        said = "a note" if named == "manifest_sha256" else "NOT COMPARABLE"
        lines.append(f"| {changed} | {said}: `{named}` | refused: `{named}` |")
    lines += [f"| {c} | NOT COMPARABLE: {said} | refused: {named} |" for c, (said, named) in NOT_OF_THE_TREE.items()]
    return "\n".join(lines)


def test_the_table_of_the_evaluations_page_is_this_one():
    assert table() in (ROOT / "docs/04_checkpoint_eval_pipeline.md").read_text()


def test_another_vllm_is_named_by_the_report_and_by_a_resume(before, tmp_path):
    was, is_now = ({**fields(before), "stamp": {"versions": {"vllm": v}}} for v in ("0.12.0", "0.13.0"))
    assert "vLLM version" in named_by_the_report(tmp_path, was, is_now)[0]
    folder = tmp_path / "begun"
    note_vllm(folder, begin_session(folder, before, Stamp()), "0.12.0")
    run = begin_session(folder, open_run(folder, Identity.of(before)), Stamp())
    assert note_vllm(folder, run, "0.12.0").sessions[1].vllm == "0.12.0"
    with pytest.raises(BadInput, match=r"vLLM version = '0.12.0', now it is '0.13.0'"):
        note_vllm(folder, run, "0.13.0")


@pytest.mark.parametrize("old", [("Phase 0",), ("Phase 0", "Phase 1")], ids=" and ".join)
def test_a_run_json_of_before_is_not_known_and_says_so(tmp_path, old):
    for label in ("Phase 0", "Phase 1"):
        write_evaluation(tmp_path / label, Fake(PHASE0, {SET: 3}))
        run = json.loads((tmp_path / label / "run.json").read_text())
        if label in old:
            del run["behaviour"]
        write_json(tmp_path / label / "run.json", run)
    sides = [read_side(label, [tmp_path / label / "metrics.json"]) for label in ("Phase 0", "Phase 1")]
    [found] = [f for f in comparability(*sides) if f.kind != "note"]
    assert found.kind == "unchecked" and f"is not known in {' and '.join(old)}:" in found.text


def test_another_git_revision_alone_is_a_note(tmp_path):
    for label in ("Phase 0", "Phase 1"):
        write_evaluation(tmp_path / label, Fake(PHASE0, {SET: 3}, run={"stamp": {"git_revision": label}}))
    sides = [read_side(label, [tmp_path / label / "metrics.json"]) for label in ("Phase 0", "Phase 1")]
    found = comparability(*sides)
    assert {f.kind for f in found} == {"note"} and any("git revision differs" in f.text for f in found)
