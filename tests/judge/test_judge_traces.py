"""What one test does to files and folders that it shares is not there in the next, on every rung of the ladder."""

import pytest

from phase1.judge.config import JudgeConfig
from phase1.judge.sandbox import LocalSandbox
from tests.judge.hostile_programs import PROGRAMS
from tests.judge.running_judge import RunningJudge, stdin

# Without the filter of system calls, or without /proc, other ways lead to the same.
RUNGS = {
    "all": {},
    "without seccomp": {"seccomp": False},
    "without /proc": {"proc": False},
    "without both": {"seccomp": False, "proc": False},
}
LEAVING = {
    name: PROGRAMS[f"leaves_{name}"][0]
    for name in (
        "flags_on_its_files",
        "an_owner_on_its_files",
        "modes_on_its_files",
        "times_on_its_files",
        "modes_of_folders",
        "sticky_bits_of_folders",
        "times_of_folders",
        "fifos_and_sockets",
    )
}
LEAVING["append_on_stdin_while_it_is_read"] = """
import fcntl, os
word = input()
fcntl.fcntl(0, fcntl.F_SETFL, os.O_APPEND)
print('contained' if word == 'word' else word)
"""
LEAVING["a_lock_on_stdin"] = """
import fcntl
try:
    fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print('locked')
except OSError:
    pass
print('contained')
"""


@pytest.fixture(scope="module", params=RUNGS)
def rung(request):
    plans = LocalSandbox._plans
    changes = RUNGS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalSandbox, "_plans", lambda self, bwrap: [plans(self, bwrap)[0]._replace(**changes)])
        running = RunningJudge(JudgeConfig(workers=1, run_timeout=10.0))
    yield running
    running.close()


@pytest.mark.parametrize("name", LEAVING)
def test_the_next_test_finds_everything_as_the_first(rung, name):
    verdict = rung(LEAVING[name], stdin(*[("word\n", "contained\n")] * 3))
    assert verdict.test_verdicts == ["success"] * 3, verdict


@pytest.mark.parametrize(
    "program",
    [
        "print(input())",
        "open('/tmp/x', 'w').write('1')\nprint(input())",
        "import os, tempfile\nwith tempfile.TemporaryFile() as f:\n    os.listdir('/tmp')\nprint(input())",
        "import sys\nprint(__file__ and input())",
    ],
)
def test_ordinary_tests_share_one_sandbox(monkeypatch, program):
    running = RunningJudge(JudgeConfig(workers=1, run_timeout=10.0))
    taken, take = [], LocalSandbox._take

    async def noted(self, task):
        taken.append(task)
        return await take(self, task)

    monkeypatch.setattr(LocalSandbox, "_take", noted)
    try:
        assert running(program, stdin(*[("a\n", "a\n")] * 20)).accepted
    finally:
        running.close()
    assert len(taken) == 1
