"""data.balance_dp_token for verl's engine SFT trainer, which knows the key and ignores it ("to be implement", verl
0.9.1).

Each rank takes every world-size-th row of a shuffled order, and all wait for the one whose rows have the most tokens.
Here each global batch has the same rows, dealt out so that the ranks' shares are even (docs/02 has both measured, by
tests/bench/bench_balance.py). The loss is averaged over all answer tokens of the global batch, so it and its gradient
do not change.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Iterator, Sequence

from torch.utils.data import DistributedSampler


def even_shares(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Positions 0 … len(sizes)-1 in `ranks` shares of equal counts and nearly equal sums: the largest first, each to
    the smallest share that still has room (Graham's rule, SIAM J. Appl. Math. 17, 1969). len(sizes) is a multiple of
    `ranks`."""
    room = len(sizes) // ranks
    shares: list[list[int]] = [[] for _ in range(ranks)]
    smallest = [(0, rank) for rank in range(ranks)]
    for position in sorted(range(len(sizes)), key=lambda p: (-sizes[p], p)):
        total, rank = heapq.heappop(smallest)
        shares[rank].append(position)
        if len(shares[rank]) < room:
            heapq.heappush(smallest, (total + sizes[position], rank))
    return shares


class BalancedSampler:
    """The rows of a DistributedSampler, batch by batch the same over all ranks together, dealt out evenly.

    `rows`: those of a batch on one rank. A row's size is the number of characters in its messages, which needs no
    tokenizer. Every rank computes the same shares from the same order; nothing is communicated. The loader resumes by
    skipping what was handed out, so a resumed run goes on with the rows that are left, whichever of the two samplers it
    began with.
    """

    def __init__(self, sampler: DistributedSampler, rows: int):
        self.sampler, self.rows = sampler, rows
        self.sizes = [sum(len(str(m["content"])) for m in messages) for messages in sampler.dataset.messages]

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        mine, ranks = self.sampler.rank, self.sampler.num_replicas
        orders = []
        for rank in range(ranks):
            other = copy.copy(self.sampler)
            other.rank = rank
            orders.append(list(other))
        for start in range(0, len(self), self.rows):
            batch = [row for order in orders for row in order[start : start + self.rows]]
            yield from (batch[p] for p in even_shares([self.sizes[row] for row in batch], ranks)[mine])
