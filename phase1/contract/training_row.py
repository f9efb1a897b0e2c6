"""One row of training data: whether it can be trained on, and whether it has the form that evaluation asks for.

A row is the `messages` of a Parquet file: turns of `role` and `content`. prepare_sft_data.py writes system, user and
assistant (phase1/contract/prompts.py, `chat`); rows that others wrote may hold more turns, or no system turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from phase1.contract.extraction import extract_code
from phase1.contract.prompts import SYSTEM_PROMPT, TAG

ROLES = ("system", "user", "assistant")  # of the rows that prepare_sft_data.py writes


@dataclass(frozen=True)
class TrainingRow:
    """What the messages of a row hold.

    Attributes:
        fault: why the row cannot be trained on, with what to do about it; "" where it can.
        roles: who speaks, turn by turn. Empty, as are the two texts, where the messages are no list of turns.
        question: the last user turn; "" where there is none.
        program: what evaluation would take for the program out of the last turn (`extract_code`).
        evaluation_prompt: whether the first turn is the system prompt that evaluation sends.
        tagged: whether the last turn begins with the tag, as every answer should that evaluation asks for.
    """

    fault: str
    roles: tuple[str, ...] = ()
    question: str = ""
    program: str = ""
    evaluation_prompt: bool = False
    tagged: bool = False

    @property
    def three_turns(self) -> bool:
        """Whether the turns are those of a row that prepare_sft_data.py writes."""
        return self.roles == ROLES


def read_training_row(messages: object) -> TrainingRow:
    """Look at one row, whatever it holds: a value of the column `messages` as Python objects."""
    turns = messages if isinstance(messages, Sequence) and not isinstance(messages, str | bytes) else None
    if turns is None or not all(isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in turns):
        return TrainingRow("messages is no list of turns with role and content; prepare the data again")
    roles = tuple(str(turn["role"]) for turn in turns)
    fault = _wrong_turns(roles)
    texts = [turn["content"] for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        fault = fault or "a turn's content is not text; verl ends in a TypeError; prepare the data again"
        return TrainingRow(fault, roles)
    reply = texts[-1] if texts else ""
    if not fault and not reply.strip():
        fault = "an empty answer, nothing to learn; drop the row"
    questions = [text for role, text in zip(roles, texts, strict=True) if role == "user"]
    return TrainingRow(
        fault,
        roles,
        question=questions[-1] if questions else "",
        program=extract_code(reply),
        evaluation_prompt=roles[:1] == ("system",) and texts[0] == SYSTEM_PROMPT,
        tagged=reply.lstrip().lower().startswith(TAG),
    )


def _wrong_turns(roles: tuple[str, ...]) -> str:
    """What is wrong with the order of the turns; verl trains on every assistant turn (multiturn_sft_dataset.py)."""
    if roles and roles[0] != "assistant" and roles[-1] == "assistant":
        return ""
    return (
        f"turns {list(roles)}; verl trains on what it was not asked to; start with system or user, end with assistant"
    )
