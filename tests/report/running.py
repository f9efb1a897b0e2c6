"""Run generate_report.py as the tests need it, and read the tables that it wrote."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

import generate_report
from phase1.files import run_script

GOLDEN = Path(__file__).resolve().parent / "golden"
SMALL = {"codecontests_valid": 40, "mbpp_reg": 30, "humaneval": 30}


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def generate(*arguments: object, plots: bool = False, cwd: Path | None = None) -> Done:
    """Run the script in this process (its imports take longer than it does); plots only where a test looks at them."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["generate_report.py", *map(str, arguments)])
        if cwd:
            patch.chdir(cwd)
        if not plots:
            patch.setattr(generate_report, "figures", lambda *_: [])
        with pytest.raises(SystemExit) as stop:
            run_script(generate_report.main)
    return Done(
        stop.value.code, *(stream.buffer.getvalue().decode() for stream in (out, err) if stream.flush() is None)
    )


def compare(tmp_path: Path, phase0: Path, phase1: Path, *more: object, plots: bool = False) -> Done:
    return generate(
        "--phase0_metrics",
        phase0,
        "--phase1_metrics",
        phase1,
        "--output_dir",
        tmp_path / "out",
        "--resamples",
        200,
        *more,
        plots=plots,
    )


def table_rows(text: str) -> dict[str, list[str]]:
    """First cell -> further cells of every row of the three tables."""
    lines = text.split("## Expected")[0].split("## More ")[0].splitlines()
    cells = [[c.strip(" *") for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells if row[0] not in ("Metric", "---")}
