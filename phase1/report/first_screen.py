"""The first screen of report.html: what was compared, can it be trusted, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.report.comparability import MISMATCH, UNCHECKED, Finding
from phase1.report.inputs import DatasetResult, Side
from phase1.report.tables import BIG, VALID
from phase1.report.verdict import Verdict

NOT_RECORDED = "not recorded"
RULES_DIFFER = "behaviour."  # findings that judging the stored answers again mends
UNFINISHED = "the evaluation is"
# Flags of phase1_eval.py that say which model, where to and what to do, and not how it is measured.
OF_ONE_MODEL = frozenset(
    ["--checkpoint_dir", "--step", "--best_checkpoint", "--model_path", "--output_dir", "--rejudge", "--recompute"]
    + ["--wandb_project", "--wandb_run_name", "--wandb_mode", "--lock_wait"]
)
SAMPLED = frozenset(["--datasets", "--n_samples", "--temperature", "--final", "--limit"])  # what asking again replaces


@dataclass(frozen=True)
class Next:
    """What to do: in words, and as a command to paste; "" where there is none."""

    words: str
    command: str = ""


@dataclass(frozen=True)
class FirstScreen:
    """`facts`: (name, value) of what was compared; `trust`: whether the figures can be believed, in a sentence."""

    facts: list[tuple[str, str]]
    trust: str
    next: Next


def first_screen(
    phase0: Side, phase1: Side, v: Verdict, findings: Sequence[Finding], warnings: Sequence[str], output_dir: Path
) -> FirstScreen:
    """What stands under the verdict.

    Args:
        phase0, phase1: the two sides.
        v: the verdict.
        findings: of the comparability check.
        warnings: what to know before believing a figure.
        output_dir: where the report goes, for the command of the hand-off.
    """
    return FirstScreen(
        _facts(phase0, phase1), _trust(findings, warnings), _next(phase0, phase1, v, findings, output_dir)
    )


def _main(side: Side) -> DatasetResult:
    return side.datasets.get(VALID) or next(iter(side.datasets.values()))


def _run(side: Side) -> EvaluationRun | None:
    return _main(side).run


def _facts(phase0: Side, phase1: Side) -> list[tuple[str, str]]:
    runs = [_run(side) for side in (phase0, phase1)]
    model, base = ((run.model.path if run else None) or NOT_RECORDED for run in reversed(runs))
    step = runs[1].model.step if runs[1] else None
    finished = str(runs[1].finished or "")[:10] if runs[1] else ""
    sizes = [f"{name.removeprefix('codecontests_')} {d.n}" for name, d in phase1.datasets.items() if d.n]
    return [
        ("Model", model),
        ("Base", base),
        ("Step", str(step) if step is not None else "-"),
        ("Evaluated", finished or NOT_RECORDED),
        ("Problems", ", ".join(sizes) or NOT_RECORDED),
        ("Protocol", _protocol(runs[1])),
    ]


def _protocol(run: EvaluationRun | None) -> str:
    if run is None or not run.sampling:
        return NOT_RECORDED
    temperature, k = run.sampling.get("temperature"), run.sampling.get("n_samples") or 1
    kind = "greedy" if temperature == 0 else f"temperature {temperature}"
    return f"{k} answer{'s' if k != 1 else ''} a problem, {kind}"


def _trust(findings: Sequence[Finding], warnings: Sequence[str]) -> str:
    wrong, unknown = (sum(f.kind == kind for f in findings) for kind in (MISMATCH, UNCHECKED))
    if wrong:
        return f"No: the two sides were measured differently ({wrong} difference{'s' if wrong > 1 else ''}, below)."
    told = []
    if unknown:
        told.append(f"{unknown} thing{'s' if unknown > 1 else ''} could not be checked")
    if warnings:
        told.append(f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''} below")
    return f"With care: {', '.join(told)}." if told else "Yes: both sides were measured alike, and nothing warns."


def _next(phase0: Side, phase1: Side, v: Verdict, findings: Sequence[Finding], output_dir: Path) -> Next:
    model = _path(phase1)
    if v.word == "not_comparable":
        return _mend(phase0, phase1, findings)
    if v.word == "improved":
        report = shlex.quote(str(output_dir / "comparison_data.json"))
        return Next("Hand it over to GRPO.", f"python verify_handoff.py --model_path {model} --report {report}")
    if v.word in ("not_shown", "too_small", "not_better"):
        return Next(
            "Ask again with more problems and answers, of the base model alike.",
            f"python phase1_eval.py --model_path {model} --output_dir outputs/final_k{_settings_of(phase1, SAMPLED)} "
            f"--datasets {' '.join(_larger(phase1))} --n_samples 4 --temperature 0.8",
        )
    if v.word == "silent":
        return Next(
            "Train on solutions that pass tests, and look at the programs first.",
            "python prepare_sft_data.py --verify_solutions",
        )
    return Next(
        "Do not hand it over. Look at the flips and the anomalies below, evaluate an earlier checkpoint, or train more "
        "gently into a folder of its own.",
        "LR=5e-6 EXPERIMENT_NAME=gentler ./run_sft.sh",
    )


def _mend(phase0: Side, phase1: Side, findings: Sequence[Finding]) -> Next:
    wrong = [f.text for f in findings if f.kind == MISMATCH]
    folders = [shlex.quote(str(_main(side).source.parent)) for side in (phase0, phase1)]
    if all(RULES_DIFFER in text for text in wrong):
        commands = [f"python phase1_eval.py --rejudge --output_dir {folder}" for folder in folders]
        return Next(
            "Judge the stored answers of both sides by the rules of now; no GPU is needed.", "\n".join(commands)
        )
    if any(UNFINISHED in text for text in wrong):
        return Next(
            "Start the unfinished evaluation's own command again: it goes on where it was, then write this anew."
        )
    return Next(
        "Evaluate the base model again as the other side was, then write this report anew.",
        f"python phase1_eval.py --model_path {_path(phase0)} --output_dir outputs/phase0_again{_settings_of(phase1)}",
    )


def _larger(side: Side) -> list[str]:
    """The sets to ask again: the contract's with its larger one, else those that were asked."""
    sets = [VALID, BIG] if VALID in side.datasets else list(side.datasets)
    return [shlex.quote(name) for name in sets]


def _settings_of(side: Side, others: Collection[str] = ()) -> str:
    """The flags that this side was evaluated with, but for those that name its model and its folder, and `others`."""
    run = _run(side)
    command = run.stamp.command[1:] if run and run.stamp and run.stamp.command else []
    kept, dropping = [], False
    for word in command:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in {*OF_ONE_MODEL, *others}
        if not dropping:
            kept.append(shlex.quote(word))
    return "".join(f" {word}" for word in kept)


def _path(side: Side) -> str:
    run = _run(side)
    return shlex.quote(run.model.path) if run and run.model.path else "MODEL"
