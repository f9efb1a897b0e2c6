"""phase1.checkpoints.child: how a script ended is told from its exit code and its last words."""

import asyncio

import pytest

from phase1.checkpoints import child
from phase1.checkpoints.child import WrongFlagsError, run_child
from tests.conftest import ROOT


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a program as a script of the root; returns the error."""
    monkeypatch.setattr(child, "ROOT", tmp_path)

    def start(program: str, *arguments: str) -> str:
        (tmp_path / "script.py").write_text(program)
        environment = {"SAID": "from the environment"}
        return asyncio.run(run_child("script.py", list(arguments), tmp_path / "log", environment))

    return start


def test_a_script_that_ends_well_leaves_no_error_and_all_it_printed_in_the_log(run, tmp_path):
    assert run("import os, sys; print(sys.argv[1:], os.environ['SAID'])", "--flag", "a b") == ""
    assert (tmp_path / "log").read_text() == "['--flag', 'a b'] from the environment\n"


ENDS = {
    "error line": (
        "print('error: no room'); print('bye'); raise SystemExit(1)",
        "script.py: exit code 1, error: no room",
    ),
    "last line": ("print('first'); print('last'); raise SystemExit(3)", "script.py: exit code 3, last"),
    "killed": ("import os; print('x', flush=True); os.kill(os.getpid(), 9)", "script.py: killed by SIGKILL, x"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_error_names_the_script_how_it_ended_and_its_last_words(run, end):
    program, said = ENDS[end]
    assert run(program) == said


def test_a_refused_flag_is_told_from_other_errors(run):
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from phase1.arguments import Parser; Parser().parse_args()"
    )
    with pytest.raises(WrongFlagsError, match="^script.py: unrecognized arguments: --wach"):
        run(program, "--wach")
