"""Records of BEE-spoke-data/code_contests_instruct: find statement and solution, and say what is wrong with a solution.

A record is one JSON object a line (contract 2): `name`, `source`, `language` and `text`, which holds the prompt and the
fenced response, or another form of phase1/data/record_forms.py.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

from pydantic import JsonValue

from phase1.contract.compile_apart import compile_error
from phase1.data.python2 import python2_need
from phase1.data.python2_names import mentions_python2
from phase1.data.record_forms import BadRecord, pair_of

# "In Python3, your task is to solve the following problem: " and its kin: one sentence that names Python and ends in a
# colon. Sentence marks may not stand before the colon, so a statement's own first sentence is left alone.
_LEAD = re.compile(
    r"\A\s*(?=[^\n]{0,240}\b(?:problem|task|challenge|question|exercise)\b)"
    r"[^\n.:!?]{0,160}\bpython(?:\s?3)?(?:\.\d+)?\b[^\n.:!?]{0,160}:\s*",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^[ \t]*```[ \t]*[\w+.#-]*[ \t]*\n", re.MULTILINE)
_CLOSING = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class BeeRecord:
    """One training problem with one solution. `statement` has no lead sentence, no fence and no section marks."""

    name: str
    source: int | None  # 2 = Codeforces, …: the CodeContests enum
    language: str
    statement: str
    solution: str  # empty where the record has none


def parse_record(row: dict[str, JsonValue]) -> BeeRecord:
    """The record in one JSON object.

    Raises:
        BadRecord: it has no statement, no place for a solution, or half a character in one of them.
    """
    pair = pair_of(row)
    statement, solution = pair.statement, pair.response
    statement = _LEAD.sub("", statement, count=1).strip()
    if not statement:
        raise BadRecord("the statement is empty")
    try:
        statement.encode(), solution.encode()
    except UnicodeEncodeError as e:  # JSON can write half a character (\ud800); tokenizers and Parquet refuse it
        raise BadRecord(f"half a character in it: {e.object[e.start]!r}") from None
    name, source, language = row.get("name"), row.get("source"), row.get("language")
    return BeeRecord(
        name=name if isinstance(name, str) else "",
        source=source if isinstance(source, int) else None,
        language=language.strip() if isinstance(language, str) else "",
        statement=statement,
        solution=code_of(solution),
    )


def code_of(response: str) -> str:
    """The program in a response: its longest fenced block (an unclosed one takes the rest), else all of it.

    Blank lines around it are dropped, indentation is kept, trailing blanks of the last line are cut.
    """
    blocks = []
    at = 0
    while opening := _OPENING.search(response, at):
        closing = _CLOSING.search(response, opening.end())
        at = closing.end() if closing else len(response)
        blocks.append(response[opening.end() : closing.start() if closing else at])
    code = max(blocks, key=len) if blocks else response
    return re.sub(r"\A(?:[ \t]*\n)+", "", code).rstrip()


# -------------------------------------------------------------------------------------------------- what Python it is
_PYTHON2_SYNTAX = re.compile(
    r"""^[ \t]*(?:[^#'"\n]*[:;][ \t]*)?          # at the start of a line, or behind a colon or semicolon
        (?: print[ \t]+[^\s=(.,\[] | print[ \t]*>> | exec[ \t]+['"\w]
          | raise[ \t]+\w+[ \t]*, | except[ \t]+[\w.]+[ \t]*,[ \t]*\w+[ \t]*: )
      | ^[ \t]*print[ \t]*\(.*\)[ \t]*(?:%|,[ \t]*$)
      | \bprint[ \t]*$ | <> | \b\d+L\b | \b0[0-7]+\b | `""",
    re.MULTILINE | re.VERBOSE,
)


def python_fault(code: str) -> str | None:
    """Why `code` is no Python 3 program: "python2", "syntax_error", or None. It is compiled, never executed.

    What compiles under Python 3 is "python2" where it needs what only Python 2 has when it runs
    (phase1/data/python2.py). The rules are those of lib2to3's fixers that change meaning, cut to contest programs.

    Very deep nesting can overflow the stack of some interpreters and kill the process: call this in a worker whose
    death the caller survives.
    """
    if compile_error(code):
        return "python2" if _PYTHON2_SYNTAX.search(code) else "syntax_error"
    # Parsing again and walking the tree cost as much as all the rest, so only where there is something to look for.
    if not mentions_python2(code):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parser, as in compile_error
        return "python2" if python2_need(code) else None
