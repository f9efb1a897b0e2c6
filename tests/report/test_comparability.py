"""Two phases that were measured differently are not compared in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phase1.report.comparability import comparability
from phase1.report.inputs import read_side
from tests.report.running import compare


def damage_run(directory: Path, change: dict) -> None:
    run = json.loads((directory / "run.json").read_text())
    for path, value in change.items():
        *parents, last = path.split(".")
        target = run
        for p in parents:
            target = target[p]
        target[last] = value
    (directory / "run.json").write_text(json.dumps(run))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, named",
    [
        ({"prompts_sha256": "d" * 64}, "prompts_sha256"),
        ({"sampling.repetition_penalty": 1.1}, "sampling.repetition_penalty differs: 1.0 in Phase 0, 1.1 in Phase 1"),
        ({"sampling.backend": "transformers"}, "sampling.backend"),
        ({"judge.compare": "verl"}, "judge.compare"),
        ({"judge.run_timeout": 10.0}, "judge.run_timeout"),
        ({"datasets.humaneval.problems_sha256": "d" * 64}, "humaneval: problems_sha256"),
        ({"stamp.versions": {"vllm": "0.24.0"}}, "vLLM version differs"),
        ({"status": "running"}, "is running, not complete"),
    ],
)
def test_a_difference_in_how_it_was_measured_is_a_red_box_and_exit_1_unless_allowed(sides, change, named):
    base, better = sides
    damage_run(better, change)
    done = compare(base.parent, base / "metrics.json", better / "metrics.json")
    assert done.returncode == 1
    assert done.stdout.startswith("VERDICT: NOT COMPARABLE - ") and named in done.stdout
    page = (base.parent / "out" / "report.html").read_text()
    assert "did not measure the same thing" in page and 'class="verdict bad"' in page
    allowed = compare(base.parent, base / "metrics.json", better / "metrics.json", "--allow_mismatch")
    assert allowed.returncode == 0 and "mismatches, allowed]" in allowed.stdout.splitlines()[0]


def test_other_problems_and_stale_metrics_are_mismatches(sides):
    base, better = sides
    path = better / "results" / "humaneval.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[0])
    row |= {"problem_id": "humaneval/other", "prompt_sha256": "e" * 64}
    again = json.loads(lines[1]) | {"prompt_sha256": "f" * 64}
    path.write_text("".join([json.dumps(row) + "\n", json.dumps(again) + "\n", *lines[2:-1]]))
    found = [
        f.text
        for f in comparability(
            *(read_side(n, [d / "metrics.json"]) for n, d in (("Phase 0", base), ("Phase 1", better)))
        )
        if f.kind == "mismatch"
    ]
    text = " ".join(found)
    assert (
        "2 only in Phase 0, 1 only in Phase 1" in text
        and "asked in other words" in text
        and "the records beside it 29" in text
    )


def test_equal_runs_have_nothing_to_say(evaluations):
    sides = [read_side(n, [evaluations["base"]]) for n in ("Phase 0", "Phase 1")]
    assert [f.text for f in comparability(*sides) if f.kind != "note"] == []
