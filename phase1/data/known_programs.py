"""Find the reference program of an evaluation problem in a training record's program, whatever its statement says.

A program is the names of its functions and the set of its other lines, without white space, brackets, comments,
docstrings and imports. A record is an evaluation problem where its program is hardly anything but the reference
program: a helper that half the world writes (`is_prime`, a sieve) inside of a longer program is none, and a short
program (`return n*n`) is one only under the name of its function. tests/bench/bench_decontaminate.py measures both
sides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

COMMON = 2  # reference programs that may share a line, or the name of a function, before it tells none of them
PART, MAIN_PART = 0.3, 0.5  # of the record's program, in characters, that must be known: under its name, under another
SAME = 0.9  # share of a reference program from which it is there as a whole
LONG = 40  # characters of lines of its own without which a program is told by its name and as a whole alone
_DOCSTRING = re.compile(r'("""|\'\'\').*?\1', re.DOTALL)
_COMMENT = re.compile(r"#[^\n]*")
_DEFINED = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_NO_LINE = ("import", "from", "def", "asyncdef")
_PLAIN = str.maketrans("';", '"\n', " \t\r()")  # what authors and formatters write as they like


@dataclass(frozen=True)
class Likeness:
    """The reference program that a program is: its number, and the share of it that is there, 0 to 1."""

    number: int
    score: float


def lines_of(program: str) -> set[str]:
    """The lines of a program without what may stand there in any form."""
    if '"""' in program or "'''" in program:
        program = _DOCSTRING.sub("", program)
    if "#" in program:
        program = _COMMENT.sub("", program)
    return set(program.translate(_PLAIN).split("\n"))


def _telling(lines: set[str]) -> set[str]:
    """Those lines that are no imports and no headers of functions."""
    return {line for line in lines if line and not line.startswith(_NO_LINE)}


@dataclass(frozen=True)
class _Known:
    """A reference program: the names of its functions, its lines, and their characters."""

    names: frozenset[str]
    lines: set[str]
    size: int


class KnownPrograms:
    """Reference programs, ready to be found."""

    def __init__(self, programs: Iterable[str], threshold: float) -> None:
        """Index the programs, which are numbered from 0; an empty one is never found.

        Args:
            programs: reference programs.
            threshold: share of a program's characters, 0 to 1, from which a record's program is taken for it.
        """
        self.threshold = threshold
        self._known = []
        for program in programs:
            lines, names = _telling(lines_of(program)), frozenset(_DEFINED.findall(program))
            self._known.append(_Known(names, lines, _size(lines) + _size(names)))
        shared = Counter(line for known in self._known for line in known.lines)
        called = Counter(name for known in self._known for name in known.names)
        self._names = {name for name, count in called.items() if count <= COMMON}
        self._rare: dict[str, list[int]] = {}  # a line that tells programs, and which
        for number, known in enumerate(self._known):
            fewest = min((shared[line] for line in known.lines), default=0)
            for line in known.lines:
                if shared[line] <= max(COMMON, fewest):  # a program of common lines alone has some as well
                    self._rare.setdefault(line, []).append(number)

    def find(self, program: str) -> Likeness | None:
        """The reference program that `program` is; None where it is none or only holds one among much else."""
        lines = lines_of(program)
        rare = lines & self._rare.keys()
        if not rare:
            return None
        lines, names = _telling(lines), frozenset(_DEFINED.findall(program))
        size = _size(lines) + _size(names)
        best = None
        for number in sorted({number for line in rare for number in self._rare[line]}):
            score = self._score(self._known[number], lines, names, size)
            if score and (best is None or score > best.score):
                best = Likeness(number, score)
        return best

    def _score(self, known: _Known, lines: set[str], names: frozenset[str], size: int) -> float:
        """The share of a reference program in a program; 0.0 where that does not make it the same."""
        alike, named = known.lines & lines, known.names & names
        both = _size(alike) + _size(named)
        score, part = both / known.size, both / size
        long = _size(line for line in alike if line in self._rare) >= LONG  # more than two authors write alike
        if score == part == 1.0:  # to the last line
            return score
        if named & self._names:
            return score if part >= PART and score >= (self.threshold if long else SAME) else 0.0
        score = _size(alike) / (known.size - _size(known.names))
        return score if part >= MAIN_PART and score >= SAME and long else 0.0


def _size(lines: Iterable[str]) -> int:
    return sum(map(len, lines))
