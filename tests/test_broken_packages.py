"""A package that is found and does not load, of another environment say, is one line and exit code 2."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

OWN_FAULT = "import sys, phase1\nsys.excepthook = phase1.say_what_ended\nfrom phase1 import files\n"


def run(*words, path=None):
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "package", "text", "said"),
    [
        (
            ["generate_report.py", "--help"],
            "numpy",
            "raise ImportError('cannot import name x')",
            "ImportError: cannot",
        ),
        (["phase1_eval.py", "--help"], "rich", "raise AttributeError('no x\\nno y')", "AttributeError: no x);"),
        (["prepare_sft_data.py", "--help"], "rich", "def (", "SyntaxError: invalid syntax"),
        (["prepare_eval_data.py", "--help"], "rich", "", "No module named 'rich.console'"),
        (["-m", "phase1.checkpoints", "status", "--checkpoint_dir", "."], "rich", "1 / 0", "ZeroDivisionError"),
    ],
    ids=["import_error", "two_lines", "syntax", "lacks", "module"],
)
def test_a_broken_package_is_one_line(tmp_path, words, package, text, said):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(text + "\n")
    done = run(*words, path=tmp_path)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "PYTHONPATH" in done.stderr
    assert f"{tmp_path / package}" in done.stderr or text == ""


@pytest.mark.parametrize(
    "fault",
    ["files.no_such_name", "import phase1.no_such", "files.read_json(5, 6)", "compile('def (', '<text>', 'exec')"],
)
def test_a_fault_of_our_own_keeps_its_traceback(fault):
    done = run("-c", OWN_FAULT + fault)
    assert done.returncode == 1 and done.stderr.startswith("Traceback"), done.stderr
