"""Whose fault it is that a sandbox ended in the middle of a task: the program's, or the judge's."""

import asyncio

import pytest

from phase1 import reward
from phase1.judge.box import Box
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
from phase1.judge.outcomes import MAX_ENDED
from phase1.judge.sandbox import LocalSandbox
from tests.judge.running_judge import RunningJudge, asserts, stdin

# Works where system calls are not filtered: PID 1 can no longer fork.
ENDS_ITS_SANDBOX = "import resource\nresource.prlimit(1, resource.RLIMIT_NPROC, (0, 0))\nprint('contained')\n"
BOMB = "# coding: unicode_escape\ndef f():\n" + "".join(
    f"{' ' * n}try: pass\n{' ' * n}f\\u0069nally:\n" for n in range(1, 26)
)


@pytest.fixture(scope="module")
def open_to_attack():
    """A judge whose sandboxes filter no system call."""
    plans = LocalSandbox._plans
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            LocalSandbox, "_plans", lambda self, bwrap: [p._replace(seccomp=False) for p in plans(self, bwrap)]
        )
        running = RunningJudge(JudgeConfig(workers=1, run_timeout=10.0, memory_limit_mb=256))
    yield running
    running.close()


@pytest.mark.parametrize("tests", [2, 3, 9])
def test_a_program_that_ends_its_sandboxes_has_failed_and_is_not_run_for_ever(open_to_attack, tests):
    for _ in range(20):
        lost = open_to_attack.judge.info["lost_sandboxes"]
        verdict = open_to_attack(ENDS_ITS_SANDBOX, stdin(*[("", "contained")] * tests))
        assert verdict.error_type in ("runtime_error", "success")
        if "success" not in verdict.test_verdicts[:-1]:
            break  # else a test took more than 20 ms, as on a busy machine, and was told before its sandbox ended
    else:
        pytest.skip("this machine is too busy: each time a test took more than 20 ms")
    assert verdict.error_type == "runtime_error"
    assert "the program ended the sandbox twice" in verdict.detail
    assert verdict.test_verdicts.count("runtime_error") == min(tests, MAX_ENDED + 1) - 1
    assert open_to_attack.judge.info["lost_sandboxes"] == lost  # none of them is the judge's
    assert open_to_attack("print(input())", stdin(("a", "a"))).accepted


def test_the_reward_of_such_a_program_is_a_number(open_to_attack, monkeypatch):
    monkeypatch.setattr(reward, "judged", lambda program, cases, config: open_to_attack(program, cases))
    score = reward.compute_score("set", f"<code>\n{ENDS_ITS_SANDBOX}</code>", {"test_cases": stdin(*[("", "no")] * 2)})
    assert (score["score"], score["runtime_error"], score["sandbox_error"]) == (0.0, 1.0, 0.0)


@pytest.mark.slow
def test_a_compilation_without_end_is_the_programs_failure():
    """None of the words for which a compilation is tried apart is in it."""
    running = RunningJudge(JudgeConfig(workers=1, run_timeout=2.0, memory_limit_mb=256))
    try:
        verdict = running(BOMB + f"{' ' * 26}x = 1\n", stdin(*[("", "contained")] * 5))
        assert verdict.error_type in ("timeout", "runtime_error"), verdict
        assert running("print(input())", stdin(("a", "a"))).accepted
    finally:
        running.close()


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "expected"), [(10.0, "success"), (0.1, "timeout")])
def test_a_slow_compilation_is_tried_again_under_the_limits_of_a_test(monkeypatch, limit, expected):
    monkeypatch.setattr("phase1.judge.sandbox.SILENCE_COMPILING", 0.05)
    running = RunningJudge(JudgeConfig(workers=1, run_timeout=10.0))
    try:
        program = "print(7)\nif 0:\n    x = [" + "f(1, 2), " * 150_000 + "]\n"
        assert running(program, stdin(("", "7"), ("", "7"), time_limit=limit)).error_type == expected
    finally:
        running.close()


async def _verdict_where(break_it, program, cases):
    async with open_judge(JudgeConfig(workers=1)) as judge:
        await break_it(judge.backend)
        return await judge.judge(program, cases), judge.info["lost_sandboxes"]


def test_without_the_launcher_the_failure_is_the_judges():
    async def kill_launcher(backend):
        backend.process.kill()
        await asyncio.to_thread(backend.process.wait)

    verdict, _ = asyncio.run(_verdict_where(kill_launcher, "print(1)", stdin(("", "1"))))
    assert verdict.error_type == "sandbox_error"


def test_where_no_program_runs_any_more_the_failure_is_the_judges(monkeypatch):
    frame = Box.frame

    async def kill_every_sandbox(backend):
        async def killed(box, patience):
            await backend._ask({"op": "kill", "id": box.number})
            await asyncio.shield(box.exited)
            box.ahead = b""
            return await frame(box, patience)

        monkeypatch.setattr(Box, "frame", killed)

    verdict, lost = asyncio.run(_verdict_where(kill_every_sandbox, "import time\ntime.sleep(1)", stdin(("", "1"))))
    assert (verdict.error_type, lost) == ("sandbox_error", 3)


def test_tests_that_do_not_compile_are_the_judges_failure(open_to_attack):
    assert open_to_attack("def f(): pass", asserts("assert f( ==")).error_type == "sandbox_error"
