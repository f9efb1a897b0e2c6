"""The worked examples in a contest statement, as tests of its solutions.

Statements of CodeContests write them as text: a line `Examples` (or `Example`, `SAMPLE INPUT`), then blocks headed
`Input` and `Output`, then perhaps `Note` or `Explanation`. What cannot be told apart for sure gives no test: a right
solution must not be dropped over a statement that was read wrongly.
"""

from __future__ import annotations

import re

from phase1.data.statements import is_interactive

_NUMBER = r"(?:\s*#?\s*\d+)?\s*:?\s*\Z"
_SECTION = re.compile(
    rf"\s*(?:sample|example)s?(?:\s+(?:tests?|cases?|test\s+cases?|inputs?\s+and\s+outputs?))?{_NUMBER}", re.IGNORECASE
)
_INPUT = re.compile(rf"\s*(sample\s+|example\s+)?inputs?{_NUMBER}", re.IGNORECASE)
_OUTPUT = re.compile(rf"\s*(?:sample\s+|example\s+)?outputs?{_NUMBER}", re.IGNORECASE)
_END = re.compile(
    r"\s*(?:notes?|explanations?|hints?|constraints?|scoring|subtasks?|limits?|warning)\b(?:\s*:|\s*\Z|\s+of\b)",
    re.IGNORECASE,
)
# After a blank line, five words in a row: an explanation that no heading announces.
_PROSE = re.compile(r"\n\s*\n[^\n]*?[A-Za-z']+(?:,? [A-Za-z']+){4}")


def examples(statement: str) -> list[dict[str, str]]:
    """The examples of a statement as tests {"input", "output"}; empty where there are none or one cannot be trusted.

    An interactive problem has none: its examples show a dialogue.
    """
    if is_interactive(statement):
        return []
    pairs: list[dict[str, list[str]]] = []
    within = False  # behind the line that opens the examples; before it, Input and Output are the statement's sections
    block: list[str] | None = None
    for line in statement.split("\n"):
        if found := _INPUT.match(line):
            within = within or bool(found[1])
            block = []
            if within:
                pairs.append({"input": block})
        elif within and pairs and _OUTPUT.match(line):
            block = []
            pairs[-1].setdefault("output", block)
        elif _SECTION.match(line):
            within, block = True, None
        elif _END.match(line):
            block = None
        elif block is not None:
            block.append(line)
    tests = [{side: "\n".join(block).strip() + "\n" for side, block in pair.items()} for pair in pairs]
    good = all(_trusted(test) for test in tests)
    return tests if good else []


def _trusted(test: dict[str, str]) -> bool:
    """Whether a test has both sides, no picture, and no explanation that was taken for output."""
    if test.keys() != {"input", "output"} or not test["output"].strip():
        return False
    return "<image>" not in "".join(test.values()) and not _PROSE.search(test["output"])
