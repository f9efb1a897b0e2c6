"""Expected against actual output: one rule a mode (`--compare`), on bytes.

    tokens         ours: tokens split at whitespace, equal as bytes; where the *expected* token is written as a decimal
                   (with a point or an exponent), a number within 1e-6, absolute or relative, will do
    verl           equal but for newlines at the end (verl 0.7.0, utils/reward_score/sandbox_fusion/utils.py:427)
    sandboxfusion  SandboxFusion's `check_stdio_test_case` (sandbox/utils/testing.py): as many lines, each equal after
                   strip and lower, or both a float and within 1e-5 relative
    exact          the same bytes

`verl` and `sandboxfusion` reproduce what other stages may have scored with, quirks included;
tests/judge/test_compare.py has the table. A problem that accepts any of several answers cannot be judged by comparison
in any mode.
"""

from __future__ import annotations

import math
import re

TOLERANCE = 1e-6
# A token without point or exponent is an integer and compares as text: beyond 2**53 a double cannot tell neighbours
# apart.
_DECIMAL = re.compile(rb"[+-]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)\Z")
# Unambiguous: `\d+\.?\d*` would try every split of a long row of digits, and a megabyte of them stop the judge for
# hours.
_NUMBER = re.compile(rb"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\Z")


def same_output(expected: bytes, actual: bytes, mode: str = "tokens") -> bool:
    """Whether `actual` answers a test whose answer is `expected`, by the rule `mode` (one of MODES)."""
    return _RULES[mode](expected, actual)


def _tokens(expected: bytes, actual: bytes) -> bool:
    if expected == actual:
        return True
    want, got = expected.split(), actual.split()
    return want == got or (
        len(want) == len(got) and all(a == b or _close(a, b) for a, b in zip(want, got, strict=True))
    )


def _close(want: bytes, got: bytes) -> bool:
    if not _DECIMAL.match(want) or not _NUMBER.match(got):
        return False
    a, b = float(want), float(got)
    return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= TOLERANCE * max(1.0, abs(a))


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


def _exact(expected: bytes, actual: bytes) -> bool:
    return expected == actual


_RULES = {"tokens": _tokens, "verl": _verl, "sandboxfusion": _sandboxfusion, "exact": _exact}
MODES = tuple(_RULES)
