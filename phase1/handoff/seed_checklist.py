"""The original plan's end of phase (its chapter 6) as a table, read from what the run left on disk."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phase1.contract.extraction import extract_code
from phase1.contract.problems import EVAL_SETS
from phase1.contract.state import best_checkpoint, evaluation_run, sft_report, train_run
from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.contract.state.handoff import CheckResult
from phase1.contract.state.tracker import step_folders
from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput, read_json
from phase1.handoff.handoff import Handoff
from phase1.handoff.run_folders import RunFolders, training_report

Holds = Callable[[Path], bool | None]  # given what an item is read from; None: it does not apply to this run
Status = Literal["pass", "fail", "not applicable", "not measured"]
MEASURED = ("6.3", "6.4")  # the chapters whose items are measurements: without one nothing is said

EVALUATED = ("codecontests_valid", "mbpp_reg")
FINAL = ("codecontests_test", "humaneval")
LOGGED = ("train/loss", "train/lr", "train/grad_norm", "val/loss")
CONTRACT_METRICS = (
    "total_problems",
    "accepted_at_1",
    "pass_ratio_mean",
    "avg_gen_tokens",
    "avg_judge_time",
    "truncation_rate",
    "timeout_rate",
)
RANDOM_ROWS, SEED = 10, 42


@dataclass(frozen=True)
class Item:
    """An item of the plan: its words, the file or folder it is read from, and whether that holds it."""

    text: str
    source: Path
    holds: Holds


@dataclass(frozen=True)
class Outcome:
    """How an item came out, as checklist.json has it."""

    item: str
    status: Status
    source: str


def plan(folders: RunFolders, h: Handoff, results: Sequence[CheckResult]) -> list[Item]:
    """The items of 6.1 to 6.5."""
    train = folders.data / "sft_train.parquet"
    record, smoke = (folder / train_run.NAME for folder in (folders.checkpoints, folders.smoke_test))
    log = folders.outputs / "logs" / "latest"
    evaluation = h.evaluation or folders.outputs / "eval_step_N"
    final, comparison, model = folders.final, folders.comparison, h.model
    valid_rate = functools.partial(answer_of, dataset="codecontests_valid", metric="exec_success_rate")
    humaneval = functools.partial(answer_of, dataset="humaneval", metric="accepted_at_1")
    check = {c.name: c for c in results}
    return [
        Item("6.1 sft_train.parquet loads", train, has_rows),
        Item("6.1 messages are system, user, assistant", train, has_three_turns),
        Item(
            "6.1 evaluation problems kept out of training", folders.data / sft_report.NAME, lambda _: kept_out(folders)
        ),
        Item("6.1 ten random rows: prompt and response apart", train, prompt_and_response_apart),
        Item("6.2 smoke test of ten steps", smoke, training_complete),
        Item("6.2 the checkpoint holds huggingface/", model, lambda path: path.name == "huggingface"),
        Item("6.2 huggingface/ loads in transformers", model, lambda _: check["generation"].status != "fail"),
        Item("6.2 loss, lr, grad_norm and val/loss logged", log, logs_everything),
        Item("6.2 the same in W&B", record, training_in_wandb),
        Item("6.2 training reached its last step", record, training_complete),
        Item("6.3 first checkpoint evaluated (valid, MBPP)", folders.outputs, first_is_evaluated),
        Item("6.3 metrics complete", evaluation / "metrics.json", metrics_complete),
        Item("6.3 metrics in W&B", evaluation / evaluation_run.NAME, evaluation_in_wandb),
        Item("6.3 QA logs saved", evaluation, lambda path: any(path.glob("qa_logs/*_qa.jsonl"))),
        Item("6.3 valid_big evaluated at step 2000", folders.outputs / "eval_step_2000", valid_big_is_evaluated),
        Item("6.3 best_checkpoint.json chosen", folders.outputs / best_checkpoint.NAME, best_is_chosen),
        Item("6.4 final evaluation complete (test, HumanEval)", final / evaluation_run.NAME, final_complete),
        Item("6.4 comparison report, every metric with a value", comparison, every_metric_has_a_value),
        Item("6.4 HumanEval pass@1 not significantly worse", comparison, lambda path: is_not(humaneval(path), "worse")),
        Item("6.4 exec_success_rate (valid) rose", comparison, lambda path: is_one(valid_rate(path), "improved")),
        Item(
            "6.5 the model's path may stand in the GRPO configuration",
            model,
            lambda _: all(c.status != "fail" for c in results),
        ),
        Item("6.5 vLLM serves the model", model, lambda _: not_failed_if_run(check["vllm"])),
        Item("6.5 the model answers with Python", model, lambda _: not_failed_if_run(check["generated_code"])),
    ]


def checklist(folders: RunFolders, handoff: Handoff, results: Sequence[CheckResult]) -> list[Outcome]:
    """How every item of the plan came out. One without anything to read it from is not applicable, or not measured."""
    return [Outcome(i.text, status(i), str(i.source)) for i in plan(folders, handoff, results)]


def status(item: Item) -> Status:
    """Whether the item holds; damage to what it is read from is a failure."""
    nothing: Status = "not measured" if item.text.startswith(MEASURED) else "not applicable"
    if not item.source.exists():
        return nothing
    try:
        held = item.holds(item.source)
    except (BadInput, OSError, LookupError, TypeError, ValueError, StopIteration):
        held = False
    if held is None:
        return nothing
    return "pass" if held else "fail"


def show_checklist(outcomes: Iterable[Outcome]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="End-to-end plan", title_justify="left")
    for column in ("item", "status", "read from"):
        table.add_column(column, overflow="fold")
    for outcome in outcomes:
        table.add_row(outcome.item, outcome.status, outcome.source)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


# --------------------------------------------------------------------------------------------------------- 6.1: data
def has_rows(path: Path) -> bool:
    """Whether the Parquet file holds rows."""
    import pyarrow.parquet as pq

    return bool(pq.ParquetFile(path).metadata.num_rows > 0)


def has_three_turns(path: Path) -> bool:
    """Whether every row of `messages` has exactly the three turns."""
    import pyarrow.parquet as pq

    return all(
        [turn["role"] for turn in row.as_py()] == ["system", "user", "assistant"]
        for batch in pq.ParquetFile(path).iter_batches(columns=["messages"])
        for row in batch["messages"]
    )


def kept_out(folders: RunFolders) -> bool:
    """Whether the records were compared with the problems of every evaluation set, with that filter on."""
    report = training_report(folders)
    compared = all(isinstance(report.evaluation_sets.get(name), int) for name in EVAL_SETS)
    skipped = report.stamp.arguments["skip"]
    return compared and isinstance(skipped, list) and "contamination" not in skipped


def prompt_and_response_apart(path: Path) -> bool:
    """Whether random rows keep the problem in the user's turn and the program in the assistant's."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path, columns=["messages"]).column("messages")
    picked = random.Random(SEED).sample(range(len(rows)), min(RANDOM_ROWS, len(rows)))
    return all(turns_apart({turn["role"]: turn["content"] for turn in rows[i].as_py()}) for i in picked)


def turns_apart(turns: Mapping[str, str]) -> bool:
    """The same of one row, whose turns are given by role."""
    user, assistant = turns["user"], turns["assistant"]
    code = extract_code(assistant)
    if not user.strip() or not code.strip() or code in user:
        return False
    return not any(mark in turn for mark in ("### Prompt", "### Response") for turn in (user, assistant))


# ----------------------------------------------------------------------------------------------------- 6.2: training
def training_complete(path: Path) -> bool:
    """Whether train_run.json says that the last step was saved."""
    return TrainRun.read(path).status == "complete"


def training_in_wandb(path: Path) -> bool | None:
    """Whether verl was told to log to W&B; None where the run chose others."""
    return "wandb" in TrainRun.read(path).loggers or None


def logs_everything(path: Path) -> bool:
    """Whether the console log holds every number that the plan names."""
    text = path.read_text(errors="replace")
    return all(name in text for name in LOGGED)


# -------------------------------------------------------------------------------------------------- 6.3: evaluations
def first_is_evaluated(outputs: Path) -> bool | None:
    """Whether the earliest evaluated step was evaluated on the plan's sets; None where no step was evaluated."""
    steps = step_folders(outputs, "eval_step_")
    return set(EVALUATED) <= set(read_json(steps[min(steps)] / "metrics.json")) if steps else None


def metrics_complete(path: Path) -> bool:
    """Whether every set of metrics.json has the contract's rates and counts."""
    metrics = read_json(path)
    return bool(metrics) and all(m.get(key) is not None for m in metrics.values() for key in CONTRACT_METRICS)


def evaluation_in_wandb(path: Path) -> bool | None:
    """Whether the evaluation was given a W&B project; None where it was not."""
    sessions = EvaluationRun.read(path).sessions
    return any(session.stamp.arguments.get("wandb_project") for session in sessions) or None


def valid_big_is_evaluated(folder: Path) -> bool:
    """Whether the evaluation has the large validation set."""
    return "codecontests_valid_big" in read_json(folder / "metrics.json")


def best_is_chosen(path: Path) -> bool:
    """Whether a best step is named."""
    return "best_step" in read_json(path)


# ------------------------------------------------------------------------------------------------------- 6.4: report
def final_complete(path: Path) -> bool:
    """Whether the final evaluation, of which this is run.json, is complete and has the test-only sets."""
    return EvaluationRun.read(path).complete and set(FINAL) <= set(read_json(path.with_name("metrics.json")))


def every_metric_has_a_value(path: Path) -> bool:
    """Whether no row of the report's tables lacks Phase 1's number."""
    return all(row["phase1"] is not None for row in read_json(path)["rows"])


def answer_of(path: Path, dataset: str, metric: str) -> str | None:
    """generate_report.py's answer to one row, such as improved or no clear difference; None where a phase lacks it."""
    rows = read_json(path)["rows"]
    row = next(row for row in rows if (row["dataset"], row["metric"]) == (dataset, metric))
    return None if None in (row["phase0"], row["phase1"]) else str(row["answer"])


def is_one(answer: str | None, word: str) -> bool | None:
    """Whether the report answers with this word; None where nothing was measured."""
    return None if answer is None else answer == word


def is_not(answer: str | None, word: str) -> bool | None:
    """Whether it answers otherwise; None where nothing was measured."""
    return None if answer is None else answer != word


# ------------------------------------------------------------------------------------------------------ 6.5: hand-off
def not_failed_if_run(check: CheckResult) -> bool | None:
    """Whether a check did not fail; None where it was not run."""
    return None if "not run" in check.evidence else check.status != "fail"
