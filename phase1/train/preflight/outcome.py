"""What a check of the preflight found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Outcome(NamedTuple):
    """A check's answer; `detail` says in one line what was found, and for a warning what to do."""

    status: Literal["pass", "warn", "fail"]
    detail: str


def passes(detail: str) -> Outcome:
    return Outcome("pass", detail)


def warns(detail: str) -> Outcome:
    return Outcome("warn", detail)
