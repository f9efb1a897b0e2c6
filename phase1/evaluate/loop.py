"""The loop of an evaluation: each completion goes to disk, then at once to the judge, while others are generated."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from phase1.contract.extraction import contract_form, read_answer
from phase1.contract.problems import Problem
from phase1.contract.prompts import extract_code
from phase1.contract.records import NO_ANSWER, Completion, Record, RecordLog
from phase1.evaluate.display import Display
from phase1.evaluate.folder import Key, finished, stored_completions
from phase1.generate.generate import Backend, Generation
from phase1.generate.generator import GenerationStopped
from phase1.generate.requests import Answer, Sampling
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge


@dataclass(frozen=True)
class Outcome:
    """What run.json keeps of a session: the judge's sandbox, and what generated (None: nothing was generated)."""

    sandbox: dict[str, JsonValue]
    generation: dict[str, JsonValue] | None

    @property
    def lost_sandboxes(self) -> int:
        """Sandboxes that ended without a word in this session."""
        lost = self.sandbox.get("lost_sandboxes")
        return lost if isinstance(lost, int) else 0

    @property
    def vllm_versions(self) -> list[str]:
        """The versions that the vLLM servers said they have."""
        servers = (self.generation or {}).get("servers")
        found = set()
        for server in servers.values() if isinstance(servers, dict) else ():
            if isinstance(server, dict) and server.get("vllm"):
                found.add(str(server["vllm"]))
        return sorted(found)


async def evaluate(
    output_dir: Path,
    problems: dict[str, list[Problem]],
    *,
    model_path: Path,
    sampling: Sampling,
    backend: Backend | None,
    judge_config: JudgeConfig,
    session: int,
) -> Outcome:
    """Generate and judge every answer that has no final record yet.

    A completion goes to disk, then at once to the judge, while further ones are generated. Whatever kills this
    process costs the answers in flight and the verdicts in flight, nothing that stands in a file. Without a `backend`
    only stored completions are judged. When every server is gone, what was generated is still judged.
    """
    if this := asyncio.current_task():
        stop_on_sigterm(this)
    done = finished(output_dir, list(problems))
    todo = {
        Key(d, p.problem_id, k): p
        for d, ps in problems.items()
        for k in range(sampling.n_samples)
        for p in ps
        if Key(d, p.problem_id, k) not in done
    }
    stored = {k: c for k, c in stored_completions(output_dir, list(problems)).items() if k in todo}
    total = sum(map(len, problems.values())) * sampling.n_samples
    results = {d: RecordLog(output_dir / "results" / f"{d}.jsonl") for d in problems}
    completions = {d: RecordLog(output_dir / "completions" / f"{d}.jsonl") for d in problems}
    generation: Generation | None = None

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
                to_generate = [Answer(problem, key.sample) for key, problem in todo.items() if key not in stored]
                if to_generate and backend:
                    generation = Generation(model_path, sampling, backend, session, display)
                    try:
                        async with contextlib.aclosing(generation.completions(to_generate)) as stream:
                            async for c in stream:
                                completions[c.dataset].append(c)
                                display.generated(c)
                                to_judge(Key(c.dataset, c.problem_id, c.sample), c)
                    except GenerationStopped as stopped:
                        display.say(f"error: {stopped}; judging what is there")
    except BaseExceptionGroup as group:  # the task group's wrapping would hide a one-line error behind a traceback
        raise group.exceptions[0] from None
    for log in (*results.values(), *completions.values()):
        log.close()
    return Outcome(judge.info, generation.info if generation else None)


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
