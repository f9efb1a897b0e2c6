"""What the hand-off writes for Phase 3: grpo_model.yaml, MODEL_CARD.md, and the run's report as handoff.json names
it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from phase1.files import fingerprint, read_json
from phase1.handoff.checklist import data_directory, outputs_directory, training_directory


def grpo_yaml(target: Path, root: Path) -> str:
    """Phase 3's configuration: the specification's form and verl's own, with the reward that Phase 1 measured by.

    A Hydra primary configuration over verl's ppo_trainer, so `verl.trainer.main_ppo --config-path … --config-name
    grpo_model` starts from it (0.7.0 and 0.9.1: the latter moves custom_reward_function to its new place at start).
    """
    path = json.dumps(str(target.resolve()), ensure_ascii=False)  # a JSON string is a YAML string
    return (
        "# Written by verify_handoff.py; handoff.json beside it holds the verdict. Data, batch sizes and "
        "hardware are Phase 3's:\n"
        "#   python -m verl.trainer.main_ppo --config-path THIS_FOLDER --config-name grpo_model data.train_files=…\n"
        "defaults:\n  - ppo_trainer\n  - _self_\n"
        "hydra:\n  searchpath:\n    - pkg://verl.trainer.config\n\n"
        f"model:\n  partial_pretrain: {path}\n\n"
        f"actor_rollout_ref:\n  model:\n    path: {path}\n\n"
        "algorithm:\n  adv_estimator: grpo\n\n"
        "custom_reward_function:\n"
        f"  path: {json.dumps(str(root / 'phase1' / 'reward.py'))}\n  name: compute_score\n"
    )


def report_of(handoff, root: Path) -> dict | None:
    """The comparison with Phase 0: file and verdict; None where none was written."""
    path = outputs_directory(root, handoff) / "report" / "comparison_data.json"
    return {"path": str(path), "verdict": read_json(path).get("verdict")} if path.exists() else None


def model_card(base_model: str | None, handoff, results: list, root: Path) -> str:
    """A model card from what is on disk; what is not known is said to be unknown."""
    by_name = {c.name: c for c in results}
    step = (handoff.best or {}).get("best_step")
    card = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {base_model}"] if base_model else []),
        *([f"license: {found}"] if (found := licence(handoff.base)) else []),
        "---",
        "",
        "# Phase 1 SFT checkpoint",
        "",
        f"- Step: {step if step is not None else 'unknown'}",
        f"- Base model: {base_model or 'unknown'}",
        f"- Parameters: {by_name['parameters'].data.get('parameters', 0):,}",
        f"- Training data: {training_data(data_directory(root, handoff) / 'sft_report.json')}",
        (
            f"- Licence: {found or 'that of the base model'}; the training data "
            "(BEE-spoke-data/code_contests_instruct) carries its own."
        ),
        "",
        "## Hyperparameters",
        "",
        *hyperparameters(training_directory(handoff.model) / "train_run.json"),
        "",
        "## Metrics of this checkpoint (greedy, EVAL@1)",
        "",
        *metrics_table(by_name["metrics"].data.get("metrics") or {}, "No evaluation was given."),
        "",
        "## Final evaluation",
        "",
        *metrics_table(final_metrics(handoff, root), "None of this very model was found."),
        "",
        *(
            [f"Against the base model: {report['verdict']['line']}", ""]
            if (report := report_of(handoff, root)) and report["verdict"]
            else []
        ),
        "## Checks",
        "",
        "| check | verdict | evidence |",
        "|---|---|---|",
        *[f"| {c.name} | {c.status} | {c.evidence.replace('|', '/').replace(chr(10), ' ')} |" for c in results],
        "",
    ]
    return "\n".join(card)


def licence(base: Path | None) -> str | None:
    """The licence that the base model's own card names."""
    card = base / "README.md" if base else None
    match = re.search(r"^license:\s*(\S+)", card.read_text(errors="replace"), re.M) if card and card.exists() else None
    return match[1] if match else None


def training_data(report: Path) -> str:
    """Rows and what was dropped, from prepare_sft_data.py's report."""
    if not report.exists():
        return "not recorded beside this run"
    found = read_json(report)
    dropped = ", ".join(f"{k} {v:,}" for k, v in sorted((found.get("dropped") or {}).items()))
    return (
        f"{found.get('train_samples'):,} training and {found.get('val_samples'):,} validation rows of "
        f"{found.get('input_total'):,} records "
        f"in {Path(str(found.get('input_file'))).name}" + f" (dropped: {dropped})" * bool(dropped)
    )


def hyperparameters(record: Path) -> list[str]:
    """What run_sft.sh wrote down at its start, as a table."""
    if not record.exists():
        return [f"Not recorded beside this run (no {record.name})."]
    run = read_json(record)
    rows = {"world_size": run.get("world_size"), "steps": run.get("expected_steps"), **(run.get("shape") or {})}
    return ["| parameter | value |", "|---|---|", *[f"| {k} | {json.dumps(v)} |" for k, v in rows.items()]]


def final_metrics(handoff, root: Path) -> dict:
    """The sets of outputs/eval_final, where it is a complete evaluation of this very model."""
    final = outputs_directory(root, handoff) / "eval_final"
    if not (final / "run.json").exists() or not (final / "summary.json").exists():
        return {}
    run = read_json(final / "run.json")
    same = (run.get("model") or {}).get("fingerprint") == fingerprint(handoff.model)
    return read_json(final / "summary.json").get("datasets", {}) if same and run.get("status") == "complete" else {}


def metrics_table(sets: dict, otherwise: str) -> list[str]:
    rows = [
        f"| {name} | {m['total_problems']} | "
        f"{share(m['exec_success_rate'])}{interval(m['exec_success_rate'], m['total_problems'])} | "
        f"{share(m['accepted_at_1'])}{interval(m['accepted_at_1'], m['total_problems'])} | "
        f"{share(m['pass_ratio_mean'])} |"
        for name, m in sets.items()
    ]
    head = [
        "| set | problems | exec_success_rate (95% interval) | accepted@1 (95% interval) | pass_ratio |",
        "|---|---|---|---|---|",
    ]
    return head + rows if rows else [otherwise]


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def interval(rate: float | None, n: int | None) -> str:
    """The Wilson interval of a rate over n problems, as ` (a to b)`."""
    if rate is None or not n:
        return ""
    from phase1.report.stats import wilson

    low, high = wilson(round(rate * n), n) or (0.0, 1.0)
    return f" ({low:.1%} to {high:.1%})"
