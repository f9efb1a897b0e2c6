"""How many tokens a training row has under a model's own tokenizer and chat template, counted fast."""

from __future__ import annotations

import functools
import re

from phase1.contract.prompts import answer
from phase1.model.tokenizer import Tokenizer, chat_text


class RowTokens:
    """Counts the tokens of a row's prompt and of its answer.

    Both are tokenised apart: verl, too, tokenises a row turn by turn (multiturn_sft_dataset.py,
    _process_single_message). Where the template only puts constant text around the turns, as ChatML does, rows are put
    together from that text, since rendering the template costs as much as tokenising; else each row is rendered.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.special = re.compile(
            "|".join(map(re.escape, sorted(tokenizer.get_added_vocab(), key=len, reverse=True))) or r"(?!)"
        )
        self.around = self._around()
        self._prompt = functools.lru_cache(maxsize=256)(
            self._count_prompt
        )  # a problem's solutions stand close together

    def special_in(self, text: str) -> str | None:
        """The first of the template's own marks that stands in `text`."""
        found = self.special.search(text)
        return found[0] if found else None

    def count(self, user: str, response: str) -> tuple[int, int]:
        """(tokens before the answer, tokens of the answer and the end of its turn)."""
        head, tokens = self._prompt(user)
        if self.around:
            return tokens, self._tokens(response + self.around[2])
        text = self._render(user, response)
        return tokens, self._tokens(text[len(head) :]) if text.startswith(head) else self._tokens(text) - tokens

    def _count_prompt(self, user: str) -> tuple[str, int]:
        head = f"{self.around[0]}{user}{self.around[1]}" if self.around else self._render(user)
        return head, self._tokens(head)

    def _render(self, user: str, response: str | None = None) -> str:
        return chat_text(self.tokenizer, user, response)

    def _tokens(self, text: str) -> int:
        if self.tokenizer.is_fast:  # encode_batch_fast leaves out the offsets, which nobody reads here
            return len(self.tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def _around(self) -> tuple[str, str, str] | None:
        """The text before the user turn, between it and the answer, and behind the answer; None where it is not
        constant."""
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
            found.add((before, between, behind))
        return found.pop() if len(found) == 1 else None
