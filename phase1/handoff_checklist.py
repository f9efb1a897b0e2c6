"""The end-to-end plan of the phase (chapter 6 of its specification) as a table, read from what the run left on disk."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from phase1.files import BadInput, read_json
from phase1.problems import EVAL_SETS

EVALUATED = ("codecontests_valid", "mbpp_reg")


def checklist(root: Path, handoff, results: list) -> list[dict]:
    """The items of 6.1 to 6.5 that the disk can tell, as {item, status, source}; status is pass, fail or not applicable (nothing to read).

    The run's outputs are those beside the evaluation, its data and checkpoints those the model and `root` lie in.
    """
    outputs = handoff.evaluation.parent if handoff.evaluation else root / "outputs"
    checkpoints = handoff.model.parent.parent
    data = data_directory(root, handoff)
    verdicts = {c.name: c.status for c in results}
    final = outputs / "eval_final"
    plan: list[tuple[str, Path, Callable[[], bool]]] = [
        ("6.1 sft_train.parquet loads", data / "sft_train.parquet", lambda: parquet_rows(data / "sft_train.parquet") > 0),
        ("6.1 messages are system, user, assistant", data / "sft_train.parquet", lambda: roles_sound(data / "sft_train.parquet")),
        ("6.1 evaluation problems kept out of training", data / "sft_report.json", lambda: kept_out(read_json(data / "sft_report.json"))),
        ("6.2 the checkpoint holds huggingface/", handoff.model, lambda: handoff.model.name == "huggingface"),
        ("6.2 huggingface/ loads in transformers", handoff.model, lambda: verdicts["generation"] != "fail"),
        ("6.2 training reached its last step", checkpoints / "train_run.json", lambda: read_json(checkpoints / "train_run.json")["status"] == "complete"),
        ("6.3 first checkpoint evaluated (valid, MBPP)", outputs, lambda: all(d in first_evaluation(outputs) for d in EVALUATED)),
        ("6.3 QA logs saved", handoff.evaluation or outputs, lambda: any((handoff.evaluation or outputs).glob("qa_logs/*_qa.jsonl"))),
        ("6.3 valid_big evaluated at step 2000", outputs / "eval_step_2000", lambda: "codecontests_valid_big" in read_json(outputs / "eval_step_2000/metrics.json")),
        ("6.3 best_checkpoint.json chosen", outputs / "best_checkpoint.json", lambda: "best_step" in read_json(outputs / "best_checkpoint.json")),
        ("6.4 final evaluation complete (test, HumanEval)", final / "run.json", lambda: read_json(final / "run.json")["status"] == "complete"
         and {"codecontests_test", "humaneval"} <= set(read_json(final / "metrics.json"))),
        ("6.4 comparison report written", outputs / "report" / "comparison_data.json", lambda: bool(read_json(outputs / "report/comparison_data.json"))),
        ("6.5 the model's path stands in the GRPO configuration", handoff.model, lambda: "fail" not in verdicts.values()),
        ("6.5 vLLM serves the model", handoff.model, lambda: verdicts["vllm"] == "pass"),
        ("6.5 the model answers with Python", handoff.model, lambda: verdicts["generated_code"] != "fail"),
    ]  # fmt: skip
    return [{"item": item, "status": status(source, holds, item, verdicts), "source": str(source)} for item, source, holds in plan]


def data_directory(root: Path, handoff) -> Path:
    """Where the run's training data lie: beside its evaluations (as the demo has them), else in the toolkit's data/."""
    beside = handoff.evaluation.parent / "data" if handoff.evaluation else root / "data"
    return beside if (beside / "sft_train.parquet").exists() else root / "data"


def status(source: Path, holds: Callable[[], bool], item: str, verdicts: dict) -> str:
    if not source.exists() or (item.startswith("6.5 vLLM") and verdicts["vllm"] == "warn"):
        return "not applicable"
    try:
        return "pass" if holds() else "fail"
    except (BadInput, OSError, KeyError, TypeError, ValueError):
        return "fail"


def parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.num_rows


def roles_sound(path: Path) -> bool:
    """Whether every row of `messages` has exactly the three turns."""
    import pyarrow.parquet as pq

    return all([m["role"] for m in row.as_py()] == ["system", "user", "assistant"]
               for batch in pq.ParquetFile(path).iter_batches(columns=["messages"]) for row in batch["messages"])  # fmt: skip


def kept_out(report: dict) -> bool:
    """Whether the training data were held against the problems of every evaluation set, with that filter on."""
    sets = report["evaluation_sets"]
    return all(isinstance(sets.get(name), int) for name in EVAL_SETS) and "contamination" not in report["stamp"]["arguments"]["skip"]


def first_evaluation(outputs: Path) -> dict:
    """metrics.json of the earliest evaluated step."""
    steps = sorted(int(m[1]) for p in outputs.glob("eval_step_*") if (m := re.fullmatch(r"eval_step_(\d+)", p.name)))
    return read_json(outputs / f"eval_step_{steps[0]}" / "metrics.json") if steps else {}


def show_checklist(items: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="End-to-end plan", title_justify="left")
    for column in ("item", "status", "read from"):
        table.add_column(column, overflow="fold")
    for i in items:
        table.add_row(i["item"], i["status"], i["source"])
    Console(width=None if sys.stdout.isatty() else 140).print(table)
