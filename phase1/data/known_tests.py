"""Find the asserts of an evaluation problem in a training record, whatever else it says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SHARE = 0.6  # of a problem's asserts that must be there
NAMELESS = 40  # characters of asserts from which they tell a problem without the name of the function
_ASSERT = re.compile(r"\bassert\b[ \t(]*([^\n]+)")
_CALL = re.compile(r"[A-Za-z_]\w*\(")
_PLAIN = str.maketrans("'", '"', " \t\r")


@dataclass(frozen=True)
class TestsFound:
    """The problem whose asserts stand in a text: its number, and the share of them that does."""

    number: int
    score: float


def asserts_of(text: str) -> set[str]:
    """The asserts of a text, a line each, without white space."""
    return {line.translate(_PLAIN) for line in _ASSERT.findall(text)} if "assert" in text else set()


def _nameless(asserts: Iterable[str]) -> set[str]:
    """Asserts with every function in them called alike."""
    return {_CALL.sub("f(", line) for line in asserts}


class KnownTests:
    """The asserts of evaluation problems, ready to be found."""

    def __init__(self, tests: Iterable[Iterable[str]]) -> None:
        """Index the asserts.

        Args:
            tests: of each problem, numbered from 0, the texts that its asserts stand in.
        """
        self._named: list[set[str]] = [asserts_of("\n".join(texts)) for texts in tests]
        self._plain = [_nameless(asserts) for asserts in self._named]
        self._where: dict[str, list[int]] = {}
        for number, (named, plain) in enumerate(zip(self._named, self._plain, strict=True)):
            for line in named | plain:
                self._where.setdefault(line, []).append(number)

    def find(self, text: str) -> TestsFound | None:
        """The problem most of whose asserts stand in `text`."""
        named = asserts_of(text)
        if not named or not self._where:
            return None
        plain = _nameless(named)
        met = Counter(number for line in named | plain for number in self._where.get(line, ()))
        scores = {number: self._score(number, named, plain) for number in met}
        best = max(scores, key=lambda number: (scores[number], -number), default=None)
        return None if best is None or not scores[best] else TestsFound(best, round(scores[best], 4))

    def _score(self, number: int, named: set[str], plain: set[str]) -> float:
        """The share of a problem's asserts among these; 0.0 where it is too small to tell."""
        score = len(self._named[number] & named) / len(self._named[number])
        if score >= SHARE:
            return score
        alike = self._plain[number] & plain
        score = len(alike) / len(self._plain[number])
        return score if score >= SHARE and sum(map(len, alike)) >= NAMELESS else 0.0
