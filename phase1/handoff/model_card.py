"""MODEL_CARD.md, from what is on disk; what is not known is said to be unknown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from phase1.contract.state import evaluation_run, sft_report, train_run
from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.contract.state.handoff import CheckResult
from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput, fingerprint, read_json
from phase1.generate.sampling import Sampling
from phase1.handoff.handoff import Handoff
from phase1.handoff.run_folders import RunFolders, training_report

METRICS_HEAD = [
    "| set | problems | exec_success_rate (95% interval) | accepted@1 (95% interval) | pass_ratio |",
    "|---|---|---|---|---|",
]


def model_card(base_model: str | None, handoff: Handoff, results: Sequence[CheckResult], folders: RunFolders) -> str:
    """The card's text, Markdown under a YAML head.

    Args:
        base_model: as the user named it.
        handoff: the model and what it was compared with.
        results: of all checks.
        folders: of the run that made the model.
    """
    by_name = {c.name: c for c in results}
    step = handoff.best.best_step if handoff.best else "unknown"
    license_name = license_of(handoff.base)
    metrics = cast(dict[str, dict[str, Any]], by_name["metrics"].data.get("metrics") or {})
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if base_model:
        head.append(f"base_model: {base_model}")
    if license_name:
        head.append(f"license: {license_name}")
    card = [
        *head,
        "---",
        "",
        "# Phase 1 SFT checkpoint",
        "",
        f"- Step: {step}",
        f"- Base model: {base_model or 'unknown'}",
        f"- Parameters: {by_name['parameters'].data.get('parameters', 0):,}",
        f"- Training data: {training_data(folders)}",
        f"- Licence: {license_name or 'that of the base model'}; the training data carry their own.",
        "",
        "## Hyperparameters",
        "",
        *hyperparameters(folders.checkpoints / train_run.NAME),
        "",
        "## Metrics of this checkpoint",
        "",
        *protocol(handoff.evaluation),
        *metrics_table(metrics, "No evaluation was given."),
        "",
        "## Final evaluation",
        "",
        *protocol(folders.final),
        *metrics_table(final_metrics(folders.final, handoff.model), "None of this very model was found."),
        "",
    ]
    report = by_name["report"].data
    if isinstance(found := report.get("verdict"), dict):
        card += [f"Against the base model: {found['line']}", ""]
    if report.get("accepted"):
        card += [f"**Handed over although the report does not speak for it:** {report['accepted']}", ""]
    card += ["## Checks", "", "| check | verdict | evidence |", "|---|---|---|"]
    card += [f"| {c.name} | {c.status} | {one_cell(c.evidence)} |" for c in results]
    return "\n".join([*card, ""])


def one_cell(text: str) -> str:
    """The text as it may stand in a cell of a Markdown table."""
    return text.replace("|", "/").replace("\n", " ")


def license_of(base: Path | None) -> str | None:
    """The licence that the base model's own card names; None where there is none."""
    card = base / "README.md" if base else None
    match = re.search(r"^license:\s*(\S+)", card.read_text(errors="replace"), re.M) if card and card.exists() else None
    return match[1] if match else None


def protocol(evaluation: Path | None) -> list[str]:
    """How the answers of an evaluation were sampled, by its run.json; nothing where there is none."""
    path = evaluation / evaluation_run.NAME if evaluation else None
    if path is None or not path.exists():
        return []
    try:
        sampling = EvaluationRun.read(path).sampling
    except BadInput as e:
        return [f"Sampling not known: {e}.", ""]
    if not sampling:
        return ["Sampling not recorded.", ""]
    if all(sampling.get(key) == value for key, value in asdict(Sampling()).items() if key != "dtype"):
        return ["Sampling: greedy, EVAL@1.", ""]
    return ["Sampling: " + ", ".join(f"{key} {value}" for key, value in sampling.items()) + ".", ""]


def training_data(folders: RunFolders) -> str:
    """Rows and what was dropped, by prepare_sft_data.py's report beside the file that the run was trained on."""
    if not (folders.data / sft_report.NAME).exists():
        return "not recorded beside this run"
    try:
        report = training_report(folders)
    except BadInput as e:
        return f"not known: {e}"
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.dropped.items()))
    rows = [number(n) for n in (report.train_samples, report.val_samples, report.input_total)]
    source = Path(str(report.input_file)).name
    text = f"{rows[0]} training and {rows[1]} validation rows of {rows[2]} records in {source}"
    return f"{text} (dropped: {dropped})" if dropped else text


def number(value: int | None) -> str:
    """A count, or `?` where it is not known."""
    return "?" if value is None else f"{value:,}"


def hyperparameters(path: Path) -> list[str]:
    """What run_sft.sh recorded at its start, in `path`, as a table."""
    if not path.exists():
        return [f"Not recorded beside this run (no {path.name})."]
    try:
        run = TrainRun.read(path)
    except BadInput as e:
        return [f"Not known: {e}."]
    rows = {"world_size": run.world_size, "steps": run.expected_steps, **run.shape}
    return ["| parameter | value |", "|---|---|", *[f"| {k} | {json.dumps(v)} |" for k, v in rows.items()]]


def final_metrics(final: Path, model: Path) -> dict[str, dict[str, Any]]:
    """The data sets of outputs/eval_final, where it is a complete evaluation of this very model; else empty."""
    run_file, summary = final / evaluation_run.NAME, final / "summary.json"
    if not run_file.exists() or not summary.exists():
        return {}
    run = EvaluationRun.read(run_file)
    if not run.complete or run.model.fingerprint != fingerprint(model):
        return {}
    datasets: dict[str, dict[str, Any]] = read_json(summary).get("datasets", {})
    return datasets


def metrics_table(sets: Mapping[str, Mapping[str, Any]], otherwise: str) -> list[str]:
    """A row for each data set; `otherwise` where there is none."""
    if not sets:
        return [otherwise]
    rows = []
    for name, m in sets.items():
        n = m["total_problems"]
        executed, accepted = (share_and_interval(m[key], n) for key in ("exec_success_rate", "accepted_at_1"))
        rows.append(f"| {name} | {n} | {executed} | {accepted} | {share(m['pass_ratio_mean'])} |")
    return METRICS_HEAD + rows


def share(value: float | None) -> str:
    """A share as a percentage, `-` where there is none."""
    return "-" if value is None else f"{value:.1%}"


def share_and_interval(rate: float | None, n: int | None) -> str:
    """A rate over `n` problems with its 95% Wilson interval."""
    if rate is None or not n:
        return share(rate)
    from phase1.report.stats import wilson  # late: it imports numpy and a part of scipy

    low, high = wilson(round(rate * n), n) or (0.0, 1.0)
    return f"{share(rate)} ({low:.1%} to {high:.1%})"
