"""phase1.data.tokens: rows are measured as they are rendered."""

import pytest

from phase1.contract.prompts import answer, chat
from phase1.data.tokens import RowTokens
from phase1.model.tokenizer import load_tokenizer
from tests.data.prepared import prepare, record


@pytest.mark.slow  # imports transformers
def test_length_is_measured_as_verl_renders_the_row_and_special_tokens_are_dropped(tmp_path, monkeypatch, base_model):
    from transformers import AutoTokenizer

    records = [record(i) for i in range(4)] + [record(5, "x = 0\n" * 300), record(6, "x = '<|im_end|>'")]
    made = prepare(tmp_path, records, "--model", str(base_model), "--max_length", "400", monkeypatch=monkeypatch)
    assert [r["reason"] for r in made["rejects"]] == ["too_long", "special_token"]
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    lengths = [len(tokenizer.apply_chat_template(row)) for row in made["train"] + made["val"]]
    assert made["report"]["tokens"]["p100"] == max(lengths)


@pytest.mark.slow  # imports transformers
def test_a_template_that_is_no_constant_text_around_the_turns_is_rendered_row_by_row(base_model):
    tokenizer = load_tokenizer(base_model)
    fast = RowTokens(tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message.content", "('long' if message.content | length > 40 else 'short') + message.content"
    )
    slow = RowTokens(tokenizer)
    assert fast.around and not slow.around
    marks = 2 * len(tokenizer("long", add_special_tokens=False)["input_ids"])
    assert (
        sum(slow.count("Count. " * 9, answer("print(1)" * 9)))
        >= sum(fast.count("Count. " * 9, answer("print(1)" * 9))) + marks - 2
    )
    whole = tokenizer.apply_chat_template(chat("Count.", answer("print(1)")))
    assert sum(slow.count("Count.", answer("print(1)"))) == len(whole)
