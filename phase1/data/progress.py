"""A progress bar on stderr where that is a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")


class ProgressBar:
    """Counts what is done of `total`, which may be unknown. Use it in a `with` statement.

    It draws when it is advanced and starts no thread: workers are forked while it is open.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not sys.stderr.isatty(),  # FORCE_COLOR would make a log file a terminal
        )
        self._task = self._bar.add_task(what, total=total)
        self._drawn = 0.0

    def advance(self, count: int = 1) -> None:
        self._bar.advance(self._task, count)
        if time.monotonic() - self._drawn > 0.2:
            self._drawn = time.monotonic()
            self._bar.refresh()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def counted(items: Iterable[Item], what: str) -> Iterator[Item]:
    """`items`, with a bar that counts them."""
    with ProgressBar(what) as bar:
        for item in items:
            yield item
            bar.advance()
