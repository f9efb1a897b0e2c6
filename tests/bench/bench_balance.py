"""How long the slowest GPU's share of a batch is, against the mean: torch's DistributedSampler against
patches/phase1_balance.py.

    python tests/bench/bench_balance.py --train data/sft_train.parquet --model MODEL_DIR    # its tokenizer

Every GPU waits for the one with the most tokens, so 1.35 means that a GPU waits for 26% of a step on average. Shares
are made by characters, as in training, and measured in tokens. The order is the first epoch's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from torch.utils.data import DistributedSampler
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "patches"))
from phase1_balance import BalancedSampler


class Rows:
    def __init__(self, train: Path):
        self.messages = [[dict(m) for m in row] for row in pd.read_parquet(train)["messages"]]

    def __len__(self) -> int:
        return len(self.messages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=128, help="rows a step, over all GPUs")
    args = parser.parse_args()
    rows, tokenizer = Rows(args.train), AutoTokenizer.from_pretrained(args.model)
    texts = [tokenizer.apply_chat_template(m, tokenize=False) for m in rows.messages]
    tokens = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    print(
        f"{len(rows)} rows, {sum(tokens) / len(rows):,.0f} tokens on average, {args.batch} rows a step\n"
        f"{'GPUs':>4} {'as they come':>13} {'balanced':>9}"
    )
    for gpus in (2, 4, 8, 16):
        worst = []
        for balanced in (False, True):
            orders = []
            for rank in range(gpus):
                sampler = DistributedSampler(rows, num_replicas=gpus, rank=rank, shuffle=True, seed=0, drop_last=True)
                orders.append(list(BalancedSampler(sampler, args.batch // gpus) if balanced else sampler))
            size = args.batch // gpus
            starts = range(0, len(orders[0]) - size + 1, size)
            totals = [[sum(tokens[i] for i in order[s : s + size]) for order in orders] for s in starts]
            worst.append(sum(max(t) * gpus / sum(t) for t in totals) / len(totals))
        print(f"{gpus:4} {worst[0]:13.3f} {worst[1]:9.3f}")


if __name__ == "__main__":
    main()
