"""Duplicates among training records: MinHash signatures, near-duplicate pairs, and which solutions of a problem to keep."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from datasketch import MinHash

PERMUTATIONS = 64
BANDS = 12  # of 5 values: pairs with Jaccard 0.8 share a band with probability 0.99, 0.9 with 0.99998, 0.5 with 0.32
SHINGLE = 4  # words
BUCKET = 16  # members of a bucket that a record is compared with: boilerplate must not make the search quadratic
_EMPTY = MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)


def signature(words: Sequence[str]) -> np.ndarray:
    """MinHash of the word shingles, (PERMUTATIONS,) uint32; equal word lists give equal signatures."""
    minhash = _EMPTY.copy()
    last = max(1, len(words) - SHINGLE + 1)
    shingles = {" ".join(words[i : i + SHINGLE]) for i in range(last)}
    minhash.update_batch([s.encode("utf-8", "surrogatepass") for s in sorted(shingles)])
    return minhash.hashvalues.astype(np.uint32)


def near_duplicates(statements: np.ndarray, solutions: np.ndarray, threshold: float) -> dict[int, int]:
    """Row -> the earlier row it nearly repeats, for signatures (rows, PERMUTATIONS) in input order.

    Both the statement and the solution must be at least `threshold` alike (estimated Jaccard): the easy and the hard
    version of a problem share their statement, and two solutions of a problem are both worth having. A row that is
    itself a repeat does not make others repeats.
    """
    if not len(statements):
        return {}
    both = np.concatenate([statements[:, ::2], solutions[:, ::2]], axis=1)
    width = both.shape[1] // BANDS
    candidates: dict[int, set[int]] = {}
    for band in range(BANDS):
        # Every BANDS-th column, so that each band looks at statement and solution.
        columns = np.ascontiguousarray(both[:, band::BANDS][:, :width])
        keys = columns.view(np.dtype((np.void, columns.dtype.itemsize * width))).ravel()
        _, group = np.unique(keys, return_inverse=True)
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0])
        for start, end in zip(starts, np.r_[starts[1:], len(order)], strict=True):
            members = order[start:end]
            for at in range(1, len(members)):
                candidates.setdefault(int(members[at]), set()).update(members[: min(at, BUCKET)].tolist())
    repeats: dict[int, int] = {}
    for row in sorted(candidates):
        for earlier in sorted(candidates[row]):
            alike = min(np.mean(statements[row] == statements[earlier]), np.mean(solutions[row] == solutions[earlier]))
            if alike >= threshold and earlier not in repeats:
                repeats[row] = earlier
                break
    return repeats


def surplus(problems: Sequence[int], lengths: Sequence[int], keep: str) -> set[int]:
    """Rows to drop so that each problem keeps `keep` solutions: "shortest", "first", "all", or a number N (the N shortest).

    `problems[row]` numbers the row's problem, `lengths[row]` is the length of its solution.
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
