"""phase1.contract.training_row: what trainer and evaluation must find in a row."""

import pytest

from phase1.contract.prompts import SYSTEM_PROMPT, answer, chat
from phase1.contract.training_row import read_training_row


def turn(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def test_a_row_as_training_writes_it_has_no_fault_and_gives_question_and_program_back():
    row = read_training_row(chat("Add.", answer("print(1)")))
    assert (row.fault, row.question, row.program) == ("", "Add.", "print(1)")
    assert row.three_turns and row.evaluation_prompt and row.tagged


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (None, "no list of turns"),
        ("text", "no list of turns"),
        ([{"role": "user"}], "no list of turns"),
        ([["user", "Add."]], "no list of turns"),
        ([], "turns []"),
        (chat("Add."), "turns ['system', 'user']"),
        ([turn("assistant", "1"), turn("user", "Add."), turn("assistant", "1")], "turns ['assistant', 'user', "),
        ([turn("user", "Add."), turn("assistant", None)], "content is not text"),
        (chat("Add.", " \n"), "an empty answer"),
    ],
    ids=["none", "text", "no-content", "no-dict", "no-turn", "no-answer", "answer-first", "no-text", "blank-answer"],
)
def test_what_cannot_be_trained_on_is_told(messages, fault):
    assert fault in read_training_row(messages).fault


def test_a_row_of_others_can_be_trained_on_and_its_other_form_shows():
    row = read_training_row([turn("user", "Add."), turn("assistant", "```python\nprint(1)\n```")])
    assert (row.fault, row.program) == ("", "print(1)")
    assert not (row.three_turns or row.evaluation_prompt or row.tagged)


@pytest.mark.parametrize(
    ("system", "own"), [(SYSTEM_PROMPT, True), (SYSTEM_PROMPT + " ", False), ("Be brief.", False)], ids=range(3)
)
def test_the_system_prompt_is_compared_to_the_letter(system, own):
    rows = [turn("system", system), turn("user", "Add."), turn("assistant", "1")]
    assert read_training_row(rows).evaluation_prompt is own


@pytest.mark.parametrize(
    ("reply", "tagged"),
    [("<code>1</code>", True), ("\n <CODE>1", True), ("Sure: <code>1</code>", False), ("1", False)],
    ids=["tag", "upper-case", "words-before", "bare"],
)
def test_an_answer_begins_with_the_tag(reply, tagged):
    assert read_training_row(chat("Add.", reply)).tagged is tagged
