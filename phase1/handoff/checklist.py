"""The end-to-end plan of the phase (chapter 6 of its specification) as a table, read from what the run left on disk."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

from phase1.contract.problems import EVAL_SETS
from phase1.files import BadInput, read_json

EVALUATED = ("codecontests_valid", "mbpp_reg")
LOGGED = ("train/loss", "train/lr", "train/grad_norm", "val/loss")


def checklist(root: Path, handoff, results: list) -> list[dict]:
    """The items of 6.1 to 6.5 as {item, status, source}: pass, fail or not applicable (nothing there to read it from).

    The run's outputs are those beside the evaluation, its data and checkpoints those the model and `root` lie in.
    """
    outputs, data, checkpoints = (
        outputs_directory(root, handoff),
        data_directory(root, handoff),
        training_directory(handoff.model),
    )
    verdicts = {c.name: c.status for c in results}
    train, final, comparison = (
        data / "sft_train.parquet",
        outputs / "eval_final",
        outputs / "report" / "comparison_data.json",
    )
    evaluation, log, best = (
        handoff.evaluation or outputs / "eval_step_N",
        outputs / "logs" / "latest",
        outputs / "best_checkpoint.json",
    )
    plan: list[tuple[str, Path, Callable[[], bool | None]]] = [
        ("6.1 sft_train.parquet loads", train, lambda: parquet_rows(train) > 0),
        ("6.1 messages are system, user, assistant", train, lambda: roles_sound(train)),
        (
            "6.1 evaluation problems kept out of training",
            data / "sft_report.json",
            lambda: kept_out(read_json(data / "sft_report.json")),
        ),
        ("6.1 ten random rows: prompt and response apart", train, lambda: separated(train)),
        (
            "6.2 smoke test of ten steps",
            checkpoints.parent / "smoke_test" / "train_run.json",
            lambda: trained(checkpoints.parent / "smoke_test" / "train_run.json"),
        ),
        ("6.2 the checkpoint holds huggingface/", handoff.model, lambda: handoff.model.name == "huggingface"),
        ("6.2 huggingface/ loads in transformers", handoff.model, lambda: verdicts["generation"] != "fail"),
        (
            "6.2 loss, lr, grad_norm and val/loss logged",
            log,
            lambda: all(name in log.read_text(errors="replace") for name in LOGGED),
        ),
        (
            "6.2 the same in W&B",
            checkpoints / "train_run.json",
            lambda: wandb_of_training(checkpoints / "train_run.json"),
        ),
        (
            "6.2 training reached its last step",
            checkpoints / "train_run.json",
            lambda: trained(checkpoints / "train_run.json"),
        ),
        (
            "6.3 first checkpoint evaluated (valid, MBPP)",
            outputs,
            lambda: set(EVALUATED) <= set(first) if (first := first_evaluation(outputs)) is not None else None,
        ),
        (
            "6.3 metrics complete",
            evaluation / "metrics.json",
            lambda: metrics_complete(read_json(evaluation / "metrics.json")),
        ),
        (
            "6.3 metrics in W&B",
            evaluation / "run.json",
            lambda: wandb_of_evaluation(read_json(evaluation / "run.json")),
        ),
        ("6.3 QA logs saved", evaluation, lambda: any(evaluation.glob("qa_logs/*_qa.jsonl"))),
        (
            "6.3 valid_big evaluated at step 2000",
            outputs / "eval_step_2000",
            lambda: "codecontests_valid_big" in read_json(outputs / "eval_step_2000/metrics.json"),
        ),
        ("6.3 best_checkpoint.json chosen", best, lambda: "best_step" in read_json(best)),
        (
            "6.4 final evaluation complete (test, HumanEval)",
            final / "run.json",
            lambda: (
                read_json(final / "run.json")["status"] == "complete"
                and {"codecontests_test", "humaneval"} <= set(read_json(final / "metrics.json"))
            ),
        ),
        (
            "6.4 comparison report, every metric with a value",
            comparison,
            lambda: all(r["phase1"] is not None for r in read_json(comparison)["rows"]),
        ),
        (
            "6.4 HumanEval pass@1 not significantly worse",
            comparison,
            lambda: answer_of(comparison, "humaneval", "accepted_at_1") != "worse",
        ),
        (
            "6.4 exec_success_rate (valid) rose",
            comparison,
            lambda: answer_of(comparison, "codecontests_valid", "exec_success_rate") == "improved",
        ),
        (
            "6.5 the model's path may stand in the GRPO configuration",
            handoff.model,
            lambda: "fail" not in verdicts.values(),
        ),
        (
            "6.5 vLLM serves the model",
            handoff.model,
            lambda: None if "not run" in evidence(results, "vllm") else verdicts["vllm"] != "fail",
        ),
        (
            "6.5 the model answers with Python",
            handoff.model,
            lambda: None if "not run" in evidence(results, "generated_code") else verdicts["generated_code"] != "fail",
        ),
    ]
    return [{"item": item, "status": status(source, holds), "source": str(source)} for item, source, holds in plan]


def evidence(results: list, name: str) -> str:
    return next(c.evidence for c in results if c.name == name)


def outputs_directory(root: Path, handoff) -> Path:
    """Where the run's evaluations and report lie: beside the evaluation of the checkpoint, else in the toolkit's
    outputs/."""
    return handoff.evaluation.parent if handoff.evaluation else root / "outputs"


def data_directory(root: Path, handoff) -> Path:
    """Where the run's training data lie: beside its evaluations (as the demo has them), else in the toolkit's data/."""
    beside = outputs_directory(root, handoff) / "data"
    return beside if (beside / "sft_train.parquet").exists() else root / "data"


def training_directory(model: Path) -> Path:
    """Where the training run of `model` wrote its checkpoints: the best models are kept elsewhere, kept.json says of
    which."""
    kept = model.parent / "kept.json"
    return (Path(read_json(kept)["source"]) if kept.exists() else model).parent.parent


def status(source: Path, holds: Callable[[], bool | None]) -> str:
    if not source.exists():
        return "not applicable"
    try:
        held = holds()
    except (BadInput, OSError, KeyError, TypeError, ValueError, IndexError, StopIteration):
        held = False
    return "not applicable" if held is None else "pass" if held else "fail"


def trained(record: Path) -> bool:
    return read_json(record)["status"] == "complete"


def wandb_of_training(record: Path) -> bool | None:
    """Whether verl was told to log to W&B; None where the run chose the console alone."""
    logger = next(a for a in read_json(record)["command"] if a.startswith("trainer.logger="))
    return True if "wandb" in logger else None


def wandb_of_evaluation(run: dict) -> bool | None:
    """Whether the evaluation was given a W&B project; None where it was not."""
    return any(s["stamp"]["arguments"].get("wandb_project") for s in run["sessions"]) or None


def metrics_complete(metrics: dict) -> bool:
    """Whether every set has the contract's rates and counts."""
    needed = (
        "total_problems",
        "accepted_at_1",
        "pass_ratio_mean",
        "avg_gen_tokens",
        "avg_judge_time",
        "truncation_rate",
        "timeout_rate",
    )
    return bool(metrics) and all(m.get(k) is not None for m in metrics.values() for k in needed)


def answer_of(comparison: Path, dataset: str, metric: str) -> str:
    """generate_report.py's answer to one row: improved, worse, equivalent or not shown."""
    return next(r["answer"] for r in read_json(comparison)["rows"] if (r["dataset"], r["metric"]) == (dataset, metric))


def separated(path: Path) -> bool:
    """Whether ten random rows keep the problem in the user's turn and the program in the assistant's."""
    import pyarrow.parquet as pq

    from phase1.contract.prompts import extract_code

    rows = pq.read_table(path, columns=["messages"]).column("messages")
    picked = random.Random(42).sample(range(len(rows)), min(10, len(rows)))
    turns = [{m["role"]: m["content"] for m in rows[i].as_py()} for i in picked]
    return all(
        t["user"].strip()
        and extract_code(t["assistant"]).strip()
        and extract_code(t["assistant"]) not in t["user"]
        and not any(mark in t[role] for mark in ("### Prompt", "### Response") for role in ("user", "assistant"))
        for t in turns
    )


def parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.num_rows


def roles_sound(path: Path) -> bool:
    """Whether every row of `messages` has exactly the three turns."""
    import pyarrow.parquet as pq

    return all(
        [m["role"] for m in row.as_py()] == ["system", "user", "assistant"]
        for batch in pq.ParquetFile(path).iter_batches(columns=["messages"])
        for row in batch["messages"]
    )


def kept_out(report: dict) -> bool:
    """Whether the training data were held against the problems of every evaluation set, with that filter on."""
    sets = report["evaluation_sets"]
    return (
        all(isinstance(sets.get(name), int) for name in EVAL_SETS)
        and "contamination" not in report["stamp"]["arguments"]["skip"]
    )


def first_evaluation(outputs: Path) -> dict | None:
    """metrics.json of the earliest evaluated step; None where there is none."""
    steps = sorted(int(m[1]) for p in outputs.glob("eval_step_*") if (m := re.fullmatch(r"eval_step_(\d+)", p.name)))
    return read_json(outputs / f"eval_step_{steps[0]}" / "metrics.json") if steps else None


def show_checklist(items: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="End-to-end plan", title_justify="left")
    for column in ("item", "status", "read from"):
        table.add_column(column, overflow="fold")
    for i in items:
        table.add_row(i["item"], i["status"], i["source"])
    Console(width=None if sys.stdout.isatty() else 140).print(table)
