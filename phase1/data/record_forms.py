"""The forms in which people have training records: where question and answer stand in one JSON object.

`text`, which holds both (BEE's); `prompt` or `description` and `solution`; `instruction`, perhaps `input`, and `output`
(Alpaca's); `messages` of role and content; `conversations` of from and value (ShareGPT's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from phase1.contract.prompts import SYSTEM_PROMPT

_RESPONSE = re.compile(r"^###[ \t]*Response:?[ \t]*$", re.MULTILINE | re.IGNORECASE)
_PROMPT = re.compile(r"\A\s*###[ \t]*Prompt:?[ \t]*\n", re.IGNORECASE)
_LINE_END = re.compile(r"\r+\n|\r")
PAIRS = (("prompt", "solution"), ("description", "solution"), ("instruction", "output"))
TURNS = ("messages", "conversations")
SPEAKERS = {"human": "user", "gpt": "assistant"}  # ShareGPT's names of them
KNOWN = (
    "prompt and solution, nor description and solution, nor instruction and output, nor messages, nor conversations, "
    "nor text"
)


class BadRecord(Exception):
    """A record without a prompt and a response; the message says what is missing."""


@dataclass(frozen=True)
class Pair:
    """A question and its answer as they stand in a record, every line of them ended by "\\n"."""

    statement: str
    response: str


def pair_of(row: Mapping[str, JsonValue]) -> Pair:
    """Statement and response of a record.

    This is the only place where line ends are made one: decontamination, duplicates, --verify_solutions and the Parquet
    files all see what it gives.

    Raises:
        BadRecord: it has none of the known forms, or more than one question.
    """
    for question, answer in PAIRS:
        if question in row and answer in row:
            return _pair(row, question, answer)
    for key in TURNS:
        if key in row:
            return _turns(row[key], key)
    text = row.get("text")
    if not isinstance(text, str):
        keys = ", ".join(map(str, row)) or "none"
        raise BadRecord(f"it holds neither {KNOWN}; rename its keys, which are {keys}"[:400])
    parts = _RESPONSE.split(_newlines(text), maxsplit=1)
    if len(parts) == 1:
        raise BadRecord("text has no ### Response line")
    return Pair(_PROMPT.sub("", parts[0]), parts[1])


def _pair(row: Mapping[str, JsonValue], question: str, answer: str) -> Pair:
    statement, solution = row[question], row[answer]
    if not isinstance(statement, str) or not isinstance(solution, str | None):
        raise BadRecord(f"{question} and {answer} must be strings")
    more = row.get("input") if question == "instruction" else None
    if isinstance(more, str) and more.strip():
        statement = f"{statement}\n\n{more}"
    return Pair(_PROMPT.sub("", _newlines(statement)), _newlines(solution or ""))


def _turns(turns: JsonValue, key: str) -> Pair:
    """One question and its answer out of turns; a system turn goes, since every row gets the contract's."""
    if not isinstance(turns, list):
        raise BadRecord(f"{key} is a JSON {type(turns).__name__}, expected a list of turns")
    said: dict[str, str] = {}
    for turn in turns:
        role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
        text = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        if not isinstance(role, str) or not isinstance(text, str):
            raise BadRecord(f"a turn of {key} has no role and content, and no from and value, that are strings")
        role = SPEAKERS.get(role, role)
        if role in said:
            raise BadRecord(f"{key} has several {role} turns; make a record of each question and its answer")
        said[role] = text
    if said.get("system") == SYSTEM_PROMPT:
        raise BadRecord(f"{key} is a row that prepare_sft_data.py wrote; give it the records that it was made from")
    if not {"user", "assistant"} <= said.keys() <= {"system", "user", "assistant"}:
        raise BadRecord(f"{key} has turns of {', '.join(said) or 'nobody'}; expected one of user and one of assistant")
    return Pair(_newlines(said["user"]), _newlines(said["assistant"]))


def _newlines(text: str) -> str:
    """`text` with "\\n" for each CRLF, lone CR, and CR CR LF (a CRLF file that was written in text mode once more)."""
    return _LINE_END.sub("\n", text) if "\r" in text else text
