"""phase1.contract.compile_apart: Python's errors, and a compiler that may die without its caller."""

import pytest

from phase1.contract import compile_apart as module
from phase1.contract.compile_apart import compile_apart, compile_error

BAD = {
    "syntax": "print(1",
    "return": "return 1",  # parses, but does not compile
    "nul": "x = '\0'",
    "half-character": "x = '\ud800'",
    "deep": "-" * 100_000 + "1",
}


@pytest.mark.parametrize("program", BAD.values(), ids=BAD)
def test_both_ways_give_the_error_that_python_raises(program):
    with pytest.raises((SyntaxError, ValueError, MemoryError, RecursionError)) as raised:
        compile(program, "row", "exec")
    told = f"{type(raised.value).__name__}: {raised.value}"
    assert compile_error(program, "row") == told
    assert compile_apart(["x = 1", program, ""], "row") == ([None, told, None], None)


def test_warnings_are_no_errors():
    assert compile_error("x = '\\d'\nif x is 1: pass") is None


@pytest.mark.parametrize(
    ("end", "death"),
    [("os.kill(os.getpid(), 11)", "SIGSEGV"), ("os._exit(3)", "exit code 3")],
    ids=["signal", "exit"],
)
def test_a_program_that_ends_the_compiler_leaves_the_errors_before_it(monkeypatch, tmp_path, end, death):
    deadly = tmp_path / "compiler.py"
    deadly.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        f"    if 'die' in json.loads(line): {end}\n"
        "    print(json.dumps(None), flush=True)\n"
    )
    monkeypatch.setattr(module, "__file__", str(deadly))
    assert compile_apart(["x = 1", "y = 2", "die", "z = 3"]) == ([None, None], death)


@pytest.mark.slow
def test_a_compiler_that_hangs_is_ended(monkeypatch, tmp_path):
    hanging = tmp_path / "compiler.py"
    hanging.write_text("import time\nprint('null', flush=True)\ntime.sleep(1000)\n")
    monkeypatch.setattr(module, "__file__", str(hanging))
    errors, death = compile_apart(["x = 1", "y = 2"], timeout=2)
    assert death == "no answer within 2 s" and errors in ([], [None])


def test_the_other_process_is_isolated_from_the_users_environment(monkeypatch, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert compile_apart(["x = 1"]) == ([None], None)
