"""Hydra's grammar of overrides, `key=value` on verl's command line: read by Hydra itself, and written so that it reads
the same text back."""

from __future__ import annotations

import functools
import re
import sys
from typing import Protocol

from phase1.files import BadInput


class _Override(Protocol):
    """What is used of hydra.core.override_parser.types.Override."""

    key_or_group: str

    def is_sweep_override(self) -> bool: ...

    def is_delete(self) -> bool: ...

    def value(self) -> object: ...


class _Parser(Protocol):
    """What is used of Hydra's OverridesParser."""

    def parse_override(self, s: str) -> _Override: ...


@functools.cache
def _parser() -> _Parser:
    try:
        from hydra.core.override_parser.overrides_parser import OverridesParser
    except ImportError:
        raise BadInput(
            f"hydra-core is not installed for {sys.executable}; activate the environment that has verl, or "
            "name it: PYTHON=…"
        ) from None
    parser: _Parser = OverridesParser.create()
    return parser


def parse_override(override: str) -> dict[str, object]:
    """{key: value} of one `key=value` word, {} for a deletion.

    Raises:
        BadInput: Hydra cannot read it, or reads it as a sweep over several values; or Hydra is not installed.
    """
    parser = _parser()
    from hydra.errors import HydraException

    try:
        parsed = parser.parse_override(override)
    except HydraException as e:
        reason = str(e).splitlines()[0]
        raise BadInput(
            f"{override!r} is not a Hydra override ({reason}); expected key=value, special characters in quotes"
        ) from None
    if parsed.is_sweep_override():
        raise BadInput(f"{override!r} is a sweep to Hydra; write a list as [a,b] and a text with commas as \"'a,b'\"")
    return {} if parsed.is_delete() else {parsed.key_or_group: parsed.value()}


def hydra_text(text: str) -> str:
    """`text` as the value of an override: bare where Hydra reads it back as this very string, else quoted.

    Source: https://hydra.cc/docs/advanced/override_grammar/basic/ ("Quoted values"); `${` is OmegaConf's and escaped.
    """
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    if escaped == text and text == text.strip() != "":
        try:
            if next(iter(parse_override(f"k={text}").values())) == text:
                return text
        except BadInput:
            pass
    # Inside quotes a backslash counts as an escape only in front of a quote, the closing one included.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), escaped)
    return f"'{escaped}'"
