"""Where a sandbox has a cgroup, its account of CPU time decides: it has also what no process was ever waited for."""

import contextlib
import os
import resource
import signal
import time

import pytest

from phase1.judge import cgroup
from phase1.judge.config import JudgeConfig
from phase1.judge.inside.group import Group, cpu_seconds, process_cpu
from phase1.judge.outcomes import Task
from phase1.judge.sandbox import LocalSandbox
from tests.judge.running_judge import RunningJudge, asserts, stdin

# Each child is gone before anybody looks at it, and its parent has told the kernel that it does not want to know.
UNSEEN = """
import os, signal, time
def unseen(children):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(children):
        r, w = os.pipe()
        if os.fork() == 0:
            begun = time.process_time()
            while time.process_time() - begun < 0.02:
                pass
            os._exit(0)
        os.close(w)
        os.read(r, 1)
        os.close(r)
"""
AS_FUNCTION = UNSEEN + "def f(children):\n    unseen(children)\n    return children\n"
OPEN_FILES = """
import os
def opened():
    found = []
    for number in range(300):
        try:
            os.fstat(number)
            found.append(os.readlink(f"/proc/self/fd/{number}").split(":")[0])
        except OSError:
            pass
    return found + [name for name in os.environ if "PHASE1" in name]
"""


@contextlib.contextmanager
def judge_with(**changes):
    """A judge whose sandboxes are started with these changes of the best plan."""
    plans = LocalSandbox._plans
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalSandbox, "_plans", lambda self, bwrap: [plans(self, bwrap)[0]._replace(**changes)])
        running = RunningJudge(JudgeConfig(workers=1))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def judge():
    with judge_with() as running:
        yield running


@pytest.fixture
def counted(judge):
    if judge.judge.info["cpu_account"] != "cgroup":
        pytest.skip("no cgroup that counts CPU time can be made here")
    return judge


def runs(judge, program, inputs, limit):
    async def collected():
        task = Task(program, kind="stdin", count=len(inputs), limit=limit, memory=256 << 20, inputs=inputs)
        return [run async for run in judge.judge.backend.run(task)]

    return judge.runner.run(collected())


# ------------------------------------------------------------------------------------------------------ what is judged
@pytest.mark.parametrize(
    ("program", "cases"),
    [
        (UNSEEN + "unseen(60)\nprint(1)\n", stdin(("", "1\n"), time_limit=0.3)),
        (AS_FUNCTION, asserts("assert f(60) == 60") | {"time_limit": 0.3}),
        (AS_FUNCTION, asserts("assert f(1) == 1", "assert f(60) == 60", "assert f(2) == 2") | {"time_limit": 0.3}),
    ],
    ids=["stdin", "one assert", "one assert of three"],
)
def test_children_that_nobody_waits_for_use_up_the_limit(counted, program, cases):
    verdict = counted(program, cases)
    assert verdict.error_type == "timeout"
    assert verdict.test_verdicts.count("success") == verdict.tests_total - 1


def test_what_they_took_is_the_tests_own_and_not_the_next_ones(counted):
    program = UNSEEN + "unseen(int(input()))\ntime.sleep(0.06)\nprint(1)\n"
    seen = [run.cpu for run in runs(counted, program, ["20\n", "0\n", "10\n", "1\n"], limit=5.0)]
    for cpu, children in zip(seen, (20, 0, 10, 1), strict=True):
        assert children * 0.02 * 0.9 - 0.01 <= cpu <= children * 0.05 + 0.15, (
            seen
        )  # a fork costs more on a busy machine


def test_an_honest_program_is_charged_what_its_own_clock_says(counted):
    program = "import time\nwhile time.process_time() < 0.4:\n    pass\nprint(time.process_time())\n"
    for run in runs(counted, program, [""] * 3, limit=5.0):
        assert float(run.output) - 0.01 <= run.cpu <= float(run.output) * 1.2 + 0.05


def test_what_the_tests_take_is_not_the_programs(counted):
    burning = (
        "import time\ndef burn():\n    begun = time.process_time()\n    while time.process_time() - begun < 0.6: pass\n"
    )
    cases = asserts("burn(); assert f(1) == 1", setup=burning) | {"time_limit": 0.3}
    assert counted("def f(x): return x", cases).error_type == "success"


def test_the_account_is_in_no_file_of_the_program(judge):
    program = OPEN_FILES + "print([name for name in opened() if not name.startswith('/memfd')])\n"
    assert judge(program, stdin(("", "[]\n"))).error_type == "success"
    program = OPEN_FILES + "def f(): return [name for name in opened() if name != 'pipe' and name[:6] != '/memfd']\n"
    assert judge(program, asserts("assert f() == []")).error_type == "success"


@pytest.mark.slow
def test_without_proc_the_account_decides_as_well():
    with judge_with(proc=False) as running:
        if running.judge.info["cpu_account"] != "cgroup":
            pytest.skip("no cgroup that counts CPU time can be made here")
        cases = stdin(("5\n", "1\n"), ("60\n", "1\n"), ("4\n", "1\n"), time_limit=0.6)
        assert running(UNSEEN + "unseen(int(input()))\nprint(1)\n", cases).test_verdicts == [
            "success",
            "timeout",
            "success",
        ]
        cases = asserts("assert f(5) == 5", "assert f(60) == 60", "assert f(4) == 4") | {"time_limit": 0.6}
        assert running(AS_FUNCTION, cases).test_verdicts == ["success", "timeout", "success"]


def test_without_a_cgroup_the_processes_are_counted_and_it_is_said():
    with judge_with(cgroup=False) as running:
        assert (running.judge.info["cgroup"], running.judge.info["cpu_account"]) == (None, "processes")
        program = "import time\nend = float(input())\nwhile time.process_time() < end:\n    pass\nprint(1)\n"
        cases = stdin(("0\n", "1\n"), ("9\n", "1\n"), time_limit=0.3)
        assert running(program, cases).test_verdicts == ["success", "timeout"]


# ------------------------------------------------------------------------------------------------------ how it is read
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"0\n", 0.0),
        (b"51234567890\n", 51.23456789),
        # Documentation/admin-guide/cgroup-v2.rst: the first three always, the others with the controller
        (b"usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n", 2.5),
        (b"usage_usec 7\nuser_usec 7\nsystem_usec 0\nnr_periods 3\nnr_throttled 1\nthrottled_usec 90000\n", 7e-6),
        (b"user_usec 9\nsystem_usec 1\nusage_usec 10\nnice_usec 0\ncore_sched.force_idle_usec 5\n", 1e-5),
    ],
)
def test_both_versions_of_the_account_are_read(text, seconds):
    assert cpu_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"max\n", b"user_usec 9\nsystem_usec 1\n"])
def test_a_text_without_the_figure_is_no_account(text):
    with pytest.raises(ValueError):
        cpu_seconds(text)


@pytest.fixture(params=["1", "2"])
def counting(request):
    """A cgroup of this version, whatever bounds memory here: the file with its account, and where processes enter."""
    for hierarchy in cgroup._hierarchies():
        for parent in hierarchy.folders:
            folder = parent / f"phase1-judge-test-{os.getpid()}"
            wanted = hierarchy.version == request.param and (request.param == "2" or "cpuacct" in hierarchy.controllers)
            if wanted and cgroup._counts_cpu(request.param, parent):
                folder.mkdir()
                yield folder / cgroup.ACCOUNT[request.param], folder / "cgroup.procs"
                assert removed(folder.rmdir, OSError)
                return
    pytest.skip(f"no cgroup of version {request.param} can be made here")


def removed(remove, *errors):
    for _ in range(200):  # the kernel counts a process for a moment longer
        try:
            if remove() in (None, True):
                return True
        except errors:
            pass
        time.sleep(0.01)
    return False


@pytest.mark.slow
def test_the_kernels_account_has_what_no_process_was_waited_for(counting):
    account, entrance = counting
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            entrance.write_text(str(os.getpid()))
            group = Group(os.open(account, os.O_RDONLY))
            scope: dict = {}
            exec(UNSEEN, scope)
            before = group.cpu()
            begun = time.process_time()
            while time.process_time() - begun < 1.5:  # this process's own time does not count
                pass
            scope["unseen"](10)
            os.write(w, str(group.cpu() - before).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(w)
    assert 0.19 < float(os.read(r, 100)) < 1.4  # the children's, of which a fork is no small part
    os.close(r)


def test_a_group_is_not_used_again_while_a_process_is_in_it():
    parent = cgroup.find_parent()
    if parent is None:
        pytest.skip("no memory cgroup can be made here")
    group = cgroup.Cgroup(parent, f"phase1-judge-test-{os.getpid()}", 1 << 30)
    pid = os.fork()
    if pid == 0:
        try:
            group.enter()
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    assert not group.empty()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert group.empty()
    assert removed(group.remove)
    assert not any(folder.exists() for folder in (group.path, group.cpu) if folder)


def test_the_clock_of_a_process_is_what_the_kernel_tells_itself():
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        while time.process_time() < 0.1:
            pass
        usage = resource.getrusage(resource.RUSAGE_SELF)
        os.write(w, str(usage.ru_utime + usage.ru_stime).encode())
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    said, told = process_cpu(pid), float(os.read(r, 100))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(r)
    os.close(w)
    assert said == pytest.approx(told, abs=0.01)
    assert process_cpu(pid) == 0.0
