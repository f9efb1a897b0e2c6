"""A problem's own rule for outputs, where more than one is right: keys of its `test_cases`, beside `tests`.

    "compare": {"case": "any", "tolerance": 1e-6, "order": "any"}, "answers": "many"
    "checker": {"kind": "python", "source": "..."}

Every key is optional, and only problems that print have them. `compare` accepts what the plain comparison (tokens)
accepts and more, never less; a checker (phase1/judge/checkers.py) decides alone. Rules are data: prepare_eval_data.py
reads them out of the statement, and who corrects the raw file is obeyed. phase1/judge/compare.py says what each means
for two outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ORDERS = ("any", "in_line")  # of lines or of the tokens of a line; of the tokens of a line alone
ANSWERS = ("one", "many")
PYTHON, TESTLIB = CHECKERS = ("python", "testlib")
_KEYS = {"case": "any", "tolerance": "a number between 0 and 1", "order": " or ".join(ORDERS)}


@dataclass(frozen=True)
class Checker:
    """A program that decides whether an output is right: one of CHECKERS, and its source."""

    kind: str
    source: str


@dataclass(frozen=True)
class Comparison:
    """How the outputs of one problem are compared.

    Attributes:
        any_case: upper and lower case are the same (ASCII).
        tolerance: largest absolute or relative error of a number; 0 where the problem names none.
        order: one of ORDERS; "" where the order counts.
        many_answers: other answers than the recorded one are right too, so a `wrong_answer` may be none.
        checker: what decides instead, None where outputs are compared.
    """

    any_case: bool = False
    tolerance: float = 0.0
    order: str = ""
    many_answers: bool = False
    checker: Checker | None = None

    @property
    def words(self) -> str:
        """The rule in words, such as "case any, tolerance 1e-06"; "" for the plain one."""
        if self.checker:
            return f"checker {self.checker.kind}"
        told = ["case any"] if self.any_case else []
        told += [f"tolerance {self.tolerance:g}"] if self.tolerance else []
        told += [f"order {self.order}"] if self.order else []
        told += ["answers many"] if self.many_answers else []
        return ", ".join(told)


PLAIN = Comparison()


def comparison_of(cases: Mapping[str, Any]) -> Comparison:
    """The rule in a problem's `test_cases`, of a form that `wrong_in_comparison` has checked; PLAIN where none is."""
    if checker := cases.get("checker"):
        return Comparison(checker=Checker(checker["kind"], checker["source"]))
    told = cases.get("compare") or {}
    return Comparison(
        any_case=told.get("case") == "any",
        tolerance=float(told.get("tolerance") or 0),
        order=told.get("order") or "",
        many_answers=cases.get("answers") == "many",
    )


def wrong_in_comparison(cases: Mapping[str, Any]) -> str:
    """What is wrong with the rule in a problem's `test_cases`, in words; "" when all is well."""
    told, answers = cases.get("compare"), cases.get("answers")
    if answers is not None and answers not in ANSWERS:
        return f"test_cases.answers is {answers!r}, expected {' or '.join(ANSWERS)}"
    checker = cases.get("checker")
    for key, value in (("compare", told), ("checker", checker)):
        if value is not None and cases.get("type") != "codecontests":
            return f"test_cases.{key} is for tests with outputs, and asserts have none; take it out"
    if checker is not None:
        kind, source = (checker.get("kind"), checker.get("source")) if isinstance(checker, dict) else (None, None)
        if kind not in CHECKERS or not isinstance(source, str) or not source.strip():
            return f"test_cases.checker is not {{kind, source}}: {' or '.join(CHECKERS)}, and the text of a program"
    if told is None:
        return ""
    if not isinstance(told, dict):
        return f"test_cases.compare is a {type(told).__name__}, expected an object with {', '.join(_KEYS)}"
    for key, value in told.items():
        if key not in _KEYS:
            return f"test_cases.compare.{key} is no rule, expected {', '.join(_KEYS)}"
        if key == "tolerance":
            sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
        else:
            sound = value in (("any",) if key == "case" else ORDERS)
        if not sound:
            return f"test_cases.compare.{key} is {value!r}, expected {_KEYS[key]}"
    return ""
