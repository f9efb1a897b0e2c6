"""Whether an evaluation's files belong together: its figures, its run.json, its answers and their verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from phase1.contract.extraction import take
from phase1.contract.records import Record, read_completions
from phase1.contract.state.evaluation_run import EvaluationRun
from phase1.evaluate.recount import first_difference
from phase1.files import read_json, sha256_text
from phase1.judge.behaviour import behaviour
from phase1.judge.config import JudgeConfig
from phase1.report.inputs import DatasetResult

CLOCK = 120.0  # seconds by which run.json's times and those of the records may lie apart


def contradictions(result: DatasetResult) -> Iterator[str]:
    """What one data set's files say that the others do not, a line each; nothing where there are no records."""
    records = list(result.records.values())
    if not records:
        return
    folder = result.source.parent
    for file, figures in ((folder / "summary.json", _summary(result)), (result.source, result.values)):
        if difference := first_difference(figures, records):
            yield f"{file} says {difference}; evaluate again to derive it anew"
            break
    if others := [r.problem_id for r in records if r.dataset != result.dataset]:
        yield f"{folder}/results/{result.dataset}.jsonl holds {_some(others)} of another data set"
    if edited := [r.problem_id for r in records if sha256_text(r.prompt) != r.prompt_sha256]:
        yield f"{folder}/results/{result.dataset}.jsonl: the prompts of {_some(edited)} are not those of their hashes"
    if changed := _other_answers(folder / "completions" / f"{result.dataset}.jsonl", result.records):
        yield f"{folder}/results/{result.dataset}.jsonl: the answers of {_some(changed)} are not those in completions/"
    if result.run:
        yield from _of_the_run(result, result.run, records)


def _summary(result: DatasetResult) -> dict[str, object]:
    """The set's entry in summary.json, of which metrics.json's figures take the place where both have one."""
    path = result.source.parent / "summary.json"
    entry = (read_json(path).get("datasets") or {}).get(result.dataset) if path.exists() else None
    return entry if isinstance(entry, dict) else {}


def _of_the_run(result: DatasetResult, run: EvaluationRun, records: list[Record]) -> Iterator[str]:
    """What the records say that their run.json does not."""
    where = result.source.parent / "run.json"
    if run.datasets and result.dataset not in run.datasets:
        yield f"{where} names no {result.dataset}: it is another evaluation's"
    elif run.sessions and run.finished:
        first, last = (datetime.fromisoformat(text).timestamp() for text in (run.sessions[0].started, run.finished))
        if away := [r.problem_id for r in records if not first - CLOCK <= r.finished <= last + CLOCK]:
            yield f"{where} is of another time than the verdicts of {_some(away)}: it is another evaluation's"
    rule = str(run.judge_settings.get("extraction"))
    known = run.behaviour is not None and run.behaviour.extraction == _extraction_of_now(rule)
    if known and (odd := [r.problem_id for r in records if take(r.completion, rule).code != r.code]):
        yield f"the programs of {_some(odd)} are not those in their answers"


def _extraction_of_now(rule: str) -> str | None:
    try:
        return behaviour(JudgeConfig(extraction=rule)).extraction
    except KeyError:  # a rule that there is no more
        return None


def _other_answers(path: Path, records: dict[str, Record]) -> list[str]:
    """The problems whose stored first answer is another than the one that was judged."""
    stored = {c.problem_id: c for c in read_completions(path) if c.sample == 0 and c.finish_reason != "error"}
    return [i for i, r in records.items() if i in stored and stored[i].completion != r.completion]


def _some(problem_ids: list[str]) -> str:
    more = f" and {len(problem_ids) - 1} more problems" if len(problem_ids) > 1 else ""
    return f"{problem_ids[0]}{more}"
