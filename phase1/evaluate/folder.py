"""One evaluation folder: its run.json, which answers are finished, which completions are stored.

lock                           held by the evaluation at work, with its process
run.json                       how it was made; readers trust the folder only when its status is `complete`
completions/{dataset}.jsonl    a line an answer, on disk before it is judged
results/{dataset}.jsonl        a line a judged answer: the answer and its verdict; everything else derives from it
logs/vllm_N.log                what each vLLM server of the last session said
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue

from phase1.contract.identity import Identity
from phase1.contract.problems import Problem, load_problems
from phase1.contract.prompts import PROMPTS_SHA256
from phase1.contract.records import Completion, Record, is_final, read_completions, read_records
from phase1.contract.state import evaluation_run
from phase1.contract.state.base import Stamp
from phase1.contract.state.evaluation_run import Behaviour, EvaluatedSet, EvaluationRun, Session
from phase1.files import BadInput, now, only_one


class AnswerKey(NamedTuple):
    """Which answer: the `sample`-th, from 0, to a problem."""

    dataset: str
    problem_id: str
    sample: int


@contextlib.contextmanager
def locked(output_dir: Path, wait: float) -> Iterator[None]:
    """Be the only evaluation in the folder, after at most `wait` seconds.

    Raises:
        BadInput: another one is at work there.
    """
    lock = output_dir / "lock"
    with only_one(lock, wait=wait) as mine:
        if not mine:
            raise BadInput(
                f"{output_dir}: another evaluation is at work there ({lock.read_text()}); wait for it or stop it"
            )
        yield


# ---------------------------------------------------------------------------------------------------------- run.json
def read_run(output_dir: Path) -> EvaluationRun:
    """The run.json of an evaluation folder.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    return EvaluationRun.read(output_dir / evaluation_run.NAME)


def open_run(output_dir: Path, wanted: Identity) -> EvaluationRun:
    """The run of the evaluation in `output_dir`, a new one where there is none yet. Nothing is written.

    Further data sets may join an evaluation that was begun.

    Raises:
        BadInput: the folder was begun otherwise than `wanted`, whose first field that differs is named; or it holds
            results and no run.json.
    """
    path = output_dir / evaluation_run.NAME
    if not path.exists():
        if any((output_dir / name).exists() for name in ("results", "completions")):
            raise BadInput(
                f"{output_dir}: holds results but no run.json, so nobody knows how they were made; give another "
                "--output_dir"
            )
        return EvaluationRun(status="running", **wanted.fields(), sessions=[])
    begun = read_run(output_dir)
    if not _generated(output_dir):  # a start that failed before it did anything binds nobody
        return EvaluationRun(status="running", **wanted.fields(), sessions=begun.sessions)
    if found := Identity.of(begun).first_difference(wanted):
        ways = "give another --output_dir or the first arguments"
        if found.field.startswith("behaviour.") and found.field != "behaviour.answer_form":
            ways = "judge the stored answers by the rules of now with --rejudge, or give another --output_dir"
        raise BadInput(
            f"{path}: this evaluation was begun with {found.field} = {found.was!r}, now it is {found.now!r}; {ways}"
        )
    behaviour = begun.behaviour
    if behaviour is None and not _judged(output_dir):
        behaviour = wanted.behaviour
    changes = {
        "judge": begun.judge_settings,
        "datasets": {**begun.datasets, **wanted.datasets},
        "behaviour": behaviour,
    }
    joined: EvaluationRun = begun.model_copy(update=changes)
    return joined


def need_known_rules(output_dir: Path, run: EvaluationRun) -> None:
    """Refuse to add verdicts to those of a run.json that does not say by which rules they were made.

    Raises:
        BadInput: it does not.
    """
    if run.behaviour is None and _judged(output_dir):
        raise BadInput(
            f"{output_dir / evaluation_run.NAME}: by which extraction, comparison and judge its verdicts were made is "
            "not known: an earlier version wrote it; judge the stored answers by the rules of now with --rejudge, or "
            "give another --output_dir"
        )


def _generated(output_dir: Path) -> bool:
    return any(path.stat().st_size for name in ("completions", "results") for path in (output_dir / name).glob("*"))


def _judged(output_dir: Path) -> bool:
    return any(path.stat().st_size for path in (output_dir / "results").glob("*.jsonl"))


def begin_session(output_dir: Path, run: EvaluationRun, stamp: Stamp) -> EvaluationRun:
    """Write run.json as `running`, with one session more, made as `stamp` says."""
    session = Session(started=now(), stamp=stamp)
    changes = {"status": "running", "stamp": stamp, "finished": None, "sessions": [*run.sessions, session]}
    return write_run(output_dir, run.model_copy(update=changes))


def note_vllm(output_dir: Path, run: EvaluationRun, version: str) -> EvaluationRun:
    """Write down with which vLLM the session generates, before its first answer.

    Raises:
        BadInput: an earlier session generated with another version: answers move between them.
    """
    for session in run.sessions[:-1]:
        if session.vllm not in (None, version):
            raise BadInput(
                f"{output_dir / evaluation_run.NAME}: this evaluation was begun with vLLM version = {session.vllm!r}, "
                f"now it is {version!r}; give another --output_dir or that vLLM"
            )
    last = run.sessions[-1].model_copy(update={"vllm": version})
    return write_run(output_dir, run.model_copy(update={"sessions": [*run.sessions[:-1], last]}))


def close_run(
    output_dir: Path, run: EvaluationRun, status: Literal["complete", "incomplete", "interrupted"]
) -> EvaluationRun:
    """Write run.json with its final status; `incomplete`: some answers need another start."""
    finished = now()
    last = run.sessions[-1].model_copy(update={"finished": finished})
    changes = {"status": status, "finished": finished, "sessions": [*run.sessions[:-1], last]}
    return write_run(output_dir, run.model_copy(update=changes))


def write_run(output_dir: Path, run: EvaluationRun) -> EvaluationRun:
    """Write run.json; returns what was written."""
    run.write(output_dir / evaluation_run.NAME)
    return run


# -------------------------------------------------------------------------------------------------- what is finished
def read_results(output_dir: Path, datasets: Iterable[str]) -> dict[str, list[Record]]:
    """The last record of each answer, by data set, in file order."""
    results = {}
    for dataset in datasets:
        path = output_dir / "results" / f"{dataset}.jsonl"
        results[dataset] = list({(r.problem_id, r.sample): r for r in read_records(path)}.values())
    return results


def finished_answers(output_dir: Path, datasets: Iterable[str]) -> set[AnswerKey]:
    """The answers that need neither generation nor judging any more."""
    return {
        AnswerKey(dataset, r.problem_id, r.sample)
        for dataset, records in read_results(output_dir, datasets).items()
        for r in records
        if is_final(r)
    }


def unfinished(records: Mapping[str, list[Record]], run: EvaluationRun) -> list[str]:
    """What keeps an evaluation from being complete: a line for each answer that failed, and for each set's missing."""
    reasons = [f"{r.problem_id}: {r.detail}" for judged in records.values() for r in judged if not is_final(r)]
    things = "problems" if run.n_samples == 1 else "answers"
    for dataset, asked in run.datasets.items():
        missing = asked.problems * run.n_samples - len(records[dataset])
        if missing > 0:
            reasons.append(f"{dataset}: {missing} {things} were not begun")
    return reasons


# ---------------------------------------------------------------------------------------------------- what is stored
def stored_completions(output_dir: Path, datasets: Iterable[str]) -> dict[AnswerKey, Completion]:
    """The completions on disk that did not fail."""
    found = {}
    for dataset in datasets:
        for c in read_completions(output_dir / "completions" / f"{dataset}.jsonl"):
            if c.finish_reason != "error":
                found[AnswerKey(dataset, c.problem_id, c.sample)] = c
    return found


def stored_problems(
    output_dir: Path, run: EvaluationRun, manifest_dir: Path, datasets: Iterable[str]
) -> dict[str, list[Problem]]:
    """The problems that a run generated answers for, with the tests that the raw files hold now.

    Raises:
        BadInput: a statement is no longer the one that was asked. An old answer may be judged by other tests, but not
            as the answer to another problem.
    """
    problems = {d: load_problems(manifest_dir, d, run.datasets[d].problems) for d in datasets}
    asked = {AnswerKey(p.dataset, p.problem_id, 0): p.user_sha256 for of_set in problems.values() for p in of_set}
    for key, completion in stored_completions(output_dir, problems).items():
        if completion.prompt_sha256 != asked.get(key._replace(sample=0), completion.prompt_sha256):
            raise BadInput(
                f"{output_dir}/completions/{key.dataset}.jsonl: {key.problem_id} was asked in other words than the raw "
                "file has now; generate it again in another --output_dir"
            )
    return problems


def set_aside_results(
    output_dir: Path,
    run: EvaluationRun,
    *,
    judge: dict[str, JsonValue],
    datasets: dict[str, EvaluatedSet],
    behaviour: Behaviour,
    stamp: Stamp,
) -> EvaluationRun:
    """Begin a session that judges every stored completion again; the old verdicts are kept under another name.

    Each step leaves a folder that another start finishes under one judge: first run.json says `running`, then the
    verdicts get another name, then run.json names the new judge and tests.

    Args:
        judge, datasets, behaviour: the settings, tests and rules that verdicts follow from now on. The answer form
            stays the one under which the answers were generated.
    """
    run = begin_session(output_dir, run, stamp)
    results = output_dir / "results"
    if results.exists():
        number = 0
        while (aside := output_dir / f"results_before_rejudge_{number}").exists():
            number += 1
        results.rename(aside)
    if run.behaviour or run.prompts_sha256 != PROMPTS_SHA256:
        form = run.behaviour.answer_form if run.behaviour else None
        behaviour = behaviour.model_copy(update={"answer_form": form})
    changes = {
        "judge": judge,
        "datasets": datasets,
        "behaviour": behaviour,
        "sandbox": None,
    }  # the sandbox was that of the old verdicts
    return write_run(output_dir, run.model_copy(update=changes))
