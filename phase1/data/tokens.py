"""How many tokens a training row has under a model's own tokenizer and chat template, counted fast."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from phase1.contract.prompts import answer
from phase1.model.tokenizer import Tokenizer, chat_text


class RowLength(NamedTuple):
    """Tokens of a row before its answer, and those of the answer and the end of its turn, which are trained."""

    prompt: int
    trained: int


class _Around(NamedTuple):
    """A template's text before the user turn, between it and the answer, and behind the answer."""

    before: str
    between: str
    behind: str


class RowTokens:
    """Counts the tokens of a row's prompt and of its answer.

    Each is tokenised by itself: verl, too, tokenises a row turn by turn (multiturn_sft_dataset.py,
    _process_single_message). Where the template only puts constant text around the turns, as ChatML does, rows are put
    together from that text, since rendering the template costs as much as tokenising; else each row is rendered.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        marks = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        self.around = self._around()
        # A problem's solutions stand close together.
        self._prompt = functools.lru_cache(maxsize=256)(self._count_prompt)

    def special_in(self, text: str) -> str | None:
        """The first of the template's own marks that stands in `text`."""
        found = self.special.search(text)
        return found[0] if found else None

    def count(self, user: str, response: str) -> RowLength:
        """The length of a row."""
        head, tokens = self._prompt(user)
        if self.around:
            return RowLength(tokens, self._tokens(response + self.around.behind))
        text = self._render(user, response)
        if text.startswith(head):
            return RowLength(tokens, self._tokens(text[len(head) :]))
        return RowLength(tokens, self._tokens(text) - tokens)

    def _count_prompt(self, user: str) -> tuple[str, int]:
        head = f"{self.around.before}{user}{self.around.between}" if self.around else self._render(user)
        return head, self._tokens(head)

    def _render(self, user: str, response: str | None = None) -> str:
        return chat_text(self.tokenizer, user, response)

    def _tokens(self, text: str) -> int:
        if self.tokenizer.is_fast:  # encode_batch_fast leaves out the offsets, which nobody reads here
            fast = self.tokenizer.backend_tokenizer
            return len(fast.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def _around(self) -> _Around | None:
        """The constant text of the template; None where it has none."""
        found = set()
        for user, code in (
            ("Count.", "1"),
            ("Solve {{ this }}:\n\n\n x \t y", "print('{%')\n\n  y"),
            ("Ü" * 900, "z = 0\n" * 500),
        ):
            response = answer(code)
            head, _, behind = self._render(user, response).rpartition(response)
            before, mark, between = head.rpartition(user)
            if not mark:
                return None
            found.add(_Around(before, between, behind))
        return found.pop() if len(found) == 1 else None
