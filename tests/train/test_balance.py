"""Even shares of a batch's tokens (patches/phase1_balance.py) against torch's own DistributedSampler."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "patches"))
torch = pytest.importorskip("torch")
from phase1_balance import BalancedSampler, even_shares  # noqa: E402
from torch.utils.data import DistributedSampler  # noqa: E402


class Rows:
    """A data set of `count` rows with the long tail of real ones."""

    def __init__(self, count: int):
        rng = random.Random(count)
        self.messages = [[{"role": "user", "content": "x" * int(rng.lognormvariate(6.4, 0.63))}] for _ in range(count)]

    def __len__(self) -> int:
        return len(self.messages)

    def __getitem__(self, i: int) -> int:
        return len(self.messages[i][0]["content"])


def shares(rows: Rows, ranks: int, per_rank: int, balanced: bool, epoch: int = 0) -> list[list[list[int]]]:
    """batches x ranks x row numbers, as the ranks' loaders would hand them out."""
    orders = []
    for rank in range(ranks):
        sampler = DistributedSampler(rows, num_replicas=ranks, rank=rank, shuffle=True, seed=0, drop_last=True)
        sampler.set_epoch(epoch)
        order = list(BalancedSampler(sampler, per_rank) if balanced else sampler)
        orders.append([order[i : i + per_rank] for i in range(0, len(order), per_rank)])
        assert sampler.rank == rank
    return [list(batch) for batch in zip(*orders, strict=True)]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(
    ("ranks", "per_rank", "count"), [(1, 8, 64), (2, 64, 960), (3, 4, 50), (8, 16, 1000), (4, 1, 17)]
)
def test_each_batch_holds_the_same_rows_in_shares_of_the_same_count(ranks, per_rank, count, epoch):
    rows = Rows(count)
    even, plain = (shares(rows, ranks, per_rank, balanced, epoch) for balanced in (True, False))
    assert [sorted(sum(batch, [])) for batch in even] == [sorted(sum(batch, [])) for batch in plain]
    assert all(len({len(share) for share in batch}) == 1 for batch in even)


@pytest.mark.parametrize(("ranks", "most"), [(2, 1.01), (8, 1.05)])
def test_the_longest_share_is_near_the_mean_where_it_was_far_from_it(ranks, most):
    rows = Rows(960)

    def worst(balanced: bool) -> float:
        totals = [
            [sum(rows[i] for i in share) for share in batch]
            for batch in shares(rows, ranks, 128 // ranks, balanced)[:7]
        ]
        return sum(max(t) * ranks / sum(t) for t in totals) / len(totals)

    assert worst(True) < most < worst(False)


def test_ties_go_by_position_and_counts_stay_even_whatever_the_sizes():
    assert even_shares([5] * 6, 3) == [[0, 3], [1, 4], [2, 5]]
    assert sorted(sum(even_shares([9, 1, 1, 1], 2), [])) == [0, 1, 2, 3]
