"""Records that passed the filters, by the million: numbers in memory, texts on disk; and which repeat others."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phase1.data.duplicates import PERMUTATIONS, near_duplicates
from phase1.data.filters import Examined, Texts


class Drop(NamedTuple):
    """A row to drop, and why."""

    row: int
    reason: str
    detail: str


class Place(NamedTuple):
    """Where a row was read: a file and its line, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Survivors:
    """Rows numbered in input order. `spool` holds their texts; a row takes about 400 bytes of memory."""

    def __init__(self, spool: Path) -> None:
        self._file = open(spool, "w+b")  # noqa: SIM115 - closed by `close`
        self._files: dict[str, int] = {}
        self._problems: dict[str | bytes, int] = {}
        self._pairs, self._signatures = bytearray(), bytearray()
        self._at, self._file_of, self._line = array("q"), array("H"), array("q")
        self.problem = array("q")  # numbers: rows with the same id or the same statement are of one problem
        self.user_chars, self.answer_chars, self.solution_chars = array("q"), array("q"), array("q")
        self.tokens, self.trained_tokens = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._at)

    def close(self) -> None:
        self._file.close()

    def add(self, record: Examined) -> None:
        """Take a record that no filter dropped; it gets the next row number."""
        self._at.append(self._file.tell())
        self._file.write(record.texts)
        self._file_of.append(self._files.setdefault(record.file, len(self._files)))
        self._line.append(record.line)
        self._pairs += record.pair_hash
        self._signatures += record.signatures
        self._number(record)
        for name in ("user_chars", "answer_chars", "solution_chars", "tokens", "trained_tokens"):
            getattr(self, name).append(getattr(record, name))

    def _number(self, record: Examined) -> None:
        keys = [k for k in (record.id_key, record.statement_hash) if k]
        known = next((self._problems[k] for k in keys if k in self._problems), len(self._problems))
        for k in keys:
            self._problems.setdefault(k, known)
        self.problem.append(known)

    def problem_of(self, *keys: str | bytes | None) -> int | None:
        """The number of the problem with one of these keys (decontaminate.id_key, statement_hash)."""
        return next((self._problems[k] for k in keys if k in self._problems), None)

    def texts(self, row: int) -> Texts:
        """The texts of a row, read from the spool."""
        self._file.seek(self._at[row])
        texts = pickle.load(self._file)
        assert isinstance(texts, Texts)
        return texts

    def place(self, row: int) -> Place:
        """Where a row was read."""
        return Place(list(self._files)[self._file_of[row]], self._line[row])

    def exact_repeats(self) -> Iterator[Drop]:
        """Rows whose statement and solution another row had before, but for white space."""
        pairs = np.frombuffer(self._pairs, np.uint64)
        _, first, of = np.unique(pairs, return_index=True, return_inverse=True)
        earlier = first[of]
        for row in np.flatnonzero(earlier != np.arange(len(pairs))).tolist():
            yield Drop(row, "exact_duplicate", str(self.place(int(earlier[row]))))

    def near_repeats(self, rows: np.ndarray, threshold: float) -> Iterator[Drop]:
        """Rows among `rows` whose statement and solution are both `threshold` like those of an earlier one of them."""
        if not self._signatures or not len(rows):
            return
        both = np.frombuffer(self._signatures, np.uint16).reshape(-1, 2 * PERMUTATIONS)
        both = both if len(rows) == len(both) else both[rows]
        for at, earlier in near_duplicates(both[:, :PERMUTATIONS], both[:, PERMUTATIONS:], threshold).items():
            yield Drop(int(rows[at]), "near_duplicate", str(self.place(int(rows[earlier]))))


def without(rows: np.ndarray, dropped: Iterable[int]) -> np.ndarray:
    """`rows`, which are sorted, without those that were dropped."""
    return np.setdiff1d(rows, np.fromiter(dropped, np.int64), assume_unique=True)
