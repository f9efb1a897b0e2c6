"""The ids of an answer become text.

Backends return token ids, which are decoded here. A server's own text is decoded while it streams, and loses the end of
an answer that is not whole UTF-8.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from phase1.model.tokenizer import Tokenizer


class Answer(NamedTuple):
    """An answer. `reason`: `stop` or `length` (cut off); `tokens`: how many were generated, the end token included."""

    text: str
    reason: str
    tokens: int


def decode(tokenizer: Tokenizer, ids: list[int], stops: Collection[int]) -> Answer:
    """The answer in generated `ids`, which may go on behind the one of `stops` that ends it.

    Spaces are left alone whatever the tokenizer's settings say: the text is code.
    """
    end = next((at for at, token in enumerate(ids) if token in stops), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(text, "length", len(ids)) if end is None else Answer(text, "stop", end + 1)
