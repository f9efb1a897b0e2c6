"""One evaluation folder: its run.json, what stands in it, and what is still to be done.

run.json                       how it was made; readers trust the folder only when its status is `complete`
completions/{dataset}.jsonl    a line an answer, on disk before it is judged
results/{dataset}.jsonl        a line a judged answer: the answer and its verdict; everything else derives from it
logs/vllm_N.log                what each vLLM server of the last session said
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue

from phase1.contract.identity import Identity
from phase1.contract.problems import Problem, load_problems
from phase1.contract.records import Completion, Record, read_completions, read_records
from phase1.contract.state import evaluation_run
from phase1.contract.state.base import Stamp
from phase1.contract.state.evaluation_run import EvaluatedSet, EvaluationRun, Session
from phase1.files import BadInput, now


class Key(NamedTuple):
    """One answer of an evaluation."""

    dataset: str
    problem_id: str
    sample: int


# ---------------------------------------------------------------------------------------------------------- run.json
def open_run(output_dir: Path, identity: Identity) -> EvaluationRun:
    """The run.json of the evaluation in `output_dir`, a new one where there is none; nothing is written.

    Raises:
        BadInput: the folder was begun under another identity (the first field that differs is named; further data sets
            may join), or holds results without a run.json.
    """
    path = output_dir / evaluation_run.NAME
    if path.exists():
        run = EvaluationRun.read(path)
        difference = Identity.of(run).first_difference(identity)
        if difference:
            raise BadInput(
                f"{path}: this evaluation was begun with {difference.field} = {difference.was!r}, now it is "
                f"{difference.now!r}; give another --output_dir or the first arguments"
            )
        judge, datasets = run.judge_settings, {**run.datasets, **identity.datasets}
        return run.model_copy(update={"judge": judge, "datasets": datasets})
    if any((output_dir / d).exists() for d in ("results", "completions")):
        raise BadInput(
            f"{output_dir}: holds results but no run.json, so nobody knows how they were made; give another "
            "--output_dir"
        )
    return EvaluationRun(status="running", sessions=[], **identity.fields())


def begin_session(output_dir: Path, run: EvaluationRun, stamp: Stamp) -> EvaluationRun:
    """Write run.json as `running`, with one session more; `stamp` stands in it and, as the latest, at the top."""
    sessions = [*run.sessions, Session(started=now(), stamp=stamp)]
    return update_run(output_dir, run, status="running", sessions=sessions, stamp=stamp, finished=None)


def close_run(
    output_dir: Path, run: EvaluationRun, status: Literal["complete", "incomplete", "interrupted"]
) -> EvaluationRun:
    """Write run.json with its final status; `incomplete`: some problems want a rerun."""
    finished = now()
    last = run.sessions[-1].model_copy(update={"finished": finished})
    return update_run(output_dir, run, status=status, sessions=[*run.sessions[:-1], last], finished=finished)


def update_run(output_dir: Path, run: EvaluationRun, **fields: object) -> EvaluationRun:
    """Write run.json with other values of these fields."""
    run = run.model_copy(update=fields)
    run.write(output_dir / evaluation_run.NAME)
    return run


# ------------------------------------------------------------------------------------------------- what is on disk
def is_final(record: Record) -> bool:
    """Whether a rerun leaves this record alone: only failures of the generator or the judge are tried again."""
    failed = record.error_type == "sandbox_error" or (record.other or {}).get("error_type") == "sandbox_error"
    return not failed and record.finish_reason != "error"


def read_results(output_dir: Path, datasets: list[str]) -> dict[str, list[Record]]:
    """The last record of each answer, by data set, in file order."""
    return {
        d: list({(r.problem_id, r.sample): r for r in read_records(output_dir / "results" / f"{d}.jsonl")}.values())
        for d in datasets
    }


def unfinished(records: dict[str, list[Record]], run: EvaluationRun) -> list[str]:
    """What keeps an evaluation from being complete: a reason for each answer without a final record."""
    reasons = [f"{r.problem_id}: {r.detail}" for rs in records.values() for r in rs if not is_final(r)]
    samples = run.n_samples
    missing = {name: held.problems * samples - len(records[name]) for name, held in run.datasets.items()}
    return reasons + [
        f"{d}: {n} {'problems' if samples == 1 else 'answers'} were not begun" for d, n in missing.items() if n > 0
    ]


def finished(output_dir: Path, datasets: list[str]) -> set[Key]:
    """The answers that need neither generation nor judging any more."""
    return {
        Key(d, r.problem_id, r.sample)
        for d, records in read_results(output_dir, datasets).items()
        for r in records
        if is_final(r)
    }


def stored_completions(output_dir: Path, datasets: list[str]) -> dict[Key, Completion]:
    found = {}
    for d in datasets:
        for c in read_completions(output_dir / "completions" / f"{d}.jsonl"):
            if c.finish_reason != "error":
                found[Key(d, c.problem_id, c.sample)] = c
    return found


def set_aside_results(
    output_dir: Path,
    run: EvaluationRun,
    judge: dict[str, JsonValue],
    datasets: dict[str, EvaluatedSet],
    stamp: Stamp,
) -> EvaluationRun:
    """Make ready to judge every stored completion again, under other judge settings or tests.

    The old verdicts are kept under another name and a session begins. Each step leaves a folder that a rerun finishes
    under one judge: first run.json says `running`, then the verdicts go, then run.json names the new judge and tests.
    """
    run = begin_session(output_dir, run, stamp)
    for number in range(1000):
        aside = output_dir / f"results_before_rejudge_{number}"
        if not aside.exists():
            break
    if (output_dir / "results").exists():
        (output_dir / "results").rename(aside)
    run = EvaluationRun.model_validate(run.model_dump(exclude={"sandbox"}, exclude_unset=True))  # of the old verdicts
    return update_run(output_dir, run, judge=judge, datasets=datasets)


def stored_problems(
    output_dir: Path, run: EvaluationRun, manifest_dir: Path, datasets: list[str]
) -> dict[str, list[Problem]]:
    """The problems that a run generated answers for, with the tests that the raw files hold now.

    BadInput when a statement is no longer the one that was asked: other tests may judge an old answer, not another
    problem's.
    """
    problems = {d: load_problems(manifest_dir, d, run.datasets[d].problems) for d in datasets}
    stored = stored_completions(output_dir, datasets)
    for p in (p for ps in problems.values() for p in ps):
        c = stored.get(Key(p.dataset, p.problem_id, 0))
        if c is not None and c.prompt_sha256 != p.user_sha256:
            raise BadInput(
                f"{output_dir}/completions/{p.dataset}.jsonl: {p.problem_id} was asked in other words than the "
                "raw file has now; generate it again in another --output_dir"
            )
    return problems
