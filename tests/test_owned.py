"""What a killed process left is told from what a living one uses."""

import os
import subprocess
import sys

import pytest

from phase1.owned import birth, left_behind, own_name

OURS = own_name("kind")


def name_of_another(pid=None, born=None, place=None):
    kind, own_pid, own_birth, own_place = OURS.split("-")
    return "-".join([kind, str(pid or own_pid), str(born or own_birth), place or own_place])


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("name", "left"),
    [
        (lambda: OURS, False),
        (lambda: OURS + "-x1", False),
        (lambda: name_of_another(pid=ended()), True),
        (lambda: name_of_another(pid=ended()) + "-x1", True),
        (lambda: name_of_another(born=1), True),
        (lambda: name_of_another(born=1, place="00000000"), False),
        (lambda: name_of_another(born=1, place="unknown"), False),
        (lambda: "other" + name_of_another(born=1), False),
        (lambda: name_of_another(born=1) + "x", False),
        (lambda: "kind-1", False),
    ],
    ids=["own", "own_more", "ended", "ended_more", "reused", "elsewhere", "unknown", "kind", "longer", "foreign"],
)
def test_only_what_an_ended_process_of_this_place_left_is_found(tmp_path, name, left):
    folder = tmp_path / name()
    folder.mkdir()
    assert left_behind(tmp_path, "kind") == ([folder] if left else [])


def test_a_link_and_a_file_are_not_folders(tmp_path):
    (tmp_path / name_of_another(born=1)).touch()
    (tmp_path / (name_of_another(born=1) + "-link")).symlink_to(tmp_path)
    assert left_behind(tmp_path, "kind") == [] and left_behind(tmp_path / "absent", "kind") == []


def test_a_process_that_ended_was_never_born():
    process = subprocess.Popen(["sleep", "60"])
    before = birth(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie still has its number
    assert before and birth(process.pid) is None and process.wait() == -9
