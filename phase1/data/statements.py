"""What a statement says of its answers: how they are compared, whether several are right, whether it is a dialogue.

All of it is an estimate: phrases are read, not meaning. A rule that was read stands in the raw file, where one can see
and correct it.
"""

from __future__ import annotations

import re

from pydantic import JsonValue

_MULTI_ANSWER = re.compile(
    r"(?:if|when|in case)\s+there\s+(?:are|is|exist|exists)\s+(?:several|multiple|many|more\s+than\s+one)"
    r"[^.]{0,80}?(?:print|output|find|choose|you\s+(?:can|may))\s+any"
    r"|(?:print|output|find|return|choose)\s+any\s+(?:one\s+)?of\s+(?:them|these|the)"
    r"|(?:can|may)\s+(?:print|output|choose|find)\s+any(?!\s+(?:letter|number\s+of))"
    r"|any\s+(?:valid|correct|suitable|possible|such|of\s+the\s+possible)\s+(?:answer|solution|sequence|output)s?"
    r"(?:\s+(?:is|are|will\s+be|would\s+be))?\s*(?:accepted|allowed|acceptable|\.)",
    re.IGNORECASE,
)
# Never "flush" alone: a royal flush is no dialogue.
_INTERACTIVE = re.compile(
    r"(?<!non-)(?<!not an )\binteractive\s+(?:problem|task)|\binteraction\s+(?:protocol|section)"
    r"|\bflush\w*\s+(?:the\s+|your\s+)?(?:standard\s+)?(?:output|stdout|buffer|stream)|\bfflush\b|\bstdout\.flush\b",
    re.IGNORECASE,
)
_ANY_CASE = re.compile(
    r"(?:print|output|letter|character|display|writ(?:e|ten)|answer|respon|\byes\b)[^.]{0,120}?"
    r"\bin\s+(?:any|either|arbitrary)\s+(?:letter\s+)?(?:case|register)\b"
    r"|(?:print|output|answer|checker)[^.]{0,80}?\b(?:case[\s-]?insensitive"
    r"|case\s+(?:of\s+(?:the\s+)?(?:letters?|characters?|output|answer)\s+)?(?:does\s+not|doesn't)\s+matter)",
    re.IGNORECASE,
)
# A power of ten as the statements of CodeContests write it: 10^{-6}, 10^{ - 6}, 10 - 6, 10**-6, 1e-6, 0.000001.
_POWER = (
    r"(?:\b10\s*(?:\^|\*\*|<sup>)?\s*[{(]?\s*[-−–]\s*(?P<power>\d{1,2})(?!\d)"
    r"|\b1(?:\.0*)?\s*e\s*[-−–]\s*(?P<exponent>\d{1,2})(?!\d)|(?<![\d.])0\.(?P<zeros>0*)1(?!\d))"
)
_ERROR = re.compile(
    r"\b(?:errors?|accura\w+|precision|tolerance)\b(?P<between>(?:(?!\.\s|\n\s*\n).){0,160}?)" + _POWER,
    re.IGNORECASE | re.DOTALL,
)
# "Error" has other meanings: what bounds it stands between the word and the number, or "absolute" before it.
_BOUND = re.compile(
    r"absolute|relative|precis|accura|allow|exceed|at\s+most|than|less|within|up\s+to|smaller|≤|<|\\le|\bof\b", re.I
)
_ANY_ORDER = re.compile(
    r"\b(?:print|output|display|enumerate)\w*\b(?P<between>[^.]{0,120}?)\bin\s+(?:any|arbitrary)\s+order\b",
    re.IGNORECASE,
)
# What is done in any order, instead of printed: "print the score if the cards can be taken in any order".
_DOING = re.compile(
    r"\b(?:if|such|perform|appl(?:y|ied)|operat|rearrang|permut|choos|chose|visit|select|eras|remov|mov|tak|play)\w*",
    re.I,
)
_SEVERAL_CASES = re.compile(
    r"\btest\s*cases?\b|\bdata\s*sets?\b|\beach\s+(?:test|query)\b|\bqueries\b|\bindependent\s+tests\b", re.IGNORECASE
)
MOST_DIGITS = 12  # of a tolerance; 10 - 15 near the word "error" is a difference


def accepts_any_answer(statement: str) -> bool:
    """Whether a statement says that any of several answers is right."""
    return bool(_MULTI_ANSWER.search(statement))


def is_interactive(statement: str) -> bool:
    """Whether a program and the judge would talk with each other: no recorded output can judge that."""
    return bool(_INTERACTIVE.search(statement))


def tolerance_told(statement: str) -> float | None:
    """The largest error that a statement allows a number; None where it names none. The loosest of several."""
    found = []
    for match in _ERROR.finditer(statement):
        before = statement[max(0, match.start() - 40) : match.start()]
        if not _BOUND.search(before + match[0]):
            continue
        zeros = match["zeros"]
        digits = len(zeros) + 1 if zeros is not None else int(match["power"] or match["exponent"])
        if 1 <= digits <= MOST_DIGITS:
            found.append(float(f"1e-{digits}"))
    return max(found, default=None)


def comparison_told(statement: str) -> dict[str, JsonValue]:
    """The `compare` of a problem's test_cases that its statement tells (phase1/contract/comparison.py); {} for none.

    Where one input holds several test cases, only the tokens of a line may change places: the answers to the cases
    stand on lines of their own, and those have an order.
    """
    rule: dict[str, JsonValue] = {}
    if _ANY_CASE.search(statement):
        rule["case"] = "any"
    if tolerance := tolerance_told(statement):
        rule["tolerance"] = tolerance
    if any(not _DOING.search(m["between"]) for m in _ANY_ORDER.finditer(statement)):
        rule["order"] = "in_line" if _SEVERAL_CASES.search(statement) else "any"
    return rule


def with_rule(cases: dict[str, JsonValue], statement: str) -> dict[str, JsonValue]:
    """A problem's `test_cases` with what its statement tells of its answers; what stands in it already stays.

    Tests that are asserts have no outputs to compare and stay as they are.
    """
    if cases.get("type") != "codecontests":
        return cases
    told: dict[str, JsonValue] = {}
    if rule := comparison_told(statement):
        told["compare"] = rule
    if accepts_any_answer(statement):
        told["answers"] = "many"
    return {**told, **cases} if told else cases
