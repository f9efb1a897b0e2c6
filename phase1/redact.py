"""What a result file must not tell: keys, tokens and passwords in arguments and URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET = r"(?:api[-_]?keys?|(?:hf|auth|access|bearer)[-_]token|secret|password|passwd)"
_NAME = re.compile(rf"(?i)(?:^|[-_.]){_SECRET}$|^token$")  # of an argument or a key
_IN_TEXT = (
    (re.compile(r"(\w+://)[^/@\s]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?i)([?&#](?:[\w-]*token|key|sig|signature)=)[^&\s]+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(--?(?:[\w-]*{_SECRET}|token)(?:=|\s+))\S+"), rf"\1{HIDDEN}"),
    # NAME=value of an environment, key: value of JSON, of YAML and of a header, alone or within a longer text.
    (
        re.compile(rf"(?i)((?<!-)\b[\w.-]*{_SECRET}['\"]?\s*[=:]\s*)(?!\s|null\b|None\b)(\[[^\]]*\]|[^\s&,;}}]+)"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:hf_|sk-|github_pat_|ghp_)[\w-]{16,}"), HIDDEN),  # what services' own keys begin with
)


def redacted(value: Any) -> Any:
    """The same JSON value with HIDDEN in the place of secrets: of values under a secret's name, of words behind a
    secret's flag, and of what a text holds of either, of a URL's user and password, and of keys known by how they
    begin."""
    if isinstance(value, str):
        for pattern, instead in _IN_TEXT:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, Mapping):
        return {key: HIDDEN if item and is_secret(str(key)) else redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        words = [redacted(item) for item in value]
        for number, word in enumerate(words[:-1]):
            if isinstance(word, str) and word.startswith("-") and is_secret(word.lstrip("-")):
                words[number + 1] = HIDDEN
        return words
    return value


def is_secret(name: str) -> bool:
    """Whether what goes by this name is nobody's business."""
    return _NAME.search(name) is not None
