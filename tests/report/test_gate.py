"""--gate rules.toml: which rules close it, and what a bad rules file gets."""

from __future__ import annotations

import pytest

from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation
from tests.report.running import compare

RULE = '[[rule]]\ndataset = "codecontests_valid"\nmetric = "exec_success_rate"\n'


@pytest.mark.parametrize(
    "rule, passes",
    [
        (RULE + "min = 0.5", True),
        (RULE + "min = 0.999", False),
        (RULE + "max = 0.5", False),
        (RULE + "min_change = 0.1", True),
        (RULE + "min_change = 0.9", False),
        (RULE + "max_change = 0.0", False),
        (RULE + 'answer = ["improved"]', True),
        (RULE + 'answer = ["equivalent"]', False),
        ('[[rule]]\nverdict = ["improved", "mixed"]', True),
        ('[[rule]]\nverdict = ["worse"]', False),
    ],
)
def test_the_gate(evaluations, tmp_path, rule, passes):
    (tmp_path / "rules.toml").write_text(rule)
    done = compare(tmp_path, evaluations["base"], evaluations["better"], "--gate", tmp_path / "rules.toml")
    assert done.returncode == (0 if passes else 1), done.stderr
    assert ("GATE CLOSED" in done.stdout) != passes


@pytest.mark.parametrize("rule", ['[[rule]]\nverdict = ["not_shown"]', RULE + 'answer = ["not shown"]'])
def test_a_gate_of_before_goes_on_with_the_word_that_has_become_two(tmp_path, rule):
    """Eight problems: what was `not shown` is `too small to tell` now."""
    for name, seed in (("base", 0), ("sft", 3)):
        write_evaluation(tmp_path / name, Fake(PHASE0, sizes={"codecontests_valid": 8}, seed=seed))
    (tmp_path / "rules.toml").write_text(rule)
    done = compare(
        tmp_path, *(tmp_path / n / "metrics.json" for n in ("base", "sft")), "--gate", tmp_path / "rules.toml"
    )
    assert done.returncode == 0 and "TOO SMALL TO TELL" in done.stdout, done.stdout


@pytest.mark.parametrize(
    "content, named",
    [
        ("[[rule", "not valid TOML"),
        ("x = 1", "no [[rule]]"),
        (RULE + "minimum = 1", "'minimum'"),
        (RULE, "no limit"),
        ("[[rule]]\nmin = 1.0", "dataset and metric"),
        ('[[rule]]\nverdict = ["worse"]\nmin = 1.0', "or verdict alone"),
        ('[[rule]]\nverdict = ["worse"]\nmetric = "accepted_at_1"\nmin = 1.0', "or verdict alone"),
        (RULE + 'min = "high"', "min = 'high'"),
        (RULE + "min = nan", "min = nan"),
        (RULE + 'answer = ["improvd"]', "'improvd' is none of improved"),
        ('[[rule]]\nverdict = ["improvd"]', "'improvd' is none of improved"),
        (RULE + "answer = [1]", "answer 1 is none of"),
        (None, "no such file"),
    ],
)
def test_a_bad_gate_file_is_one_line_and_exit_2(evaluations, tmp_path, content, named):
    if content is not None:
        (tmp_path / "rules.toml").write_text(content)
    done = compare(tmp_path, evaluations["base"], evaluations["better"], "--gate", tmp_path / "rules.toml")
    assert done.returncode == 2 and named in done.stderr and len(done.stderr.splitlines()) == 1
