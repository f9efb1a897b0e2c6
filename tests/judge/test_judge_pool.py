"""The pool of sandboxes and the command: each program once, bounded memory, nothing left behind, files in and out."""

import argparse
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

from phase1.files import BadInput, run_script
from phase1.judge.__main__ import main, print_probes
from phase1.judge.config import JudgeConfig, add_judge_arguments, config_from
from phase1.judge.judge import judge_all
from phase1.judge.probes import MEANING
from tests.judge.hostile_driver import descendants
from tests.judge.running_judge import RunningJudge, stdin

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=1.0, memory_limit_mb=256))
    yield running
    running.close()


# ----------------------------------------------------------------------------------------------------------- the pool
@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_judge_all_takes_items_as_it_goes():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield str(i), f"print({i})", stdin(("", str(i)))

    seen = 0
    for _, verdict in judge_all(items(), JudgeConfig(workers=1)):
        seen += 1
        assert verdict.accepted
        assert len(taken) <= seen + 4
    assert seen == 20


def test_unknown_kinds_and_modes_are_bad_input(judge):
    with pytest.raises(BadInput, match=r"test_cases\.type"):
        judge("pass", {"type": "leetcode"})
    with pytest.raises(BadInput, match="--compare"):
        list(judge_all([], JudgeConfig(compare="fuzzy")))


@pytest.mark.slow
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
def test_sixty_big_tests_in_bounded_memory(tmp_path):
    """660 MB of inputs and outputs pass through; the judge holds them once, as its caller does, and little more."""
    script = tmp_path / "big.py"
    script.write_text(
        f"import resource, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from phase1.judge.judge import JudgeConfig, judge_all\n"
        "text = '123456789 ' * 500_000\ncases = {'type': 'codecontests', 'tests': [{'input': text, 'output': "
        "text}] * 60}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "[(_, verdict)] = judge_all([('a', 'import sys\\nsys.stdout.write(sys.stdin.read())', cases)], "
        "JudgeConfig(workers=1))\n"
        "print(verdict.tests_passed, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    passed, grown = map(
        int, subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split()
    )
    assert passed == 60
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


@pytest.mark.slow
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
        {"problem_id": "a", "completion": "", "finish_reason": "error", "error": "HTTP 500"},
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


@pytest.mark.slow
def test_the_command_judges_a_file_of_solutions(files, command):
    code, said = command("--workers", "1", "--run_timeout", "5")
    assert code == 0, said
    rows = [json.loads(line) for line in (files / "out.jsonl").read_text().splitlines()]
    assert [(r["problem_id"], r["error_type"], r["pass_ratio"]) for r in rows] == [
        ("a", "success", 1.0),
        ("a", "wrong_answer", 0.5),
        ("b", "success", 1.0),
        ("b", "empty_output", 0.0),
        ("a", "api_error", 0.0),  # an answer that was never generated is not the model's
    ]
    assert (rows[-1]["detail"], rows[-1]["accepted"]) == ("HTTP 500", False)
    stamp = json.loads((files / "out.jsonl.run.json").read_text())
    assert stamp["accepted"] == 2 and stamp["stamp"]["arguments"]["run_timeout"] == 5.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"problem_id": "zzz", "code": ""}', "solutions.jsonl:6: problem_id 'zzz' is not in"),
        ('{"problem_id": "a"}', "solutions.jsonl:6: needs `code` or `completion`"),
        ("{", "solutions.jsonl:6: not a JSON object"),
        ('{"problem_id": ["a"], "code": ""}', "solutions.jsonl:6: problem_id ['a'] is not in"),
    ],
)
def test_a_bad_line_is_named_and_nothing_written(files, command, line, message):
    with open(files / "solutions.jsonl", "a") as f:
        f.write(line + "\n")
    code, said = command()
    assert code == 2 and message in said and said.count("\n") == 1
    assert not (files / "out.jsonl").exists()


@pytest.mark.parametrize("out", ["folder", "no_such/../folder", "/proc/none/out.jsonl"])
def test_a_place_that_cannot_be_written_to_is_refused_before_judging(files, command, out):
    (files / "folder").mkdir()
    code, said = command("--out", files / out, "--raw", files / "none.jsonl")  # the raw file would be looked at next
    assert code == 2 and said.count("\n") == 1 and "none.jsonl" not in said.replace("/proc/none", "")


def test_no_solutions_are_bad_input(files, command):
    (files / "solutions.jsonl").write_text("\n")
    code, said = command()
    assert code == 2 and "holds no solution" in said and not (files / "out.jsonl").exists()


@pytest.mark.parametrize(
    "flag",
    [
        ("--run_timeout", "nan"),
        ("--run_timeout", "inf"),
        ("--memory_limit_mb", "0"),
        ("--workers", "-1"),
        ("--reserve_cores", "-1"),
    ],
)
def test_a_flag_that_is_no_limit_is_refused(command, flag):
    code, said = command(*flag)
    assert code == 2 and "must be positive" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "parallel"),
    [([], 4), (["--reserve_cores", "3"], 1), (["--reserve_cores", "9"], 1), (["--workers", "7"], 7)],
)
def test_cores_are_left_to_others(monkeypatch, flags, parallel):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    parser = argparse.ArgumentParser()
    add_judge_arguments(parser)
    assert config_from(parser.parse_args(flags)).parallel == parallel


@pytest.mark.parametrize("when", ["at once", "while the probes run"])
def test_sigterm_leaves_no_file(tmp_path, when):
    process = subprocess.Popen(
        [sys.executable, "-m", "phase1.judge", "--probe"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
    )
    while when != "at once" and not list(tmp_path.glob("phase1-probe-*")) and process.poll() is None:
        time.sleep(0.01)  # not for just any file: Python tries its temporary folder with one of its own
    process.terminate()
    assert process.wait(300) in (-signal.SIGTERM, 0, 143)
    assert list(tmp_path.iterdir()) == []


def test_probe_prints_every_guarantee(capsys):
    assert asyncio.run(print_probes(JudgeConfig())) == 0
    shown = capsys.readouterr().out
    for name in MEANING:
        assert f"{name} " in shown
    assert "FAILS" not in shown


def left_in_temporary_folders():
    # Folders of this name are those of judges that run at the same time.
    return {p for folder in ("/tmp", "/dev/shm", "/") for p in Path(folder).glob("phase1-probe-*") if p.is_file()}


@pytest.mark.slow
def test_without_bubblewrap_nothing_is_judged_unless_unsafe(files, command, tmp_path, monkeypatch, capsys):
    """The probes of the isolation fail and are told; nothing that they wrote stays on this machine."""
    monkeypatch.setenv("PATH", str(tmp_path))
    before = left_in_temporary_folders()
    assert asyncio.run(print_probes(JudgeConfig())) == 1
    shown = capsys.readouterr().out
    assert "rlimits only (unsafe)" in shown and "file_system      FAILS" in shown
    code, said = command()
    assert code == 2 and "bubblewrap is not installed" in said and not (files / "out.jsonl").exists()
    code, said = command("--unsafe", "--workers", "1")
    assert code == 0, said
    assert json.loads((files / "out.jsonl.run.json").read_text())["accepted"] == 2
    assert left_in_temporary_folders() <= before
