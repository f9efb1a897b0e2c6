"""Duplicates among training records: signatures, pairs that are nearly equal, and which solutions of a problem stay."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasketch import MinHash

PERMUTATIONS = 64
BANDS = 12  # of 5 values: pairs with Jaccard 0.8 share a band with probability 0.99, 0.9 with 0.99998, 0.5 with 0.32
SHINGLE = 4  # words
BUCKET = 16  # members of a bucket that a record is compared with: boilerplate must not make the search quadratic
PAIRS = 1 << 16  # pairs compared at a time: bounds memory


def signature(words: Sequence[str]) -> np.ndarray:
    """MinHash of the word shingles: an array of (PERMUTATIONS,) uint16. Equal word lists give equal signatures.

    The low 16 bits of each hash are kept (b-bit minwise hashing, Li and König 2010): unequal values agree by chance
    once in 65,536, and a million records take 256 MB.
    """
    minhash = _empty().copy()
    last = max(1, len(words) - SHINGLE + 1)
    shingles = {" ".join(words[i : i + SHINGLE]) for i in range(last)}
    minhash.update_batch([s.encode("utf-8", "surrogatepass") for s in sorted(shingles)])
    return minhash.hashvalues.astype(np.uint16)


@functools.cache
def _empty() -> MinHash:
    """A MinHash of nothing; importing datasketch takes two seconds, which a run that is refused need not wait for."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)


def near_duplicates(statements: np.ndarray, solutions: np.ndarray, threshold: float) -> dict[int, int]:
    """Row -> the earlier row it nearly repeats.

    Args:
        statements: their signatures, (rows, PERMUTATIONS), in input order.
        solutions: the same of the solutions.
        threshold: estimated Jaccard similarity, 0 to 1.

    Both the statement and the solution must be at least `threshold` alike: the easy and the hard
    version of a problem share their statement, and two solutions of a problem are both worth having. A row that is
    itself a repeat does not make others repeats.
    """
    pairs = np.empty(0, np.int64)  # row * rows + earlier row: bands find the same pairs, so each is joined at once
    for band in range(BANDS):
        pairs = np.unique(np.concatenate([pairs, _alike(statements, solutions, band, threshold)]))
    repeats: dict[int, int] = {}
    for at in range(0, len(pairs), PAIRS):
        for pair in pairs[at : at + PAIRS].tolist():  # by row, then by earlier row
            row, earlier = divmod(pair, len(statements))
            if row not in repeats and earlier not in repeats:
                repeats[row] = earlier
    return repeats


def _alike(statements: np.ndarray, solutions: np.ndarray, band: int, threshold: float) -> np.ndarray:
    """row * rows + earlier row of the pairs that share a band and are `threshold` alike, (pairs,) int64."""
    width = PERMUTATIONS // BANDS
    # Every BANDS-th value of the even columns of both, so that each band looks at statement and solution.
    columns = np.concatenate([statements[:, ::2], solutions[:, ::2]], axis=1)[:, band::BANDS][:, :width].astype(
        np.uint64
    )
    keys = np.zeros(len(columns), np.uint64)
    for column in columns.T:  # FNV-1a over the values: a collision only makes one comparison more
        keys = (keys ^ column) * np.uint64(0x100000001B3)
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) != 0]) if len(order) else np.empty(0, np.int64)
    start = np.repeat(starts, np.diff(np.r_[starts, len(order)]))  # of each sorted row, where its bucket begins
    place = np.arange(len(order)) - start
    found = [np.empty(0, np.int64)]
    for k in range(BUCKET):
        members = np.flatnonzero(place > k)
        for at in range(0, len(members), PAIRS):
            part = members[at : at + PAIRS]
            rows, earlier = order[part], order[start[part] + k]
            alike = (statements[rows] == statements[earlier]).mean(axis=1) >= threshold
            rows, earlier = rows[alike], earlier[alike]
            alike = (solutions[rows] == solutions[earlier]).mean(axis=1) >= threshold
            found.append(rows[alike] * len(order) + earlier[alike])
    return np.concatenate(found)


def surplus(problems: Sequence[int], lengths: Sequence[int], keep: str) -> set[int]:
    """Rows to drop so that each problem keeps as many solutions as it may.

    Args:
        problems: a number for the problem of each row.
        lengths: of each row's solution, in characters.
        keep: "shortest", "first", "all", or a number N for the N shortest.
    """
    if keep == "all":
        return set()
    rows_of: dict[int, list[int]] = {}
    for row, problem in enumerate(problems):
        rows_of.setdefault(problem, []).append(row)
    count = int(keep) if keep.isdigit() else 1
    drop: set[int] = set()
    for rows in rows_of.values():
        ranked = rows if keep == "first" else sorted(rows, key=lambda row: (lengths[row], row))
        drop.update(ranked[count:])
    return drop
