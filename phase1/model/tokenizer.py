"""A model directory's tokenizer and chat template: loading them, and what they make of the toolkit's conversations."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast, overload

from phase1.contract.prompts import answer, chat, user_message
from phase1.files import BadInput, read_json, sha256_text

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")  # a directory needs any one of them
COPY_FROM_BASE = "copy the base model's tokenizer files there"

NO_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
ROUND_TRIP = (
    "class Node:\n    N = 10**9 + 7\n",
    "def f(x):\n    return x + 1\n",
    "print('héllo, 世界 🙂')\n\tif a<=b: pass",
    "<code>\nn = int(input())\n</code>",
    "  a  b\r\n\n\nc ",
)


class Encoded(Protocol):
    """What a call of a transformers tokenizer returns."""

    input_ids: list[int]


class Tokenizer(Protocol):
    """The part of transformers' PreTrainedTokenizerBase that this toolkit uses."""

    chat_template: str | None
    eos_token: str | None
    eos_token_id: int | None
    pad_token: str | None
    pad_token_id: int | None
    all_special_tokens: list[str]
    is_fast: bool
    backend_tokenizer: FastTokenizer  # only where is_fast

    def __len__(self) -> int: ...
    def __call__(self, text: str, *, add_special_tokens: bool = ...) -> Encoded: ...
    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def decode(
        self, token_ids: list[int], *, skip_special_tokens: bool = ..., clean_up_tokenization_spaces: bool = ...
    ) -> str: ...
    def get_vocab(self) -> dict[str, int]: ...
    def get_added_vocab(self) -> dict[str, int]: ...
    @overload
    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, add_generation_prompt: bool = ..., tokenize: Literal[False]
    ) -> str: ...
    @overload
    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, add_generation_prompt: bool = ..., return_dict: Literal[False]
    ) -> list[int]: ...


class FastEncoding(Protocol):
    """One text's encoding by the tokenizers library."""

    ids: list[int]

    def __len__(self) -> int: ...


class FastTokenizer(Protocol):
    """The part of tokenizers.Tokenizer that this toolkit uses."""

    def get_vocab(self, with_added_tokens: bool = ...) -> dict[str, int]: ...
    def encode_batch_fast(self, input: list[str], *, add_special_tokens: bool = ...) -> Sequence[FastEncoding]: ...


def refuse_newer_tokenizer(folder: Path) -> None:
    """Refuse the form that transformers 5 saves where transformers 4 is installed, which cannot read it.

    Raises:
        BadInput: names the file, what of it is new, and the two ways out.
    """
    path, version = folder / "tokenizer_config.json", importlib.metadata.version("transformers")
    settings = read_json(path) if path.is_file() else {}
    if int(version.split(".")[0]) >= 5 or not isinstance(settings, dict):
        return
    new = []
    if settings.get("tokenizer_class") == "TokenizersBackend":
        new.append('"tokenizer_class": "TokenizersBackend"')
    if isinstance(settings.get("extra_special_tokens"), list):
        new.append('"extra_special_tokens" as a list')
    if new:
        raise BadInput(
            f"{path}: has {' and '.join(new)}, the form of transformers 5, which {version} here cannot read; "
            f"{COPY_FROM_BASE}, or use the environment of requirements-latest.txt"
        )


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Let transformers find no torch when it is first imported in here: three quarters of that import are torch, which
    a tokenizer does not need. This process then loads no model by transformers any more."""
    if {"torch", "transformers"} & set(sys.modules):  # it is paid for already
        yield
        return
    said = os.environ.get(NO_ADVICE)
    os.environ[NO_ADVICE] = "1"  # that models cannot be loaded now
    sys.modules["torch"] = None  # type: ignore[assignment]  # what Python itself takes for "not there"
    try:
        yield
    finally:
        del sys.modules["torch"]
        if said is None:
            del os.environ[NO_ADVICE]
        else:
            os.environ[NO_ADVICE] = said


def load_tokenizer(folder: Path) -> Tokenizer:
    """The directory's tokenizer, by transformers, whose import takes seconds.

    Raises:
        BadInput: transformers cannot load one from there.
    """
    refuse_newer_tokenizer(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # known without the seconds of the import
        none = f"none of {', '.join(TOKENIZER_FILES)} is there"
        raise BadInput(f"{folder}: the tokenizer cannot be loaded ({none}); {COPY_FROM_BASE}")
    from transformers import AutoTokenizer

    try:
        return cast(Tokenizer, AutoTokenizer.from_pretrained(str(folder)))
    except Exception as e:  # the tokenizers library raises bare Exceptions for damaged files
        raise BadInput(f"{folder}: the tokenizer cannot be loaded ({_reason(e)}); {COPY_FROM_BASE}") from None


def load_chat_tokenizer(folder: Path) -> Tokenizer:
    """The directory's tokenizer, with a chat template and a padding token (the end-of-text token where it names none).

    Raises:
        BadInput: it cannot be loaded, or has no chat template.
    """
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise BadInput(
            f"{folder}: its tokenizer has no chat template; give an instruct model, or copy tokenizer_config.json "
            "from the base model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_fast_tokenizer(folder: Path) -> FastTokenizer:
    """tokenizer.json by the tokenizers library alone, in a fraction of the time that importing transformers takes.

    Raises:
        BadInput: the file is missing or broken.
    """
    from tokenizers import Tokenizer as FromFile

    path = folder / "tokenizer.json"
    try:
        return cast(FastTokenizer, FromFile.from_file(str(path)))
    except Exception as e:  # the only class that the library raises
        raise BadInput(f"{path}: cannot be loaded ({_reason(e)}); {COPY_FROM_BASE}") from None


def _reason(e: Exception) -> str:
    """The first line of an error's message."""
    return (str(e).splitlines() or [type(e).__name__])[0][:200]


def chat_text(tokenizer: Tokenizer, user: str, assistant: str | None = None) -> str:
    """What the chat template makes of a problem: the prompt, or with the assistant's turn a whole training row."""
    turns = chat(user, assistant)
    return tokenizer.apply_chat_template(turns, add_generation_prompt=assistant is None, tokenize=False)


def chat_ids(tokenizer: Tokenizer, user: str, assistant: str | None = None) -> list[int]:
    """The token ids of `chat_text`."""
    turns = chat(user, assistant)
    return tokenizer.apply_chat_template(turns, add_generation_prompt=assistant is None, return_dict=False)


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The text's token ids, without special tokens around it."""
    return tokenizer(text, add_special_tokens=False).input_ids


def lost_in_round_trip(tokenizer: Tokenizer) -> list[str]:
    """A line for each text of ROUND_TRIP that does not survive encoding and decoding."""
    lines = []
    for text in ROUND_TRIP:
        back = tokenizer.decode(plain_ids(tokenizer, text), clean_up_tokenization_spaces=False)
        if back != text:
            lines.append(f"{text!r} comes back as {back!r}")
    return lines


def same_ids(a: Tokenizer, b: Tokenizer) -> bool:
    """Whether two tokenizers have one vocabulary and encode ROUND_TRIP alike."""
    return a.get_vocab() == b.get_vocab() and all(a(t).input_ids == b(t).input_ids for t in ROUND_TRIP)


def check_template(tokenizer: Tokenizer, folder: Path) -> None:
    """Check that a prompt is, token for token, the beginning of the training row for the same problem.

    Training renders three turns; evaluation renders two and the opening of the third. A template that strips or trims a
    turn, or opens an answer with something else (a thinking block, say), makes the two differ, and the model would be
    asked in a form it was never trained on.

    Raises:
        BadInput: they differ, or the template does not render; `folder` is named.
    """
    user = user_message("codecontests", "Read a and b.\n\nInput\n\n1 2\n")
    try:
        prompt = chat_ids(tokenizer, user)
        row = chat_ids(tokenizer, user, answer("print(1)"))
    except Exception as e:  # jinja2's own classes, and TypeErrors of what the template does
        raise BadInput(f"{folder}: its chat template does not render ({_reason(e)}); {COPY_FROM_BASE}") from None
    if row[: len(prompt)] != prompt:
        raise BadInput(
            f"{folder}: its chat template opens an answer otherwise in evaluation than in a training row; "
            "copy chat template and tokenizer files from the base model"
        )


def template_sha256(tokenizer: Tokenizer) -> str:
    """Hash of a conversation as the chat template renders it: equal for templates that are only written differently."""
    return sha256_text(chat_text(tokenizer, "user", "assistant"))


def compare_with_base(tokenizer: Tokenizer, folder: Path, base_model: Path) -> None:
    """Check that the tokenizer of `folder` renders and encodes as that of the model that training started from.

    Raises:
        BadInput: they render different text or give other ids, or the base model's cannot be loaded.
    """
    base = load_chat_tokenizer(base_model)
    if not same_ids(tokenizer, base):
        raise BadInput(
            f"{folder}: encodes text in other ids than the tokenizer of {base_model}, which training used; "
            "copy the tokenizer files from there"
        )
    if template_sha256(tokenizer) != template_sha256(base):
        raise BadInput(
            f"{folder}: its chat template renders other text than that of {base_model}, which training used; "
            "copy chat_template.jinja and tokenizer_config.json from there"
        )
