"""What is said before a run: its formula against simulation, what is measured against what was put in, bad input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from phase1.files import run_script
from phase1.report.power import Question, main, measure, power, problems_needed, variance
from tests.conftest import ROOT
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation, write_sampled


def ask(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "phase1.report.power", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def answers(rng, n: int, k: int, mean: float, rho: float, moved: float) -> list[np.ndarray]:
    a, b = mean * (1 / rho - 1), (1 - mean) * (1 / rho - 1)
    before = rng.beta(a, b, n)
    after = np.where(rng.random(n) < moved, rng.beta(a, b, n), before)
    return [rng.random((n, k)) < p[:, None] for p in (before, after)]


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("rho", [0.2, 0.6])
@pytest.mark.parametrize("moved", [0.0, 0.3])
def test_the_variance_is_that_of_simulated_changes(k, rho, moved):
    before, after = answers(np.random.default_rng(1), 60_000, k, 0.3, rho, moved)
    seen = (after.mean(axis=1) - before.mean(axis=1)).var()
    assert variance(Question(117, k, 0.05, 0.3, rho, 1 - moved)) == pytest.approx(seen, rel=0.03)


def test_mean_correlation_and_agreement_are_found_again_in_simulated_answers():
    found = measure(*answers(np.random.default_rng(2), 20_000, 4, 0.3, 0.5, 0.2))
    assert (found.mean, found.rho, found.agreement) == pytest.approx((0.3, 0.5, 0.8), abs=0.02)


def test_the_problems_needed_have_the_power_and_one_fewer_has_not():
    for rows in (1, 13):
        q = Question(117, 4, 0.05, rows=rows)
        n = problems_needed(q)
        at = [power(Question(m, 4, 0.05, rows=rows)) for m in (n - 1, n)]
        assert at[0] < 0.8 <= at[1] + 1e-9


def test_the_table_fits_80_columns_and_measures_two_evaluations(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        write_sampled(tmp_path / name, Fake(PHASE0, sizes={"humaneval": 40}, seed=seed, noise=0.2), 3)
    files = [tmp_path / n / "metrics.json" for n in "ab"]
    done = ask("--measured_on", *files, "--dataset", "humaneval", "--problems", 164)
    assert done.returncode == 0, done.stderr
    assert "measured on humaneval" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--gain", "5"], "--gain 5.0: expected a share"),
        (["--rho", "1.5"], "--rho 1.5: expected a correlation"),
        (["--samples", "0"], "--samples 0: expected 1 or more"),
        (["--measured_on", "greedy", "--dataset", "humaneval"], "holds no humaneval with several answers"),
        (["--measured_on", "nowhere"], "no such file"),
    ],
    ids=["percent", "correlation", "no answers", "one answer", "no file"],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, says):
    write_evaluation(tmp_path / "greedy", Fake(PHASE0, sizes={"humaneval": 5}))
    arguments = [str(tmp_path / a / "metrics.json") if a in ("greedy", "nowhere") else a for a in arguments]
    monkeypatch.setattr(sys, "argv", ["power", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_script(main)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and says in said and len(said.splitlines()) == 1, said
