"""Find a statement of one sentence ("Write a function to …") behind other words in front of it.

It has too few phrases of eight words to be told by their share (decontaminate.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SHORT = 80  # words: a longer record is a statement of its own
WINDOW = 5  # words of a sentence that are no phrase of the trade: found in a row anywhere in a short record
_ALONE = 3  # words of a sentence that is all that a record says
# "Write a Python function to", "Could you give me some code that": what a task is asked for with.
_LEAD = re.compile(
    r"\A(?:\w+ ){0,30}?(?:function|program|code|method|routine|script|procedure|snippet|solution|task) "
    r"(?:\w+ ){0,3}?(?:to|that|which|for) (?:can |will |should )?"
)


def told(words: Sequence[str]) -> tuple[str, ...]:
    """What a statement asks for: its words without the lead."""
    return tuple(_LEAD.sub("", " ".join(words) + " ", count=1).split())


class ShortStatements:
    """Statements of few words, ready to be found."""

    def __init__(self, statements: Iterable[Sequence[str]]) -> None:
        """Index statements, in words (decontaminate.words_of), numbered from 0; long ones are left out."""
        self._whole: dict[tuple[str, ...], int] = {}
        self._starts: dict[tuple[str, ...], list[tuple[tuple[str, ...], int]]] = {}
        for number, words in enumerate(statements):
            core = told(words)
            if not _ALONE <= len(core) <= SHORT // 2:
                continue
            self._whole.setdefault(core, number)
            if len(core) >= WINDOW:
                self._starts.setdefault(core[:_ALONE], []).append((core, number))

    def find(self, words: Sequence[str]) -> int | None:
        """The number of the statement that a record of these words is."""
        if len(words) > SHORT or not self._whole:
            return None
        if (found := self._whole.get(told(words))) is not None:
            return found
        for at, start in enumerate(zip(words, words[1:], words[2:], strict=False)):
            for core, number in self._starts.get(start, ()):
                if tuple(words[at : at + len(core)]) == core:
                    return number
        return None
