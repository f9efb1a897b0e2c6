"""What a check of the preflight found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Outcome(NamedTuple):
    """A check's answer; `detail` says in one line what was found, and for a warning what to do."""

    status: Literal["pass", "warn", "fail"]
    detail: str


def passes(detail: str) -> Outcome:
    """All is well."""
    return Outcome("pass", detail)


def warns(detail: str) -> Outcome:
    """The training can start, but something should be looked at."""
    return Outcome("warn", detail)
