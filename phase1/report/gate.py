"""The gate for CI and cron: rules in a TOML file that a report must pass."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from phase1.contract.problems import EVAL_SETS
from phase1.files import BadInput
from phase1.report import stats
from phase1.report.evidence import Evidence
from phase1.report.tables import NONE
from phase1.report.verdict import WORDS, Verdict

GATE_KEYS = {
    "dataset": str,
    "metric": str,
    "min": float,
    "max": float,
    "min_change": float,
    "max_change": float,
    "answer": list,
    "verdict": list,
}
OLD_ANSWER = "not shown"  # stands for both answers that it has become, so that gates of before go on as they were
UNDECIDED = (stats.NOT_SHOWN, stats.TOO_SMALL)
GATE_WORDS = {
    "answer": (
        *(stats.IMPROVED, stats.WORSE, stats.ROSE, stats.FELL, stats.EQUIVALENT, *UNDECIDED, NONE),
        OLD_ANSWER,
    ),
    "verdict": WORDS,
}


def read_gate(path: Path) -> list[dict[str, Any]]:
    """The [[rule]] tables of a TOML file. A rule has `metric` and `dataset` with limits on Phase 1's value (`min`,
    `max`) or on the change (`min_change`, `max_change`; shares, so 0.02 is 2 pp) or the allowed `answer`s; or the
    allowed `verdict`s."""
    try:
        rules = tomllib.loads(path.read_text(encoding="utf-8")).get("rule")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadInput(f"{path}: not valid TOML ({e}); correct it there") from None
    if not isinstance(rules, list) or not rules or not all(isinstance(r, dict) for r in rules):
        raise BadInput(
            f'{path}: holds no [[rule]]; an example: [[rule]] dataset = "humaneval" metric = "accepted_at_1" '
            "min_change = -0.02"
        )
    for i, rule in enumerate(rules, 1):
        for key, value in rule.items():
            kind = GATE_KEYS.get(key)
            if kind is None:
                raise BadInput(f"{path}: rule {i} has an unknown key {key!r}; known are {', '.join(GATE_KEYS)}")
            number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            if not (number if kind is float else isinstance(value, kind)):
                raise BadInput(f"{path}: rule {i}: {key} = {value!r}, expected a {kind.__name__}")
            if key in GATE_WORDS and (unknown := [x for x in value if x not in GATE_WORDS[key]]):
                raise BadInput(f"{path}: rule {i}: {key} {unknown[0]!r} is none of {', '.join(GATE_WORDS[key])}")
        if rule.keys() != {"verdict"} and not {"dataset", "metric"} <= rule.keys():
            raise BadInput(f"{path}: rule {i} needs dataset and metric, or verdict alone")
        if not rule.keys() - {"dataset", "metric"}:
            raise BadInput(f"{path}: rule {i} sets no limit; give one of {', '.join(list(GATE_KEYS)[2:])}")
    return rules


def refuse_unknown_sets(path: Path, rules: Sequence[dict[str, Any]], evaluated: Iterable[str]) -> None:
    """Refuse a rule over a data set that is neither the contract's nor of these evaluations: a name with a slip.

    Args:
        path: the gate's file, for the message.
        rules: as `read_gate` read them.
        evaluated: names of the data sets of both sides.

    Raises:
        BadInput: names the rule and the sets there are.
    """
    known = dict.fromkeys([*EVAL_SETS, *evaluated])
    for i, rule in enumerate(rules, 1):
        if "dataset" in rule and rule["dataset"] not in known:
            raise BadInput(f"{path}: rule {i}: no data set {rule['dataset']!r}; there are {', '.join(known)}")


def check_gate(rules: Sequence[dict[str, Any]], e: Evidence, v: Verdict) -> list[str]:
    """One line for each rule that fails; a value that is missing fails its rule."""
    failed = []
    for rule in rules:
        undecided = v.word == "too_small" and "not_shown" in rule.get("verdict", ())
        if "verdict" in rule and v.word not in rule["verdict"] and not undecided:
            failed.append(f"verdict is {v.word}, allowed: {', '.join(map(str, rule['verdict']))}")
        if "metric" not in rule:
            continue
        name = f"{rule['dataset']} {rule['metric']}"
        value, change = e.value(1, rule["dataset"], rule["metric"]), e.change(rule["dataset"], rule["metric"])
        for key, seen, sign in (
            ("min", value, -1),
            ("max", value, 1),
            ("min_change", change, -1),
            ("max_change", change, 1),
        ):
            if key not in rule:
                continue
            what = "change of " + name if key.endswith("change") else name
            if seen is None:
                failed.append(f"{what} has no value, {key} is {rule[key]:g}")
            elif (seen - rule[key]) * sign > 1e-12:
                failed.append(f"{what} is {seen:.4g}, {key} is {rule[key]:g}")
        if "answer" in rule:
            row = next(
                (r for r in e.rows if (r.spec.dataset, r.spec.metric) == (rule["dataset"], rule["metric"])), None
            )
            answer = row.answer if row else "not a row of the tables"
            if answer not in rule["answer"] and not (OLD_ANSWER in rule["answer"] and answer in UNDECIDED):
                failed.append(f"{name}: the answer is {answer}, allowed: {', '.join(map(str, rule['answer']))}")
    return failed
