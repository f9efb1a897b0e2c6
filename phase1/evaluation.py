"""One evaluation directory: its run.json, what is still to do in it, and the loop that generates and judges.

    run.json                       how it was made; readers trust the directory only when its status is `complete`
    completions/{dataset}.jsonl    a line an answer, on disk before it is judged
    results/{dataset}.jsonl        a line a finished problem: the answer and its verdict; everything else derives from it
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from phase1.files import BadInput, now, read_json, write_json
from phase1.generate import Backend, Sampling, generate
from phase1.judge import JudgeConfig, open_judge
from phase1.problems import Problem
from phase1.prompts import extract_code
from phase1.results import Completion, Record, RecordLog, read_records

Key = tuple[str, str]  # (dataset, problem_id)


# ---------------------------------------------------------------------------------------------------------- run.json
def open_run(output_dir: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The run.json of the evaluation in `output_dir`, a new one where there is none; nothing is written.

    `identity` is what makes two results comparable: model, prompts, sampling, judge, data sets. A directory that was
    begun under another identity is refused by the name of the first field that differs; further data sets may join.
    """
    path = output_dir / "run.json"
    if path.exists():
        run = read_json(path)
        differs = _first_difference(run, identity)
        if differs:
            field, was, wanted = differs
            raise BadInput(f"{path}: this evaluation was begun with {field} = {was!r}, now it is {wanted!r}; give another --output_dir or the first arguments")
        return run | {"datasets": {**run["datasets"], **identity["datasets"]}}
    if any((output_dir / d).exists() for d in ("results", "completions")):
        raise BadInput(f"{output_dir}: holds results but no run.json, so nobody knows how they were made; give another --output_dir")
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
    return record.error_type != "sandbox_error" and record.finish_reason != "error"


def read_results(output_dir: Path, datasets: list[str]) -> dict[str, list[Record]]:
    """The last record of each problem, by data set, in file order."""
    return {d: list({r.problem_id: r for r in read_records(output_dir / "results" / f"{d}.jsonl")}.values()) for d in datasets}


def unfinished(records: dict[str, list[Record]], run: dict[str, Any]) -> list[str]:
    """What keeps an evaluation from being complete: a reason for each problem without a final record."""
    reasons = [f"{r.problem_id}: {r.detail}" for rs in records.values() for r in rs if not is_final(r)]
    missing = {d: h["problems"] - len(records[d]) for d, h in run["datasets"].items()}
    return reasons + [f"{d}: {n} problems were not begun" for d, n in missing.items() if n > 0]


def finished(output_dir: Path, problems: dict[str, list[Problem]]) -> set[Key]:
    """The problems that need neither generation nor judging any more."""
    return {(d, r.problem_id) for d, records in read_results(output_dir, list(problems)).items() for r in records if is_final(r)}


def _stored_completions(output_dir: Path, datasets: list[str]) -> dict[Key, Completion]:
    found = {}
    for d in datasets:
        for c in read_records(output_dir / "completions" / f"{d}.jsonl", Completion):
            if c.finish_reason != "error":
                found[d, c.problem_id] = c
    return found


# --------------------------------------------------------------------------------------------------------- the loop
async def evaluate(output_dir: Path, problems: dict[str, list[Problem]], model_path: Path, sampling: Sampling,
                   backend: Backend, judge_config: JudgeConfig, session: int) -> dict:  # fmt: skip
    """Generate and judge every problem that has no final record yet; returns the judge's `info` for run.json.

    A completion goes to disk, then at once to the judge, while further ones are generated. Whatever kills this
    process costs the answers in flight and the verdicts in flight, nothing that stands in a file.
    """
    stop_on_sigterm(asyncio.current_task())
    done = finished(output_dir, problems)
    todo = {(d, p.problem_id): p for d, ps in problems.items() for p in ps if (d, p.problem_id) not in done}
    stored = {k: c for k, c in _stored_completions(output_dir, list(problems)).items() if k in todo}
    total = sum(map(len, problems.values()))
    results = {d: RecordLog(output_dir / "results" / f"{d}.jsonl") for d in problems}
    completions = {d: RecordLog(output_dir / "completions" / f"{d}.jsonl") for d in problems}

    try:
        with Display(total, generated=len(done) + len(stored), judged=len(done)) as display:
            async with open_judge(judge_config) as judge, asyncio.TaskGroup() as tasks:

                async def finish(problem: Problem, completion: Completion) -> None:
                    record = await judge_completion(judge, problem, completion)
                    results[problem.dataset].append(record)
                    display.judged(record)

                for key, completion in stored.items():  # judged in this session, so its wall clock starts in this one
                    tasks.create_task(finish(todo[key], dataclasses.replace(completion, session=session, started=time.time())))
                to_generate = [p for k, p in todo.items() if k not in stored]
                if to_generate:
                    async for completion in generate(to_generate, model_path, sampling, backend, session):
                        completions[completion.dataset].append(completion)
                        display.generated(completion)
                        tasks.create_task(finish(todo[completion.dataset, completion.problem_id], completion))
    except BaseExceptionGroup as group:  # the task group's wrapping would hide a one-line error behind a traceback
        raise group.exceptions[0] from None
    for log in (*results.values(), *completions.values()):
        log.close()
    return judge.info


async def judge_completion(judge, problem: Problem, completion: Completion) -> Record:
    """The record of a problem: its completion and the judge's verdict on the code in it."""
    code = extract_code(completion.completion)
    record = Record(**asdict(completion), code=code)
    if completion.finish_reason in ("error", "too_long"):
        record = dataclasses.replace(record, error_type="api_error", detail=completion.error or "")
    else:
        verdict = await judge.judge(problem.program(code), problem.test_cases)
        record = dataclasses.replace(record, **asdict(verdict))
    record.finished = time.time()
    return record


def stop_on_sigterm(task: asyncio.Task) -> None:
    """SIGTERM unwinds the loop like Ctrl-C, so that servers and sandboxes are closed on the way out."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


class Display:
    """Progress of both stages: bars where there is a terminal, a plain line every `every` seconds elsewhere."""

    def __init__(self, total: int, generated: int, judged: int, every: float = 15.0):
        self.total, self.every, self.counts = total, every, {}
        self.n = {"generated": generated, "judged": judged}
        self.tokens, self.started, self.printed = 0, time.monotonic(), time.monotonic()
        self.bars = Progress(TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                             TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=Console(file=sys.stdout))  # fmt: skip
        self.tasks = {k: self.bars.add_task(k, total=total, completed=n, note="") for k, n in self.n.items()}

    def __enter__(self) -> Display:
        if self.bars.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(self, *_) -> None:
        self.bars.stop() if self.bars.console.is_terminal else self._line()

    def generated(self, completion: Completion) -> None:
        self.tokens += completion.gen_tokens
        self._advance("generated", f"{self.tokens / (time.monotonic() - self.started):,.0f} tokens/s")

    def judged(self, record: Record) -> None:
        self.counts[record.error_type] = self.counts.get(record.error_type, 0) + 1
        self._advance("judged", "  ".join(f"{k} {v}" for k, v in sorted(self.counts.items())))

    def _advance(self, stage: str, note: str) -> None:
        self.n[stage] += 1
        self.bars.update(self.tasks[stage], advance=1, note=note)
        if not self.bars.console.is_terminal and time.monotonic() - self.printed > self.every:
            self._line()

    def _line(self) -> None:
        self.printed = time.monotonic()
        verdicts = "  ".join(f"{k} {v}" for k, v in sorted(self.counts.items()))
        print(f"generated {self.n['generated']}/{self.total}  judged {self.n['judged']}/{self.total}  {verdicts}", flush=True)
