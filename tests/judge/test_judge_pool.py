"""The pool of sandboxes and the command: each program once, bounded memory, nothing left behind, files in and out."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase1.files import BadInput
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all
from tests.judge.hostile_driver import descendants
from tests.judge.running_judge import RunningJudge, stdin

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=1.0, memory_limit_mb=256))
    yield running
    running.close()


# ----------------------------------------------------------------------------------------------------------- the pool
def test_identical_programs_are_judged_once(judge):
    cases = stdin(("", "1"))
    runs, real = [], judge.judge.backend.run
    judge.judge.backend.run = lambda task: runs.append(task) or real(task)

    async def both():
        return await asyncio.gather(*(judge.judge.judge("print(1) # the same", dict(cases)) for _ in range(5)))

    verdicts = judge.runner.run(both())
    judge.judge.backend.run = real
    assert len(runs) == 1
    assert all(v == verdicts[0] for v in verdicts)


def test_the_same_program_on_other_tests_is_judged_again(judge):
    assert judge("print(2) # twice", stdin(("", "2"))).accepted
    assert not judge("print(2) # twice", stdin(("", "3"))).accepted


def test_verdicts_are_remembered_up_to_a_bound(judge, monkeypatch):
    """A reward judges millions of programs in one process."""
    monkeypatch.setattr("phase1.judge.judge.REMEMBERED", 5)
    before = len(judge.judge.judged)
    for i in range(12):
        assert judge(f"print({i}) # remembered", stdin(("", str(i)))).accepted
    assert len(judge.judge.judged) == max(before, 5)


def test_judge_all_takes_items_as_it_goes():
    taken = []

    def items():
        for i in range(40):
            taken.append(i)
            yield str(i), f"print({i})", stdin(("", str(i)))

    seen = 0
    for _, verdict in judge_all(items(), JudgeConfig(workers=1)):
        seen += 1
        assert verdict.accepted
        assert len(taken) <= seen + 4
    assert seen == 40


def test_unknown_kinds_and_modes_are_bad_input(judge):
    with pytest.raises(BadInput, match=r"test_cases\.type"):
        judge("pass", {"type": "leetcode"})
    with pytest.raises(BadInput, match="--compare"):
        list(judge_all([], JudgeConfig(compare="fuzzy")))


def test_sandboxes_get_files_of_their_own_however_many_run():
    """The launcher holds a file for each running sandbox; this one holds from the start what fifty workers make it
    hold."""
    program = (
        "import os, subprocess\nheld, popen = [3], subprocess.Popen\nwhile held[-1] < 91:\n    "
        "held.append(os.open(os.devnull, os.O_RDONLY))\n"
    )
    program += (
        "subprocess.Popen = lambda *a, pass_fds=(), **k: popen(*a, pass_fds=[*pass_fds, *held[1:]], **k)\nfrom "
        "phase1.judge.judge import *\n"
    )
    program += "cases = {'type': 'codecontests', 'tests': [{'input': '1', 'output': '1'}]}\n"
    program += (
        "print({v.error_type for _, v in judge_all([(str(i), f'print(input()) # {i}', cases) for i in range(6)], "
        "JudgeConfig(workers=2))})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.stdout == "{'success'}\n", done.stderr


@pytest.mark.slow
def test_a_hundred_big_tests_in_bounded_memory(tmp_path):
    """A gigabyte of inputs and outputs passes through; the judge holds them once, as its caller does, and little more."""
    script = tmp_path / "big.py"
    script.write_text(
        f"import resource, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from phase1.judge.judge import JudgeConfig, judge_all\n"
        "text = '123456789 ' * 500_000\ncases = {'type': 'codecontests', 'tests': [{'input': text, 'output': "
        "text}] * 100}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "[(_, verdict)] = judge_all([('a', 'import sys\\nsys.stdout.write(sys.stdin.read())', cases)], "
        "JudgeConfig(workers=1))\n"
        "print(verdict.tests_passed, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    passed, grown = map(
        int, subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split()
    )
    assert passed == 100
    assert grown < 200  # MiB


def test_a_program_that_ends_early_on_big_tests_is_no_failure_of_the_judge(judge):
    big = "x" * 2_000_000
    assert judge("while True: pass", stdin(*[(big, "")] * 8, time_limit=0.1)).error_type == "timeout"
    assert judge("def f(:", stdin(*[(big, "")] * 8)).error_type == "syntax_error"
    assert judge("pass", stdin(*[(big, "")] * 8)).accepted


LONG = (
    # A test run in the background of a shell has SIGINT ignored, and its children too.
    "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "sys.path.insert(0, {root!r})\nfrom phase1.judge.judge import JudgeConfig, judge_all\nfrom phase1.files import "
    "run_script\n"
    "program = 'import os, time\\nfor _ in range(3): os.fork()\\nprint(1, flush=True)\\ntime.sleep(1000)'\n"
    "def items():\n    for i in range(4):\n        yield str(i), program + f' # {{i}} {marker}', {{'type': "
    "'codecontests', 'tests': [{{'input': '', 'output': ''}}]}}\n"
    "def main():\n    print('started', flush=True)\n    list(judge_all(items(), JudgeConfig(workers=2, "
    "run_timeout=900)))\nrun_script(main)\n"
)


@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGKILL, os.kill), (signal.SIGTERM, os.kill), (signal.SIGINT, os.kill), (signal.SIGKILL, os.killpg)],
)
def test_nothing_outlives_the_judging_process(tmp_path, number, whom):
    script = tmp_path / "long.py"
    script.write_text(LONG.format(root=str(ROOT), marker=number))
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    process.stdout.readline()
    deadline = time.monotonic() + 300
    while len(family := descendants(process.pid)) < 20:  # launcher, two sandboxes with eight processes each
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("the sandboxes did not start")
        time.sleep(0.1)
    started = {}
    for pid in family:  # one that ends meanwhile need not be waited for
        with contextlib.suppress(OSError):
            started[pid] = Path(f"/proc/{pid}/stat").read_bytes().split()[21]
    launchers = {family[0]}  # the judging process has one child
    whom(process.pid, number)
    process.wait(300)

    def alive():
        left = []
        for pid, birth in started.items():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_bytes().split()
                if fields[21] == birth and fields[2] != b"Z":
                    left.append(pid)
        return left

    def wait_until(condition):
        deadline = time.monotonic() + 120
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        return condition()

    assert wait_until(lambda: set(alive()) <= launchers)
    assert wait_until(lambda: not alive())  # the launcher stays to remove its cgroups
    assert [*Path("/sys/fs/cgroup").glob(f"**/phase1-judge-{family[0]}-*")] == []


REAPER = """
import ctypes, os, subprocess, sys, time
sys.path.insert(0, ROOT)
from tests.judge.hostile_driver import descendants
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: whatever is orphaned becomes our child
worst = 0.0
for number in range(10):
    process = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    time.sleep(number * 0.06)
    process.kill()
    process.wait()
    killed = time.monotonic()
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        if time.monotonic() - killed > 120:
            subprocess.run(["ps", "-o", "pid,args", *map(str, descendants(os.getpid()))], stdout=sys.stderr)
            sys.exit(f"left behind by a kill {number * 0.06:.2f} s after the start")
        time.sleep(0.01)
    worst = max(worst, time.monotonic() - killed)
print(worst)
"""


@pytest.mark.slow
def test_nothing_outlives_a_judge_killed_at_any_moment(tmp_path):
    """Opening, probing, starting a sandbox: bubblewrap killed half-way leaves a process that only its reaper can
    find."""
    script = tmp_path / "long.py"
    script.write_text(LONG.format(root=str(ROOT), marker="any"))
    done = subprocess.run(
        [sys.executable, "-c", REAPER.replace("ROOT", repr(str(ROOT))), script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------------- command line
@pytest.fixture
def files(tmp_path):
    raw = [
        {"problem_id": "a", "prompt": "p", "test_cases": stdin(("1\n", "2\n"), ("5\n", "10\n"))},
        {
            "problem_id": "b",
            "prompt": "def f(x):\n",
            "test_cases": {
                "type": "humaneval",
                "test_code": "def check(c):\n    assert c(1) == 2\n",
                "entry_point": "f",
            },
        },
    ]
    solutions = [
        {"problem_id": "a", "code": "print(int(input()) * 2)"},
        {"problem_id": "a", "completion": "Sure!\n<code>\nprint(2)\n</code>"},
        {"problem_id": "b", "completion": "<code>\n    return x + 1\n</code>"},
        {"problem_id": "b", "completion": ""},
    ]
    for name, rows in (("raw", raw), ("solutions", solutions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


@pytest.fixture
def command(files, monkeypatch, capsys):
    """The command in this process: (exit code, what it said on stderr)."""

    def run(*flags):
        usual = ["--raw", files / "raw.jsonl", "--solutions", files / "solutions.jsonl", "--out", files / "out.jsonl"]
        monkeypatch.setattr(sys, "argv", ["phase1.judge", *map(str, [*usual, *flags])])  # later flags win
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as left:
                run_script(main)
        finally:
            signal.signal(signal.SIGTERM, handler)
        return left.value.code, capsys.readouterr().err

    return run


def test_the_command_judges_a_file_of_solutions(files):
    done = _command(files, "--workers", "1", "--run_timeout", "5")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (files / "out.jsonl").read_text().splitlines()]
    assert [(r["problem_id"], r["error_type"], r["pass_ratio"]) for r in rows] == [
        ("a", "success", 1.0),
        ("a", "wrong_answer", 0.5),
        ("b", "success", 1.0),
        ("b", "empty_output", 0.0),
    ]
    stamp = json.loads((files / "out.jsonl.run.json").read_text())
    assert stamp["accepted"] == 2 and stamp["stamp"]["arguments"]["run_timeout"] == 5.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"problem_id": "zzz", "code": ""}', "solutions.jsonl:5: problem_id 'zzz' is not in"),
        ('{"problem_id": "a"}', "solutions.jsonl:5: needs `code` or `completion`"),
        ("{", "solutions.jsonl:5: not a JSON object"),
        ('{"problem_id": ["a"], "code": ""}', "solutions.jsonl:5: problem_id ['a'] is not in"),
    ],
)
def test_a_bad_line_is_named_and_nothing_written(files, line, message):
    with open(files / "solutions.jsonl", "a") as f:
        f.write(line + "\n")
    done = _command(files)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (files / "out.jsonl").exists()


@pytest.mark.parametrize("out", ["folder", "no_such/../folder", "/proc/none/out.jsonl"])
def test_a_place_that_cannot_be_written_to_is_refused_before_judging(files, out):
    (files / "folder").mkdir()
    done = _command(
        files, "--out", files / out, "--raw", files / "none.jsonl"
    )  # later flags win; the raw file would be looked at next
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "none.jsonl" not in done.stderr.replace("/proc/none", "")
    )


def test_no_solutions_are_bad_input(files):
    (files / "solutions.jsonl").write_text("\n")
    done = _command(files)
    assert done.returncode == 2 and "holds no solution" in done.stderr and not (files / "out.jsonl").exists()


def test_an_answer_that_was_never_generated_is_not_the_models(files):
    with open(files / "solutions.jsonl", "a") as f:
        f.write(json.dumps({"problem_id": "a", "completion": "", "finish_reason": "error", "error": "HTTP 500"}) + "\n")
    assert _command(files, "--workers", "1").returncode == 0
    last = json.loads((files / "out.jsonl").read_text().splitlines()[-1])
    assert (last["error_type"], last["detail"], last["accepted"]) == ("api_error", "HTTP 500", False)


@pytest.mark.parametrize(
    "flag", [("--run_timeout", "nan"), ("--run_timeout", "inf"), ("--memory_limit_mb", "0"), ("--workers", "-1")]
)
def test_a_flag_that_is_no_limit_is_refused(files, flag):
    done = _command(files, *flag)
    assert done.returncode == 2 and "must be positive" in done.stderr and done.stderr.count("\n") == 1


def test_sigterm_leaves_no_file(tmp_path):
    """Also while the probes run, which need a few."""
    for delay in (0.2, 0.5, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-m", "phase1.judge", "--probe"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
        )
        time.sleep(delay)
        process.terminate()
        assert process.wait(30) in (-signal.SIGTERM, 0, 143)
        assert list(tmp_path.iterdir()) == []


def test_probe_prints_every_guarantee():
    done = subprocess.run([sys.executable, "-m", "phase1.judge", "--probe"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        "file_system",
        "network",
        "processes",
        "tree_kill",
        "memory_process",
        "memory_all",
        "disk",
        "user_namespaces",
    ):
        assert f"{name} " in done.stdout
    assert "FAILS" not in done.stdout


def test_without_bubblewrap_nothing_is_judged_unless_unsafe(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "phase1.judge", "--probe"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 1 and "file_system" in done.stdout and "FAILS" in done.stdout
    program = (
        "from phase1.judge.judge import *\nfrom phase1.files import run_script\ncases = {'type': 'codecontests', "
        "'tests': [{'input': '', 'output': '1'}] * 2}\n"
    )
    program += (
        "run_script(lambda: print([v.error_type for _, v in judge_all([('a', 'print(1)', cases)], "
        "JudgeConfig(unsafe=UNSAFE))]))"
    )
    for unsafe, code in ((False, 2), (True, 0)):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("UNSAFE", str(unsafe))],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert done.returncode == code, done.stdout + done.stderr
    assert "['success']" in done.stdout
