"""One evaluation directory: its run.json, what is still to do in it, and the loop that generates and judges.

run.json                       how it was made; readers trust the directory only when its status is `complete`
completions/{dataset}.jsonl    a line an answer, on disk before it is judged
results/{dataset}.jsonl        a line a judged answer: the answer and its verdict; everything else derives from it
logs/vllm_N.log                what each vLLM server of the last session said
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phase1.contract.extraction import UNRECORDED, contract_form, read_answer
from phase1.contract.problems import Problem, data_hashes, load_problems
from phase1.contract.prompts import extract_code
from phase1.contract.records import NO_ANSWER, Completion, Record, RecordLog, read_completions, read_records
from phase1.files import BadInput, now, read_json, write_json
from phase1.generate.progress import Display
from phase1.generate.requests import Backend, GenerationStopped, Sampling, generate
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge

Key = tuple[str, str, int]  # (dataset, problem_id, sample)


# ---------------------------------------------------------------------------------------------------------- run.json
def open_run(output_dir: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The run.json of the evaluation in `output_dir`, a new one where there is none; nothing is written.

    `identity` is what makes two results comparable: model, prompts, sampling, judge, data sets. A directory that was
    begun under another identity is refused by the name of the first field that differs; further data sets may join.
    """
    path = output_dir / "run.json"
    if path.exists():
        run = read_json(path)
        run["judge"] = UNRECORDED | (run.get("judge") or {})
        differs = _first_difference(run, identity)
        if differs:
            field, was, wanted = differs
            raise BadInput(
                f"{path}: this evaluation was begun with {field} = {was!r}, now it is {wanted!r}; give another "
                "--output_dir or the first arguments"
            )
        return run | {"datasets": {**run["datasets"], **identity["datasets"]}}
    if any((output_dir / d).exists() for d in ("results", "completions")):
        raise BadInput(
            f"{output_dir}: holds results but no run.json, so nobody knows how they were made; give another "
            "--output_dir"
        )
    return {"status": "running", **identity, "sessions": []}


def begin_session(output_dir: Path, run: dict[str, Any], stamp: dict[str, Any]) -> None:
    """Write run.json as `running`, with one session more; `stamp` stands in it and, as the latest, at the top."""
    run |= {"status": "running", "stamp": stamp, "finished": None}
    run["sessions"].append({"started": now(), "stamp": stamp})
    write_json(output_dir / "run.json", run)


def _first_difference(run: dict, identity: dict, prefix: str = "") -> tuple[str, Any, Any] | None:
    for key, wanted in identity.items():
        was = run.get(key)
        if prefix == "datasets." and was is None:  # a data set that joins later
            continue
        if key == "path" and prefix == "model.":  # the fingerprint tells models apart; a moved folder is the same model
            continue
        if isinstance(wanted, dict) and isinstance(was, dict):
            if found := _first_difference(was, wanted, f"{prefix}{key}."):
                return found
        elif was != wanted:
            return prefix + key, was, wanted
    return None


def close_run(output_dir: Path, run: dict[str, Any], status: str) -> None:
    """Write run.json with its final `status`: complete, incomplete (some problems want a rerun) or interrupted."""
    run |= {"status": status, "finished": now()}
    run["sessions"][-1]["finished"] = run["finished"]
    write_json(output_dir / "run.json", run)


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


def unfinished(records: dict[str, list[Record]], run: dict[str, Any]) -> list[str]:
    """What keeps an evaluation from being complete: a reason for each answer without a final record."""
    reasons = [f"{r.problem_id}: {r.detail}" for rs in records.values() for r in rs if not is_final(r)]
    samples = run["sampling"].get("n_samples", 1)
    missing = {d: h["problems"] * samples - len(records[d]) for d, h in run["datasets"].items()}
    return reasons + [
        f"{d}: {n} {'problems' if samples == 1 else 'answers'} were not begun" for d, n in missing.items() if n > 0
    ]


def finished(output_dir: Path, datasets: list[str]) -> set[Key]:
    """The answers that need neither generation nor judging any more."""
    return {
        (d, r.problem_id, r.sample)
        for d, records in read_results(output_dir, datasets).items()
        for r in records
        if is_final(r)
    }


def _stored_completions(output_dir: Path, datasets: list[str]) -> dict[Key, Completion]:
    found = {}
    for d in datasets:
        for c in read_completions(output_dir / "completions" / f"{d}.jsonl"):
            if c.finish_reason != "error":
                found[d, c.problem_id, c.sample] = c
    return found


def set_aside_results(output_dir: Path, run: dict[str, Any], identity: dict[str, Any], stamp: dict[str, Any]) -> None:
    """Make ready to judge every stored completion again: the old verdicts are kept under another name, a session
    begins.

    Each step leaves a directory that a rerun finishes under one judge: first run.json says `running`, then the verdicts
    go, then run.json names the new judge and tests.
    """
    begin_session(output_dir, run, stamp)
    for number in range(1000):
        aside = output_dir / f"results_before_rejudge_{number}"
        if not aside.exists():
            break
    if (output_dir / "results").exists():
        (output_dir / "results").rename(aside)
    run |= identity
    run.pop("sandbox", None)  # of the old verdicts
    write_json(output_dir / "run.json", run)


def stored_problems(
    output_dir: Path, run: dict[str, Any], manifest_dir: Path, datasets: list[str]
) -> dict[str, list[Problem]]:
    """The problems that a run generated answers for, with the tests that the raw files hold now.

    BadInput when a statement is no longer the one that was asked: other tests may judge an old answer, not another
    problem's.
    """
    problems = {d: load_problems(manifest_dir, d, run["datasets"][d]["problems"]) for d in datasets}
    stored = _stored_completions(output_dir, datasets)
    for p in (p for ps in problems.values() for p in ps):
        c = stored.get((p.dataset, p.problem_id, 0))
        if c is not None and c.prompt_sha256 != p.user_sha256:
            raise BadInput(
                f"{output_dir}/completions/{p.dataset}.jsonl: {p.problem_id} was asked in other words than the "
                "raw file has now; generate it again in another --output_dir"
            )
    return problems


def judge_identity(judge: JudgeConfig) -> dict[str, Any]:
    """What run.json keeps of the judge's settings."""
    return {k: getattr(judge, k) for k in ("judge", "compare", "run_timeout", "memory_limit_mb", "extraction")}


def data_identity(manifest_dir: Path, problems: dict[str, list[Problem]]) -> dict[str, Any]:
    return {d: data_hashes(manifest_dir, d, ps) for d, ps in problems.items()}


# --------------------------------------------------------------------------------------------------------- the loop
async def evaluate(
    output_dir: Path,
    problems: dict[str, list[Problem]],
    model_path: Path,
    sampling: Sampling,
    backend: Backend | None,
    judge_config: JudgeConfig,
    session: int,
) -> dict[str, Any]:
    """Generate and judge every answer that has no final record yet; returns {sandbox, generation} for run.json.

    A completion goes to disk, then at once to the judge, while further ones are generated. Whatever kills this
    process costs the answers in flight and the verdicts in flight, nothing that stands in a file. Without a `backend`
    only stored completions are judged. When every server is gone, what was generated is still judged.
    """
    if this := asyncio.current_task():
        stop_on_sigterm(this)
    done = finished(output_dir, list(problems))
    todo = {
        (d, p.problem_id, k): p
        for d, ps in problems.items()
        for k in range(sampling.n_samples)
        for p in ps
        if (d, p.problem_id, k) not in done
    }
    stored = {k: c for k, c in _stored_completions(output_dir, list(problems)).items() if k in todo}
    total = sum(map(len, problems.values())) * sampling.n_samples
    results = {d: RecordLog(output_dir / "results" / f"{d}.jsonl") for d in problems}
    completions = {d: RecordLog(output_dir / "completions" / f"{d}.jsonl") for d in problems}
    generation: dict[str, Any] = {}

    try:
        with Display(total, generated=len(done) + len(stored), judged=len(done)) as display:
            async with open_judge(judge_config) as judge, ticking(display), asyncio.TaskGroup() as tasks:

                async def finish(problem: Problem, completion: Completion) -> None:
                    record = await judge_completion(judge, problem, completion)
                    results[problem.dataset].append(record)
                    display.judged(record)

                def to_judge(key: Key, completion: Completion) -> None:
                    display.start("judged")
                    tasks.create_task(finish(todo[key], completion))

                for key, completion in stored.items():  # judged in this session, so its wall clock starts in this one
                    to_judge(key, dataclasses.replace(completion, session=session, started=time.time()))
                to_generate = [(p, k[2]) for k, p in todo.items() if k not in stored]
                if to_generate and backend:
                    try:
                        stream = generate(to_generate, model_path, sampling, backend, session, display, generation)
                        async with contextlib.aclosing(stream):
                            async for c in stream:
                                completions[c.dataset].append(c)
                                display.generated(c)
                                to_judge((c.dataset, c.problem_id, c.sample), c)
                    except GenerationStopped as stopped:
                        display.say(f"error: {stopped}; judging what is there")
    except BaseExceptionGroup as group:  # the task group's wrapping would hide a one-line error behind a traceback
        raise group.exceptions[0] from None
    for log in (*results.values(), *completions.values()):
        log.close()
    return {"sandbox": judge.info, **({"generation": generation} if generation else {})}


@contextlib.asynccontextmanager
async def ticking(display: Display, every: float = 1.0) -> AsyncIterator[None]:
    """Keep the display moving, also while nothing finishes."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(every)
            display.tick()

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()


async def judge_completion(judge, problem: Problem, completion: Completion) -> Record:
    """The record of a problem: its completion and the judge's verdict on the code in it."""
    measured = judge.config.extraction
    reading = read_answer(completion.completion)
    programs = {"contract": extract_code(completion.completion), "reader": reading.code}
    code = programs[measured]
    record = Record(**asdict(completion), code=code, form=contract_form(completion.completion), rule=reading.rule)
    if completion.finish_reason in NO_ANSWER:
        record = dataclasses.replace(record, error_type="api_error", detail=completion.error or "")
    else:
        verdict = await judge.judge(problem.program(code), problem.test_cases)
        record = dataclasses.replace(record, **asdict(verdict))
        beside = "reader" if measured == "contract" else "contract"
        if programs[beside] != code:
            other = asdict(await judge.judge(problem.program(programs[beside]), problem.test_cases))
            kept = {k: other[k] for k in ("error_type", "accepted", "pass_ratio", "detail")}
            record.other = {"extraction": beside, "code": programs[beside], **kept}
    record.finished = time.time()
    return record


def stop_on_sigterm(task: asyncio.Task) -> None:
    """SIGTERM unwinds the loop like Ctrl-C, so that servers and sandboxes are closed on the way out."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
