"""How surely prepare_sft_data.py finds evaluation problems among training records, and how much it drops without need.

    python tests/bench/bench_decontaminate.py    # 500 made-up problems, 20,000 others
    python tests/bench/bench_decontaminate.py --public_data DIR                     # and HumanEval, MBPP, CodeContests

Each of the problems is planted in seven disguises, as BEE records that go through the parser, like everything else; the
made-up ones share sentences, phrases and names with the unrelated records (bee_like.py). With --public_data the same is
done with the published problems in DIR (HumanEval.jsonl.gz, mbpp.jsonl.gz, codecontests_sample.jsonl.gz), and the MBPP
tasks outside of mbpp_reg are the unrelated records. Exit 1 where the first five disguises are found less than --recall.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import bee_like  # noqa: E402

from phase1.data.bee import parse_record  # noqa: E402
from phase1.data.decontaminate import EvalIndex  # noqa: E402

Problem = tuple[str, str, str]  # dataset, problem_id, statement


def main() -> int:
    args = parse_args()
    r = random.Random(args.seed)
    problems = [
        ("codecontests_valid_big", f"Codeforces/{1000 + i}/B", bee_like.statement(r)) for i in range(args.problems)
    ]
    others = [bee_like.statement(r) for _ in range(args.unrelated)]
    good = report(f"{len(problems)} made-up problems", problems, others, args)
    if args.public_data:
        problems, others = published(args.public_data)
        report(
            f"{len(problems)} published problems (unrelated: MBPP tasks outside of mbpp_reg)", problems, others, args
        )
    return 0 if good else 1


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--unrelated", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--ngram", type=int, default=8, help="words of an n-gram; prepare_sft_data.py takes 8")
    parser.add_argument("--containment", type=float, default=0.6, help="as in prepare_sft_data.py")
    parser.add_argument("--recall", type=float, default=0.99, help="wanted of the first five disguises")
    parser.add_argument("--dropped", type=float, default=0.001, help="allowed of the unrelated records")
    parser.add_argument("--public_data", type=Path, help="directory of the published files")
    parser.add_argument("--show", type=int, default=0, help="print so many unrelated records that were dropped")
    return parser.parse_args()


def published(folder: Path) -> tuple[list[Problem], list[str]]:
    """The published problems of the evaluation sets, and the statements of MBPP's other tasks."""
    from tests.public_problems import codecontests, humaneval, mbpp

    tasks = {int(p.problem_id.split("/")[1]): p for p in mbpp(folder)}
    chosen = [*humaneval(folder), *codecontests(folder), *(tasks[i] for i in range(11, 211))]
    return [(p.dataset, p.problem_id, p.prompt) for p in chosen], [
        p.prompt for i, p in tasks.items() if not 11 <= i < 211
    ]


# -------------------------------------------------------------------------------------------------------- disguises
def disguises(r: random.Random) -> dict[str, Callable[[str], str]]:
    return {
        "verbatim": lambda s: s,
        "other id": lambda s: s,
        "white space and case": lambda s: re.sub(
            r"\s+", lambda m: m[0].replace(" ", "  ").replace("\n\n", "\n"), s
        ).upper(),
        "other examples": lambda s: (
            re.split(r"\n\n(?:Examples?|SAMPLE INPUT)\n|\n>>> ", s)[0] + f"\n\n{bee_like.examples(r)}"
        ),
        "reworded lead sentence": lambda s: reworded(s, r),
        "renamed characters": lambda s: renamed(s, r),
        "cut in half": lambda s: s[: len(s) // 2],
    }


def reworded(statement: str, r: random.Random) -> str:
    """The statement with other words in place of its first sentence."""
    first, mark, rest = statement.partition(". ")
    told = (
        f"Here is an old riddle that {r.choice(bee_like.NAMES)} once told on a long {r.choice(bee_like.NOUNS)} ride. "
    )
    return told + rest if mark else told + first


def renamed(statement: str, r: random.Random) -> str:
    """The statement with every character called otherwise (words with a capital inside of a sentence, in published
    ones)."""
    known = set(bee_like.NAMES) & set(re.findall(r"\w+", statement)) or set(
        re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}", statement)
    )
    other = {
        name: f"{r.choice('BDGKLMNPRST')}{r.choice('aeiou')}{r.choice('dlmnrst')}{r.choice('aeio')}"
        for name in sorted(known)
    }
    return re.sub(r"\w+", lambda m: other.get(m[0], m[0]), statement)


# ------------------------------------------------------------------------------------------------------------ table
def report(title: str, problems: list[Problem], others: list[str], args: argparse.Namespace) -> bool:
    start = time.perf_counter()
    index = EvalIndex(problems, n=args.ngram, threshold=args.containment)
    r, good = random.Random(args.seed), True
    print(f"\n{title}, n-grams of {args.ngram} words, containment {args.containment}")
    print(f"{'disguise':<26}{'found':>8}{'recall':>9}   by rule")
    for at, (name, disguise) in enumerate(disguises(r).items()):
        rules: Counter[str] = Counter()
        for i, (_, problem_id, text) in enumerate(problems):
            own = "_".join(problem_id.split("/")[-2:]) + ". Its own title"
            if hit := find(index, own if name == "verbatim" else f"{30_000 + i}_C. Another title", disguise(text), r):
                rules[hit.rule if hit.problem_id == problem_id else f"{hit.rule}, as another problem"] += 1
        found = sum(rules.values())
        good &= at >= 5 or found >= args.recall * len(problems)
        print(
            f"{name:<26}{found:>8}{found / len(problems):>9.1%}   "
            f"{', '.join(f'{rule} {n}' for rule, n in rules.most_common())}"
        )
    hits = [
        (text, hit)
        for i, text in enumerate(others)
        if (hit := find(index, f"{50_000 + i // 6}_{'ABCDEF'[i % 6]}. Unrelated", text, r))
    ]
    print(f"{'unrelated, dropped':<26}{len(hits):>8}{len(hits) / len(others):>9.2%}   of {len(others):,}")
    for text, hit in hits[: args.show]:
        print(f"  {hit.problem_id} {hit.rule} {hit.score}: {' '.join(text.split())[:160]}")
    print(f"{time.perf_counter() - start:.1f} s")
    return good and len(hits) <= args.dropped * len(others)


def find(index: EvalIndex, name: str, text: str, r: random.Random):
    record = parse_record(bee_like.record(r, name, text, "print(1)", r.choice(bee_like.LEADS)))
    return index.find(record.name, record.source, record.statement)


if __name__ == "__main__":
    sys.exit(main())
