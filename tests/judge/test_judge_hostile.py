"""Every hostile program is contained, as root and as an ordinary user, and the next program's verdict is unharmed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.judge.hostile_programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
# As root: a namespace of our own in which the interpreter can be reached by an ordinary user, wherever it lies.
AS_USER = """
set -eu
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/prefix /mnt/venv
mount --bind "$PREFIX" /mnt/prefix
mount --bind "$VENV" /mnt/venv
for root in "$PREFIX" "$VENV"; do
    top="/$(echo "$root" | cut -d/ -f2)"
    case "$top" in /usr|/tmp|/opt) ;; *) mountpoint -q "$top" || mount -t tmpfs -o mode=755 none "$top" ;; esac
done
mkdir -p "$PREFIX" "$VENV"
mount --bind /mnt/prefix "$PREFIX"
mount --bind /mnt/venv "$VENV"
cd /
exec setpriv --reuid=12345 --regid=12345 --clear-groups --inh-caps=-all "$PYTHON" "$DRIVER"
"""


def _run_as(who: str, folder: Path) -> dict:
    copy = folder / "a path with spaces"
    (copy / "tests" / "judge").mkdir(parents=True)
    shutil.copytree(ROOT / "phase1", copy / "phase1", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("hostile_driver.py", "hostile_programs.py"):
        shutil.copy(ROOT / "tests" / "judge" / name, copy / "tests" / "judge")
    driver = str(copy / "tests" / "judge" / "hostile_driver.py")
    command = [sys.executable, driver]
    temporary = folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    if who == "user" and os.getuid() == 0:
        folder.chmod(0o755)
        environment |= {
            "PREFIX": os.path.realpath(sys.base_prefix),
            "VENV": sys.prefix,
            "PYTHON": sys.executable,
            "DRIVER": driver,
            "HOME": "/",
        }
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", AS_USER]
        if subprocess.run([*command[:4], "true"], capture_output=True).returncode:
            pytest.skip("root without the right to mount cannot become an ordinary user here")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=["root", "user"])
def outcome(request):
    if request.param == "root" and os.getuid() != 0:
        pytest.skip("not root")
    # Not in pytest's folder, which each start of pytest closes to other users again.
    with tempfile.TemporaryDirectory(prefix="phase1-hostile-") as folder:
        return _run_as(request.param, Path(folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_program_is_contained_and_the_next_unharmed(outcome, name):
    seen = outcome["programs"][name]
    assert seen["error_type"] in PROGRAMS[name][1], seen
    assert seen["control"][0] == "success", seen["control"]


@pytest.mark.slow
def test_nothing_is_left_behind(outcome):
    assert outcome["left"] == []
    assert outcome["programs_left"] == []
    assert outcome["cgroups"] == []
    assert outcome["launcher_gone"]
    assert outcome["mounts"] == 0
    assert outcome["files"] == []


@pytest.mark.slow
def test_every_probe_holds_that_a_judge_needs(outcome):
    held = outcome["info"]["probes"]
    assert all(
        held[name]
        for name in ("file_system", "network", "processes", "tree_kill", "user_namespaces", "disk", "memory_process")
    )


def test_there_are_at_least_sixty_hostile_programs():
    assert len(PROGRAMS) >= 60
