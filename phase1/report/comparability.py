"""Did both phases measure the same thing? Prompts, sampling, problems, judge and its rules, versions (contract 5)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from phase1.contract.state.evaluation_run import EvaluatedSet, EvaluationRun
from phase1.report.inputs import DatasetResult, Side
from phase1.report.own_records import contradictions

MISMATCH, UNCHECKED, NOTE = "mismatch", "unchecked", "note"  # in the order in which they are shown
NOTED_PACKAGES = ("torch", "transformers", "python")
RULES = {
    "answer_form": "how problems are asked and solutions shown",
    "extraction": "the program taken from an answer",
    "beside": "form, and the program judged beside it",
    "comparison": "which outputs are right",
    "programs": "what is made of a program before it is run",
    "judge_code": "the judge's sources; --rejudge judges again by those of now",
}


@dataclass(frozen=True)
class Finding:
    """One result of the check; `kind` is MISMATCH (a red box, exit code 1), UNCHECKED or NOTE."""

    kind: str
    text: str


@dataclass
class _Differences:
    """Findings of one data set, as they are met."""

    found: list[Finding] = field(default_factory=list)

    def say(self, kind: str, text: str) -> None:
        self.found.append(Finding(kind, text))

    def compare(self, what: str, x: object, y: object, kind: str = MISMATCH) -> None:
        """Say where a setting differs; None stands for one that was not recorded."""
        if x is None and y is None:
            return
        if x is None or y is None:
            self.say(UNCHECKED, f"{what} is recorded on one side only ({x!r}, {y!r})")
        elif x != y:
            self.say(kind, f"{what} differs: {_short(x)} in Phase 0, {_short(y)} in Phase 1")


def comparability(phase0: Side, phase1: Side) -> list[Finding]:
    """What differs between the phases, mismatches first; a finding names all data sets that it holds for."""
    found: dict[Finding, list[str]] = {}  # data sets by finding: a difference of the whole run is said once
    for dataset in phase1.datasets:
        for finding in _of_dataset(phase0, phase1, dataset):
            found.setdefault(finding, []).append(dataset)
    for dataset in phase0.datasets:
        if dataset not in phase1.datasets:
            finding = Finding(NOTE, f"{phase1.label} has no result, so nothing is compared")
            found.setdefault(finding, []).append(dataset)
    named = [Finding(f.kind, f"{', '.join(datasets)}: {f.text}") for f, datasets in found.items()]
    return sorted(named, key=lambda f: (MISMATCH, UNCHECKED, NOTE).index(f.kind))


def _of_dataset(phase0: Side, phase1: Side, dataset: str) -> list[Finding]:
    differences = _Differences()
    if dataset not in phase0.datasets:
        return [Finding(NOTE, f"{phase0.label} has no result, so nothing is compared")]
    a, b = phase0.datasets[dataset], phase1.datasets[dataset]
    for side, result in ((phase0, a), (phase1, b)):
        if result.run is None:
            differences.say(
                UNCHECKED,
                f"{side.label} has no run.json beside {result.source}: its prompts, sampling, judge and versions "
                "cannot be checked",
            )
        elif not result.run.complete:
            differences.say(MISMATCH, f"{side.label}: the evaluation is {result.run.status}, not complete; finish it")
        if result.run and result.run.complete and not result.records:
            differences.say(UNCHECKED, f"{side.label} has no results/{dataset}.jsonl, from which its figures derive")
        for text in contradictions(result):
            differences.say(MISMATCH, f"{side.label}: {text}")
    if a.n and b.n and a.n != b.n:
        differences.say(MISMATCH, f"number of problems differs: {a.n} in Phase 0, {b.n} in Phase 1")
    _compare_records(differences, a, b)
    if a.run and b.run:
        _compare_runs(differences, a.run, b.run, dataset)
    if all(f.kind == NOTE for f in differences.found):
        differences.say(
            NOTE, "prompts, sampling, problems, judge (settings and rules) and vLLM version are equal in both phases"
        )
    return differences.found


def _compare_runs(differences: _Differences, run0: EvaluationRun, run1: EvaluationRun, dataset: str) -> None:
    compare = differences.compare
    compare("prompts_sha256 (system prompt, user templates)", run0.prompts_sha256, run1.prompts_sha256)
    for key in dict.fromkeys([*run0.sampling, *run1.sampling]):
        compare(f"sampling.{key}", run0.sampling.get(key), run1.sampling.get(key))
    judge0, judge1 = (run.judge_settings if run.judge else {} for run in (run0, run1))
    for key in dict.fromkeys([*judge0, *judge1]):
        compare(f"judge.{key}", judge0.get(key), judge1.get(key))
    _compare_rules(differences, run0, run1)
    _compare_generation(differences, run0, run1)

    data0, data1 = (run.datasets.get(dataset, EvaluatedSet()) for run in (run0, run1))
    compare("problems_sha256 (statements and tests)", data0.problems_sha256, data1.problems_sha256)
    same_problems = data0.problems_sha256 == data1.problems_sha256
    kind = NOTE if same_problems else MISMATCH
    compare("manifest_sha256", data0.manifest_sha256, data1.manifest_sha256, kind)

    if any("vllm" in str(run.sampling.get("backend", "vllm")) for run in (run0, run1)):
        # Scores move between vLLM versions (https://github.com/vllm-project/vllm/issues/42801).
        compare("vLLM version", run0.vllm, run1.vllm)
    versions0, versions1 = run0.stamp.versions, run1.stamp.versions
    for package in NOTED_PACKAGES:
        compare(f"{package} version", versions0.get(package), versions1.get(package), NOTE)
    sandbox0, sandbox1 = run0.sandbox or {}, run1.sandbox or {}
    compare("sandbox mode", sandbox0.get("mode"), sandbox1.get("mode"), NOTE)
    if run0.model.fingerprint and run0.model.fingerprint == run1.model.fingerprint:
        differences.say(NOTE, "both phases evaluate the same model (equal fingerprints)")


def _compare_generation(differences: _Differences, run0: EvaluationRun, run1: EvaluationRun) -> None:
    """What the model was given and by which servers; a side whose answers lay there already does not say."""
    templates = [(run.generation or {}).get("chat_template_sha256") for run in (run0, run1)]
    if None not in templates:
        differences.compare("chat template (the text that it renders)", templates[0], templates[1])
    args = [str(run.stamp.arguments.get("vllm_args") or "") for run in (run0, run1)]
    if args[0] != args[1]:
        differences.say(
            UNCHECKED,
            f"--vllm_args differs: {args[0]!r} in Phase 0, {args[1]!r} in Phase 1; whether that moves answers is not "
            "known, as quantisation and a cache of another dtype do",
        )


def _compare_rules(differences: _Differences, run0: EvaluationRun, run1: EvaluationRun) -> None:
    """How answers became verdicts. Another git revision alone changes no figure."""
    rules0, rules1 = run0.behaviour, run1.behaviour
    if rules0 is None or rules1 is None:
        sides = [label for label, rules in (("Phase 0", rules0), ("Phase 1", rules1)) if rules is None]
        differences.say(
            UNCHECKED,
            "by which answer form, extraction, comparison and judge it was measured is not known in "
            f"{' and '.join(sides)}: run.json is of an earlier version; phase1_eval.py --rejudge judges the stored "
            "answers again and names them",
        )
    else:
        for name, what in RULES.items():
            kind = NOTE if name == "beside" else MISMATCH
            differences.compare(f"behaviour.{name} ({what})", getattr(rules0, name), getattr(rules1, name), kind)
    differences.compare("git revision", run0.stamp.git_revision, run1.stamp.git_revision, NOTE)


def _compare_records(differences: _Differences, a: DatasetResult, b: DatasetResult) -> None:
    if not a.records or not b.records:
        return
    common = a.records.keys() & b.records.keys()
    only0, only1 = len(a.records) - len(common), len(b.records) - len(common)
    if only0 or only1:
        differences.say(
            MISMATCH,
            f"problem ids differ: {only0} only in Phase 0, {only1} only in Phase 1; paired tests use the {len(common)} "
            "in common",
        )
    otherwise = sum(a.records[i].prompt_sha256 != b.records[i].prompt_sha256 for i in common)
    if otherwise:
        differences.say(
            MISMATCH, f"{otherwise} of {len(common)} problems were asked in other words (prompt_sha256 differs)"
        )


def _short(value: object) -> str:
    """A value as a finding shows it: hashes are cut."""
    text = str(value)
    if re.fullmatch(r"[0-9a-f]{40,}", text):
        return text[:12] + "…"
    return repr(value) if isinstance(value, str) else text
