"""Text from a model, a program or a file, made safe to show in a page, a Markdown table or a terminal."""

from __future__ import annotations

import re
import unicodedata


def shown(text: object, limit: int = 4000) -> str:
    """Text from a model, a program or a file as it may be shown: control, bidirectional and lone surrogate characters
    become visible escapes, and what exceeds `limit` characters is cut with a note of how much."""
    text = str(text)
    cut = len(text) - limit
    if cut > 0:
        text = text[:limit]
    safe = "".join(c if c in "\n\t" or c.isprintable() or unicodedata.category(c) == "Zs" else _escape(c) for c in text)
    return f"{safe}\n[… {cut:,} more characters]" if cut > 0 else safe


def _escape(c: str) -> str:
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def markdown_text(text: object, limit: int = 300) -> str:
    """The same as one line inside a Markdown table or list."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", shown(text, limit).replace("\n", " "))
