"""Which problems are expected to be slow: a hint from the last evaluation, empty where nothing can be read."""

import json
from pathlib import Path

import pytest

from phase1.contract.records import RecordLog
from phase1.evaluate.slow_problems import SlowProblem, slow_problems
from tests.evaluate.records import record


def evaluation(folder: Path, finished: str, late: int, status: str = "complete") -> Path:
    """An evaluation of three problems, of which number `late` timed out in its second test."""
    write_results(folder / "results", late)
    (folder / "run.json").write_text(json.dumps({"status": status, "finished": finished}))
    (folder / "summary.json").write_text(json.dumps({"datasets": {}}))
    return folder


def write_results(folder: Path, late: int) -> None:
    folder.mkdir(parents=True)
    log = RecordLog(folder / "codecontests_valid.jsonl")
    for n in range(3):
        words = ["success", "timeout"] if n == late else ["success", "success"]
        passed = words.count("success")
        counts = {"tests_total": 2, "tests_run": 2, "tests_passed": passed, "pass_ratio": passed / 2}
        log.append(record(n, words[1], test_verdicts=words, **counts))
    log.close()


def names(found: set[SlowProblem]) -> list[str]:
    return sorted(s.problem_id for s in found)


def test_the_newest_finished_evaluation_beside_says_which(tmp_path):
    evaluation(tmp_path / "eval_step_500", "2026-01-02T00:00:00", late=0)
    evaluation(tmp_path / "eval_step_1000", "2026-01-01T00:00:00", late=1)
    evaluation(tmp_path / "eval_step_1500", "2026-01-03T00:00:00", late=2, status="running")
    assert names(slow_problems(tmp_path / "eval_step_2000")) == ["p0000"]


def test_an_evaluations_own_verdicts_before_a_rejudge_come_first(tmp_path):
    evaluation(tmp_path / "eval_step_500", "2026-01-02T00:00:00", late=0)
    folder = evaluation(tmp_path / "eval_step_1000", "2026-01-01T00:00:00", late=0)
    write_results(folder / "results_before_rejudge_9", late=1)
    write_results(folder / "results_before_rejudge_10", late=2)
    assert names(slow_problems(folder)) == ["p0002"]


@pytest.mark.parametrize("damage", ["no folder", "run.json", "results"], ids=["none", "run", "results"])
def test_without_a_readable_evaluation_none_is_expected(tmp_path, damage):
    if damage != "no folder":
        folder = evaluation(tmp_path / "eval_step_500", "2026-01-02T00:00:00", late=0)
        path = folder / "run.json" if damage == "run.json" else folder / "results" / "codecontests_valid.jsonl"
        path.write_text("{" if damage == "run.json" else '{"a": 1}\n' + path.read_text())
    assert slow_problems(tmp_path / "eval_step_1000") == set()
