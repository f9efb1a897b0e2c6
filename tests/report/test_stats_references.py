"""The formulas that phase1/report/stats.py writes out are those of statsmodels and scipy, which it need not import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from phase1.report import stats
from tests.conftest import ROOT


@pytest.mark.parametrize("n", [1, 2, 117, 10_000])
def test_wilson_is_statsmodels_interval_to_the_last_digit(n):
    for count in {*range(min(n, 120) + 1), n // 2, n - 1, n}:
        for alpha in (0.05, 0.01):
            assert stats.wilson(count, n, alpha) == proportion_confint(count, n, alpha=alpha, method="wilson")


@pytest.mark.parametrize("gained, lost", [(0, 0), (0, 1), (1, 0), (3, 3), (12, 5), (400, 380), (3_000, 2_900)])
def test_mcnemars_p_is_scipys_binomial_test(gained, lost):
    exact, mid = stats.mcnemar(gained, lost)
    k, m = min(gained, lost), gained + lost
    if m:
        assert exact == pytest.approx(st.binomtest(k, m).pvalue, rel=1e-9)
    assert mid == pytest.approx(min(1.0, 2 * st.binom.cdf(k, m, 0.5) - st.binom.pmf(k, m, 0.5)), rel=1e-9)


def test_holm_is_statsmodels_correction_to_the_last_digit(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects garbage at every call: 50 ms each
    rng = np.random.default_rng(3)
    families = [list(rng.random(size) ** 4) for size in rng.integers(1, 15, 300)]
    for ps in [*families, [0.0], [1.0, 1.0], [0.02, 0.02, 0.02, 0.5], [0.04, 0.01, 0.04]]:
        family = [stats.Comparison("", True, 1, 0.0, p=float(p)) for p in ps]
        stats.holm(family)
        assert [c.p_holm for c in family] == list(multipletests(ps, method="holm")[1])
        assert {c.family for c in family} == {len(ps)}


def test_an_unpaired_interval_is_statsmodels():
    c = stats.unpaired_rate(31, 117, 44, 120)
    assert c is not None
    assert (c.low, c.high) == confint_proportions_2indep(44, 120, 31, 117, method="newcomb", compare="diff")


def test_what_needs_no_resampling_imports_neither_scipy_stats_nor_statsmodels_nor_pandas():
    asked = (
        "import sys; from phase1.report import stats\n"
        "assert stats.wilson(3, 9) and stats.paired_rate([True] * 3 + [False] * 9, [True] * 12, margin=0.1)\n"
        "c = stats.Comparison('', True, 1, 0.0, p=0.5); stats.holm([c]); assert c.p_holm == 0.5\n"
        "print(sorted({'scipy.stats', 'statsmodels', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout == "[]\n"
