"""Expected against actual output: one rule a mode (`--compare`), on bytes.

    problem        the problem's own rule (phase1/contract/comparison.py), else `tokens`
    tokens         ours: tokens split at whitespace, equal as bytes; where the *expected* token is written as a decimal
                   (with a point or an exponent), a number within 1e-6, absolute or relative, will do
    verl           equal but for newlines at the end (verl 0.7.0, utils/reward_score/sandbox_fusion/utils.py:427)
    sandboxfusion  SandboxFusion's `check_stdio_test_case` (sandbox/utils/testing.py): as many lines, each equal after
                   strip and lower, or both a float and within 1e-5 relative
    codecontests   CodeContests' own tester (google-deepmind/code_contests, `OutputsMatch` of
                   execution/tester_sandboxer.cc): tokens in lower case, equal, or both a number and less than 1e-5
                   apart
    exact          the same bytes

`verl`, `sandboxfusion` and `codecontests` reproduce what other stages may have scored with, quirks included;
tests/judge/test_compare.py has the table. A problem that accepts any of several answers (`answers: many`) cannot be
judged by comparison in any mode.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from phase1.contract.comparison import PLAIN, Comparison

TOLERANCE = 1e-6
# A token without point or exponent is an integer and compares as text: beyond 2**53 a double cannot tell neighbours
# apart.
_DECIMAL = re.compile(rb"[+-]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)\Z")
# Unambiguous: `\d+\.?\d*` would try every split of a long row of digits, and a megabyte of them stop the judge for
# hours.
_NUMBER = re.compile(rb"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\Z")
# What absl::SimpleAtod reads: white space around it counts as nothing, and "+-1" is none. All is in lower case here.
_ABSL_NUMBER = re.compile(
    rb"\s*[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|(?P<nan>nan(?:\([a-z0-9_]*\))?)|"
    rb"(?P<hex>0x(?:[0-9a-f]+(?:\.[0-9a-f]*)?|\.[0-9a-f]+)(?:p[+-]?\d+)?))\s*\Z"
)
_ABSL_SPACES = re.compile(rb"[ \n\t\r\v]+")  # a form feed is none
_ABSL_TOLERANCE = 1e-5


def same_output(expected: bytes, actual: bytes, mode: str = "tokens", rule: Comparison = PLAIN) -> bool:
    """Whether `actual` answers a test whose answer is `expected`.

    Args:
        mode: one of MODES.
        rule: the problem's own, which the mode `problem` follows.
    """
    return _by_rule(expected, actual, rule) if mode == PROBLEM else _RULES[mode](expected, actual)


def _tokens(expected: bytes, actual: bytes) -> bool:
    return _by_rule(expected, actual, PLAIN)


def _by_rule(expected: bytes, actual: bytes, rule: Comparison) -> bool:
    if expected == actual:
        return True
    if rule.any_case:
        expected, actual = expected.lower(), actual.lower()
    want, got = expected.split(), actual.split()
    if len(want) != len(got):
        return False
    if want == got or _same_tokens(want, got, rule):
        return True
    return bool(rule.order) and _same_in_another_order(expected, actual, rule)


def _same_tokens(want: Sequence[bytes], got: Sequence[bytes], rule: Comparison) -> bool:
    return len(want) == len(got) and all(a == b or _close(a, b, rule) for a, b in zip(want, got, strict=True))


def _close(want: bytes, got: bytes, rule: Comparison) -> bool:
    if not _NUMBER.match(want) or not _NUMBER.match(got):
        return False
    # A jury's file may be written with fewer digits than the statement asks for: a rule is never stricter than none.
    tolerance = max(rule.tolerance, TOLERANCE if _DECIMAL.match(want) else 0.0)
    a, b = float(want), float(got)
    return tolerance > 0 and math.isfinite(a) and math.isfinite(b) and abs(a - b) <= tolerance * max(1.0, abs(a))


def _same_in_another_order(expected: bytes, actual: bytes, rule: Comparison) -> bool:
    """Whether the outputs are the same but for their order; both have as many tokens.

    Within every line, or, for `any`, whole lines: not both, or a line of pairs could come back with each pair turned.
    """
    want = [line.split() for line in expected.splitlines() if line.strip()]
    tokens = iter(actual.split())
    # What is on which line does not count in `tokens`: the actual tokens, dealt out to lines as long as the expected.
    dealt = [[next(tokens) for _ in line] for line in want]
    if all(_same_tokens(_sorted(a), _sorted(b), rule) for a, b in zip(want, dealt, strict=True)):
        return True
    if rule.order != "any":
        return False
    own = [line.split() for line in actual.splitlines() if line.strip()]
    return any(_same_lines(want, lines, rule) for lines in (own, dealt))


def _same_lines(want: list[list[bytes]], got: list[list[bytes]], rule: Comparison) -> bool:
    def key(line: list[bytes]) -> list[tuple[float, bytes]]:
        return [_rank(token) for token in line]

    pairs = zip(sorted(want, key=key), sorted(got, key=key), strict=False)
    return len(want) == len(got) and all(_same_tokens(a, b, rule) for a, b in pairs)


def _sorted(tokens: Sequence[bytes]) -> list[bytes]:
    return sorted(tokens, key=_rank)


def _rank(token: bytes) -> tuple[float, bytes]:
    """Numbers by value, so that nearly equal ones stand at the same place; whatever else behind them."""
    return (float(token) if _NUMBER.match(token) else math.inf, token)


def _verl(expected: bytes, actual: bytes) -> bool:
    return expected.rstrip(b"\n") == actual.rstrip(b"\n")


def _sandboxfusion(expected: bytes, actual: bytes) -> bool:
    want, got = (text.decode("utf-8", "replace").strip().split("\n") for text in (expected, actual))
    return len(want) == len(got) and all(
        _same_line(a.lower().strip(), b.lower().strip()) for a, b in zip(want, got, strict=True)
    )


def _same_line(want: str, got: str) -> bool:
    if want == got:
        return True
    try:
        a, b = float(want), float(got)
    except ValueError:
        return False
    return abs(b - a) / max(abs(a), 1e-10) < 1e-5  # inf - inf and nan compare false, as there


def _codecontests(expected: bytes, actual: bytes) -> bool:
    want, got = (_absl_tokens(text.lower()) for text in (expected, actual))
    # Equal as a whole they match; else a token that is nan or infinite equals nothing, not even itself.
    return want == got or (len(want) == len(got) and all(_same_value(a, b) for a, b in zip(want, got, strict=True)))


def _absl_tokens(text: bytes) -> list[bytes]:
    if b"\x0c" not in text:  # the one byte that only Python takes for a separator
        return text.split()
    return [token for token in _ABSL_SPACES.split(text) if token]


def _same_value(want: bytes, got: bytes) -> bool:
    a, b = _absl_double(want), _absl_double(got)
    if a is None or b is None:
        return want == got
    return abs(a - b) < _ABSL_TOLERANCE  # of integers too, so that beyond 2**53 neighbours are equal


def _absl_double(token: bytes) -> float | None:
    """The number that a token in lower case is; None where it is none."""
    found = _ABSL_NUMBER.match(token)
    if found is None:
        return None
    if found["hex"]:
        try:
            return float.fromhex(token.decode("ascii"))
        except (OverflowError, ValueError):  # too large: ValueError for an exponent of hundreds of digits
            return math.inf
    return math.nan if found["nan"] else float(token)


def _exact(expected: bytes, actual: bytes) -> bool:
    return expected == actual


PROBLEM = "problem"
_RULES = {
    "tokens": _tokens,
    "verl": _verl,
    "sandboxfusion": _sandboxfusion,
    "codecontests": _codecontests,
    "exact": _exact,
}
MODES = (PROBLEM, *_RULES)
SHOWN = ("exact", "tokens", "codecontests")  # under which every program's verdict is known beside the one that counts


def narrow(accepted_under: dict[str, bool], expected: bytes, actual: bytes) -> None:
    """Take a program's next output into account: of the modes in SHOWN, those under which all were right stay true."""
    if expected == actual:
        return
    for mode, so_far in accepted_under.items():
        accepted_under[mode] = so_far and same_output(expected, actual, mode)
