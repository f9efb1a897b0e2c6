"""What a program sees of the machine: the interpreter and its libraries, not the project, wherever that lies."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from phase1.judge.config import JudgeConfig
from phase1.judge.interpreters import PROJECT
from phase1.judge.mounts import DEVICES, covered
from phase1.judge.outcomes import Task
from phase1.judge.probes import probe
from tests.judge.running_judge import RunningJudge, stdin

LOOK = """
import os
for folder, _, names in os.walk("/", onerror=lambda e: None):
    if folder.startswith(("/proc", "/dev")):
        _[:] = []
    if {names!r}.intersection(names):
        print("sees", folder, names)
"""
# Judge a program from a copy of the project, and say where that copy is.
JUDGE = """
import json, sys
from phase1.judge.config import JudgeConfig
from phase1.judge.interpreters import PROJECT
from phase1.judge.judge import judge_all
cases = {"type": "codecontests", "tests": [{"input": "", "output": ""}]}
[(_, verdict)] = judge_all([("a", sys.stdin.read(), cases)], JudgeConfig(workers=1))
print(json.dumps([str(PROJECT), verdict.error_type, verdict.first_failed_case]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("above", ["/usr/src", "/usr", "/usr/local/lib", "/usr/share", "/opt", "/srv"])
def test_a_project_is_not_seen_wherever_it_lies(above):
    if not os.access(above, os.W_OK):
        pytest.skip(f"{above} cannot be written to by this user")
    with tempfile.TemporaryDirectory(prefix="phase1-mounted-", dir=above) as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(PROJECT / "phase1", Path(folder, "phase1"), ignore=shutil.ignore_patterns("__pycache__"))
        names = {"fork_server.py", "phase1-secret.env", "phase1-data.jsonl"}
        for name in ("phase1-secret.env", "data/phase1-data.jsonl"):
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).write_text("secret")
        done = subprocess.run(
            [sys.executable, "-c", JUDGE],
            input=LOOK.format(names=names),
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [folder, "success", None]


@pytest.fixture(scope="module")
def judge():
    running = RunningJudge(JudgeConfig(workers=2, run_timeout=10.0))
    yield running
    running.close()


def test_the_probe_finds_a_visible_project(judge, monkeypatch):
    """Something that programs do see stands in the project's place."""
    monkeypatch.setattr("phase1.judge.probes.PROJECT", Path("/usr/lib"))
    seen = judge.runner.run(probe(judge.judge.backend, []))
    assert "read /usr/lib/" in seen["file_system"]


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ("/usr/lib/app", True),
        ("/usr/library", False),
        ("/usr/lib", False),  # what is shown as a whole cannot be hidden, and the probe says so
        ("/home/me", False),
        ("/opt/python/app", True),
    ],
)
def test_only_what_lies_within_a_shown_folder_is_covered(hidden, expected):
    assert covered([hidden], ["/usr/lib", "/opt/python"]) == ([hidden] if expected else [])


def test_packages_and_time_zones_are_where_they_were(judge):
    program = "import ssl, sqlite3, subprocess, zoneinfo\nprint(zoneinfo.ZoneInfo('Europe/Berlin'))\n"
    program += "print(subprocess.run(['sort'], input='b\\na\\n', capture_output=True, text=True).stdout)"
    if not Path("/usr/share/zoneinfo/Europe/Berlin").exists():
        pytest.skip("no time zones are installed here (apt-get install tzdata)")
    verdict = judge(program, stdin(("", "Europe/Berlin a b")))
    assert verdict.accepted, verdict


TELLS = """
import os
for name in ("cmdline", "partitions", "diskstats", "bus", "driver", "fs"):
    path = f"/proc/{name}"
    try:
        print(name, os.listdir(path) if os.path.isdir(path) else open(path).read()[:100])
    except OSError:
        pass
print(open("/proc/sys/kernel/hostname").read(), os.uname().nodename)
"""


def test_proc_tells_nothing_of_the_host(judge):
    verdict = judge(TELLS, stdin(("", "bus [] driver [] fs [] sandbox sandbox")))
    assert verdict.accepted, verdict


def test_what_programs_want_of_proc_is_there(judge):
    program = "import os\nfor name in 'cpuinfo', 'meminfo', 'stat', 'loadavg', 'self/stat':\n"
    program += "    assert open(f'/proc/{name}').read()\nprint(True)"
    assert judge(program, stdin(("", "True"))).accepted


SHOWS = """
import os
for line in open("/proc/self/mountinfo"):
    options = line.split()
    ro = "ro" in options[5].split(",") or options[4] in {devices}  # which are written to in either case
    print(options[4], ro, "nosuid" in options[5], "nodev" in options[5])
for folder, names, _ in os.walk("/"):
    if folder.count("/") > 2 or folder.startswith("/proc"):
        names[:] = []
    elif not folder.startswith("/tmp"):
        print(folder, *sorted(os.listdir(folder)))
for folder in "/", "/dev", "/usr", "/usr/lib", "/etc", "/proc/bus", "/proc/fs":
    try:
        os.mkdir(folder + "/new")
        print("wrote in", folder)
    except OSError:
        pass
"""
OF_A_COMPILER = ("/usr/include", "/usr/local/include", "/usr/libexec")


def test_what_is_mounted_once_for_all_is_what_each_sandbox_would_mount(judge):
    """As root a tree is put together once; a sandbox with headers mounts everything itself."""

    program = SHOWS.format(devices={f"/dev/{name}" for name in DEVICES})

    async def shown(headers):
        task = Task(program, kind="stdin", count=1, limit=10.0, memory=512 << 20, inputs=[""], headers=headers)
        [run] = [run async for run in judge.judge.backend.run(task)]
        lines = run.output.decode().replace(" include", "").replace(" libexec", "").splitlines()
        return sorted(line for line in lines if not line.startswith((*OF_A_COMPILER, "/ "))), lines

    once, lines = judge.runner.run(shown(False))
    assert once == judge.runner.run(shown(True))[0]
    assert "/ True True" in "\n".join(lines)  # read-only, nosuid
    assert not any(line.startswith("wrote") for line in lines)
