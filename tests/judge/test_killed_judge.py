"""What a judge left that was killed with its launcher is removed when the next one starts; a living one's stays."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase1.judge import cgroup
from phase1.judge.config import JudgeConfig
from tests.conftest import ROOT
from tests.judge.hostile_driver import descendants
from tests.judge.running_judge import RunningJudge, stdin

PROBE = [sys.executable, "-m", "phase1.judge", "--probe"]


def groups(launcher: int) -> list[Path]:
    """The cgroups of a launcher: memory bounds alone, where no account is kept."""
    return sorted(Path("/sys/fs/cgroup").glob(f"**/{cgroup.KIND}-{launcher}-*"))


@pytest.fixture
def killed(tmp_path) -> int:
    """The launcher of a judge that was killed, launcher and all, while the probes ran with files in `tmp_path`."""
    process = subprocess.Popen(PROBE, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("*/socket")):
        time.sleep(0.01)
    launcher, *sandboxes = descendants(process.pid)
    for pid in (launcher, process.pid, *sandboxes):
        with contextlib.suppress(ProcessLookupError):  # a probe that has just ended
            os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in (launcher, *sandboxes)):
        time.sleep(0.01)
    return launcher


@pytest.mark.slow
def test_what_a_killed_judge_left_goes_and_what_a_living_one_uses_stays(killed, tmp_path):
    [folder] = tmp_path.iterdir()
    bounded = cgroup.find_parent() is not None
    assert (folder / "canary").exists()  # its groups may be gone: each judge that starts beside this test removes them
    living = RunningJudge(JudgeConfig(workers=1))
    try:
        assert not groups(killed)
        used = groups(living.judge.backend.process.pid)
        assert bool(used) == bounded
        subprocess.run(PROBE, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, check=True, capture_output=True)
        assert not list(tmp_path.iterdir())
        assert groups(living.judge.backend.process.pid) == used
        assert living("print(1)", stdin(("", "1"))).accepted
    finally:
        living.close()
