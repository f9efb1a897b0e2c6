"""Generate and judge every answer of an evaluation that has no final record yet."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from phase1.contract.extraction import take
from phase1.contract.problems import Problem
from phase1.contract.records import NO_ANSWER, Completion, Record, RecordLog
from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.evaluate.display import Display
from phase1.evaluate.folder import AnswerKey, close_run, finished_answers, note_vllm, stored_completions
from phase1.evaluate.gpu_idle import watch_gpus
from phase1.evaluate.slow_problems import SlowProblem, slow_problems
from phase1.evaluate.timing import timing_lines
from phase1.generate.generate import Answering, load_checked_tokenizer, open_generation
from phase1.generate.make_requests import Wanted
from phase1.generate.protocol import BackendRecord, GenerationStopped
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import Judge, open_judge

KEPT_OF_OTHER = ("error_type", "accepted", "pass_ratio", "detail")  # of the verdict on the other extraction's program


@dataclass(frozen=True)
class Worked:
    """What run.json keeps of a session: what the judge says of itself, the backend, if anything was generated, and
    where the time went (phase1.evaluate.timing)."""

    sandbox: dict[str, JsonValue]
    generation: BackendRecord | None
    seconds: dict[str, float]


def work_off(
    output_dir: Path,
    run: EvaluationRun,
    problems: Mapping[str, list[Problem]],
    judge: JudgeConfig,
    answering: Answering | None = None,
) -> EvaluationRun:
    """Generate and judge what is not finished; run.json says `interrupted` when it could not.

    Args:
        run: of the session that has begun.
        answering: None to judge stored completions only.

    Returns:
        The run with what judge and backend say of themselves; it is not written yet.

    Raises:
        BadInput: the judge or the backend cannot be started, or vLLM is of another version than before.
        SystemExit: SIGTERM came.
    """

    def note_backend(record: BackendRecord) -> None:
        nonlocal run
        if version := record.versions.get("vllm"):
            run = note_vllm(output_dir, run, version)

    work = evaluate(
        output_dir,
        problems,
        n_samples=run.n_samples,
        session=len(run.sessions) - 1,
        judge_config=judge,
        answering=answering,
        on_begun=note_backend,
    )
    try:
        worked = asyncio.run(work)
    except BaseException as e:
        close_run(output_dir, run, "interrupted")
        if isinstance(e, asyncio.CancelledError):
            raise SystemExit("stopped by SIGTERM; run the same command again to go on") from None
        raise
    lost = _lost_sandboxes(run.sandbox) + _lost_sandboxes(worked.sandbox)
    if lost:
        print(
            f"warning: {lost} sandboxes ended without a word and their programs were run again: verdicts stand, but "
            "the machine or a program interfered (docs/judge.md)",
            file=sys.stderr,
        )
    for line in timing_lines(worked.seconds):
        print(line)
    changes: dict[str, object] = {
        "sandbox": {**worked.sandbox, "lost_sandboxes": lost},
        "seconds": {name: round(s, 3) for name, s in worked.seconds.items()},
    }
    if worked.generation:
        versions = {**run.stamp.versions, **worked.generation.versions}
        changes |= {
            "generation": worked.generation.facts,
            "stamp": run.stamp.model_copy(update={"versions": versions}),
        }
    worked_off: EvaluationRun = run.model_copy(update=changes)
    return worked_off


def _lost_sandboxes(sandbox: Mapping[str, JsonValue] | None) -> int:
    """How many sandboxes ended without a word, as run.json's `sandbox` says."""
    lost = (sandbox or {}).get("lost_sandboxes", 0)
    return lost if isinstance(lost, int) else 0


async def evaluate(
    output_dir: Path,
    problems: Mapping[str, list[Problem]],
    *,
    n_samples: int,
    session: int,
    judge_config: JudgeConfig,
    answering: Answering | None,
    on_begun: Callable[[BackendRecord], None],
) -> Worked:
    """Generate and judge every answer that has no final record yet.

    A completion goes to disk, then at once to the judge, while further ones are generated. Whatever kills this process
    costs the answers and verdicts in flight, nothing that stands in a file. When every server is gone, what was
    generated is still judged.

    Args:
        n_samples: answers to each problem.
        session: number of the evaluation's start, from 0.
        answering: None to judge stored completions only.
        on_begun: called once the backend is ready, before its first answer is taken.
    """
    _stop_on_sigterm()
    began = time.monotonic()
    done = finished_answers(output_dir, problems)
    todo: dict[AnswerKey, Problem] = {}
    for dataset, asked in problems.items():
        for sample in range(n_samples):
            for problem in asked:
                key = AnswerKey(dataset, problem.problem_id, sample)
                if key not in done:
                    todo[key] = problem
    stored = {key: c for key, c in stored_completions(output_dir, problems).items() if key in todo}
    wanted = [Wanted(problem, key.sample) for key, problem in todo.items() if key not in stored]
    total = n_samples * sum(len(asked) for asked in problems.values())
    generation, slow = None, slow_problems(output_dir)
    with contextlib.ExitStack() as files, Display(total, len(done) + len(stored), len(done)) as display:
        results = {d: files.enter_context(_open_log(output_dir / "results" / f"{d}.jsonl")) for d in problems}
        completions = {d: files.enter_context(_open_log(output_dir / "completions" / f"{d}.jsonl")) for d in problems}
        loading = None
        if wanted and answering:  # seconds of import, while the judge tries its sandbox
            loading = asyncio.create_task(asyncio.to_thread(load_checked_tokenizer, answering))
            loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # the judge may fail first
            files.callback(loading.cancel)
        try:
            judging = open_judge(_leave_cores(judge_config, answering))
            async with judging as judge, display.ticking(), watch_gpus() as idle, asyncio.TaskGroup() as tasks:
                display.programs = judge.backend.running

                async def judge_and_record(problem: Problem, completion: Completion) -> None:
                    expected = SlowProblem(problem.dataset, problem.problem_id) in slow
                    record = await judge_completion(judge, problem, completion, expected)
                    results[problem.dataset].append(record)
                    display.judged(record)

                def start_judging(key: AnswerKey, completion: Completion) -> None:
                    display.start("judged")
                    tasks.create_task(judge_and_record(todo[key], completion))

                for key, c in stored.items():  # judged in this session, so its wall clock starts in this one
                    start_judging(key, dataclasses.replace(c, session=session, started=time.time()))
                if loading and answering:
                    try:
                        tokenizer = await loading
                        async with open_generation(wanted, answering, tokenizer, session, display) as begun:
                            generation = begun.record
                            on_begun(generation)
                            try:
                                async with contextlib.aclosing(begun.completions) as stream:
                                    async for c in stream:
                                        completions[c.dataset].append(c)
                                        display.generated(c)
                                        start_judging(AnswerKey(c.dataset, c.problem_id, c.sample), c)
                            finally:
                                facts = {**generation.facts, **begun.facts_at_end()}
                                generation = dataclasses.replace(generation, facts=facts)
                    except GenerationStopped as stopped:
                        display.say(f"error: {stopped}; judging what is there")
        except BaseExceptionGroup as group:  # the task group's wrapping would hide a one-line error behind a traceback
            raise group.exceptions[0] from None
    took = {**display.seconds(began), **(generation.seconds if generation else {})}
    if generation and idle.seconds is not None:
        took["gpu_idle"] = idle.seconds
    return Worked(judge.info, generation, took)


def _open_log(path: Path) -> contextlib.closing[RecordLog]:
    return contextlib.closing(RecordLog(path))


def _leave_cores(judge: JudgeConfig, answering: Answering | None) -> JudgeConfig:
    """The judge's settings, with the backend's cores left to it, but never more than half of all.

    What the user says with --workers or --reserve_cores stays.
    """
    busy = answering.generator.busy_cores if answering else 0
    if judge.workers or judge.reserve_cores or not busy:
        return judge
    return dataclasses.replace(judge, workers=judge.parallel - min(busy, judge.parallel // 2))


async def judge_completion(judge: Judge, problem: Problem, completion: Completion, slow: bool = False) -> Record:
    """The record of an answer: the completion and the judge's verdict on the program in it.

    `slow`: as `Judge.judge` takes it.
    Where the contract's order and a careful reader take different programs, both are judged.
    """
    taken = take(completion.completion, judge.config.extraction)
    record = Record(**asdict(completion), code=taken.code, form=taken.form, rule=taken.rule)
    if completion.finish_reason in NO_ANSWER:
        record = dataclasses.replace(record, error_type="api_error", detail=completion.error or "")
    else:
        verdict = await judge.judge(problem.program(taken.code), problem.judged, slow)
        record = dataclasses.replace(record, **asdict(verdict))
        if taken.beside:
            other = asdict(await judge.judge(problem.program(taken.beside_code), problem.judged, slow))
            kept = {key: other[key] for key in KEPT_OF_OTHER}
            record.other = {"extraction": taken.beside, "code": taken.beside_code, **kept}
    record.finished = time.time()
    return record


def _stop_on_sigterm() -> None:
    """SIGTERM unwinds the loop like Ctrl-C, so that servers and sandboxes are closed on the way out."""
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
