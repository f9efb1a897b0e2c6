"""phase1/judge/inside/processes.py: what C says of a test's end is what Python's wait4 says."""

import os
import signal
import sys
import time

import pytest

from phase1.judge.inside import processes

MEGABYTES = 64


@pytest.fixture(params=["C", "Python"])
def ended_soon(request, monkeypatch):
    if request.param == "Python":
        monkeypatch.setitem(sys.modules, "_ctypes", None)  # an interpreter without it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    yield processes.first_wait()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def forked(act):
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(7)
    return pid


def end_of(pid, ended_soon):
    for _ in range(500):
        seen = ended_soon(pid)
        if seen[0]:
            return seen
    raise AssertionError("it does not end")


def test_a_process_that_runs_is_waited_for_a_moment_only(ended_soon):
    pid = forked(lambda: time.sleep(60))
    started = time.monotonic()
    assert ended_soon(pid)[0] == 0
    assert time.monotonic() - started >= processes.FIRST_LOOK * 0.9
    os.kill(pid, signal.SIGKILL)
    assert end_of(pid, ended_soon)[:2] == (pid, signal.SIGKILL)


def test_status_time_and_memory_are_those_of_the_process(ended_soon):
    def work():
        held = b"x" * (MEGABYTES << 20)
        while time.process_time() < 0.2:
            held[:10].hex()

    pid, status, cpu, peak = end_of(expected := forked(work), ended_soon)
    assert (pid, os.waitstatus_to_exitcode(status)) == (expected, 7)
    assert 0.19 < cpu < 2.0
    assert MEGABYTES << 20 < peak < 4 << 30
