"""No wrong program is accepted, whatever it tries; the judge takes none of it for a fault of its own."""

import pytest

from phase1.judge.config import JudgeConfig
from tests.judge.assert_cheats import CHEATS, RIGHT, SECRET, SPECIAL
from tests.judge.running_judge import RunningJudge

FAULTS = ("wrong_answer", "runtime_error", "timeout")


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=2.0, memory_limit_mb=256))
    yield running
    running.close()


@pytest.mark.parametrize("kind", SECRET)
@pytest.mark.parametrize("name", CHEATS)
def test_a_wrong_program_is_not_accepted_and_harms_no_other(judge, name, kind):
    verdict = judge(CHEATS[name], SECRET[kind])
    assert not verdict.accepted and verdict.error_type in FAULTS and verdict.tests_passed == 0, verdict
    assert judge(RIGHT + f"# after {name}", SECRET[kind]).accepted


@pytest.mark.parametrize("name", SPECIAL)
def test_a_wrong_program_does_not_decide_what_its_tests_find(judge, name):
    program, cases = SPECIAL[name]
    verdict = judge(program, cases)
    assert not verdict.accepted and verdict.error_type in FAULTS and verdict.tests_passed == 0, verdict
