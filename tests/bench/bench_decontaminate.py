"""How surely prepare_sft_data.py finds evaluation problems among training records, and how much it drops without need.

    python tests/bench/bench_decontaminate.py    # 500 made-up problems, 20,000 others
    python tests/bench/bench_decontaminate.py --public_data DIR                     # and HumanEval, MBPP, CodeContests
    python tests/bench/bench_decontaminate.py --public_data DIR --innocent CLONE    # and programs that others wrote
    python tests/bench/bench_decontaminate.py --public_data DIR --before CHECKOUT   # and the time of another checkout

Each of the problems is planted in seven disguises, as BEE records that go through the parser, like everything else; the
made-up ones share sentences, phrases and names with the unrelated records (bee_like.py). With --public_data the same is
done with the published problems in DIR (HumanEval.jsonl.gz, mbpp.jsonl.gz, codecontests_sample.jsonl.gz), and the MBPP
tasks outside of mbpp_reg are the unrelated records. Then the whole of HumanEval and MBPP is planted in disguises that
leave the program, the tests or one sentence. Exit 1 where the first five disguises are found less than --recall, one of
the latter less than --recall_of_parts, or more than --dropped of the made-up unrelated records go.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import bee_like  # noqa: E402

from phase1.contract.problems import Problem  # noqa: E402
from phase1.data.bee import parse_record  # noqa: E402
from phase1.data.decontaminate import EvalIndex, known_problem  # noqa: E402


@dataclass(frozen=True)
class Planted:
    """What a training record says."""

    statement: str
    program: str = "print(1)"


def main() -> int:
    args = parse_args()
    warnings.simplefilter("ignore")  # of the parser: published programs hold "\\d"
    r = random.Random(args.seed)
    made_up = [
        Problem("codecontests_valid_big", f"Codeforces/{1000 + i}/B", bee_like.statement(r), {"type": "codecontests"})
        for i in range(args.problems)
    ]
    others = [Planted(bee_like.statement(r), bee_like.solution(r)) for _ in range(args.unrelated)]
    good = report(f"{len(made_up)} made-up problems", made_up, others, args)
    if args.public_data:
        problems, rest = published(args.public_data)
        title = f"{len(problems)} published problems (unrelated: MBPP tasks outside of mbpp_reg)"
        report(title, problems, rest, args)
        good &= report_parts(others, args)
    if args.before:
        compare_times(args)
    return 0 if good else 1


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--unrelated", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--ngram", type=int, default=8, help="words of an n-gram; prepare_sft_data.py takes 8")
    parser.add_argument("--containment", type=float, default=0.6, help="as in prepare_sft_data.py")
    parser.add_argument("--recall", type=float, default=0.99, help="wanted of the first five disguises")
    parser.add_argument("--recall_of_parts", type=float, default=0.95, help="wanted where only a part is left")
    parser.add_argument("--dropped", type=float, default=0.001, help="allowed of the unrelated records")
    parser.add_argument("--public_data", type=Path, help="directory of the published files")
    parser.add_argument("--innocent", type=Path, nargs="+", default=[], help="directories with Python programs")
    parser.add_argument("--show", type=int, default=0, help="print so many unrelated records that were dropped")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout, timed in turn with this one")
    return parser.parse_args()


def published(folder: Path) -> tuple[list[Problem], list[Planted]]:
    """The published problems of the evaluation sets, and MBPP's other tasks."""
    from tests.public_problems import codecontests, humaneval, mbpp

    tasks = {int(p.problem_id.split("/")[1]): p for p in mbpp(folder)}
    chosen = [*humaneval(folder), *codecontests(folder), *(tasks[i] for i in range(11, 211))]
    return chosen, [Planted(p.prompt, p.canonical_solution) for i, p in tasks.items() if not 11 <= i < 211]


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


def parts(r: random.Random) -> dict[str, Callable[[Problem], Planted | None]]:
    """Disguises that leave a part; None for a problem that has no such part. Indented ones are measured alone: how much
    more may be changed."""
    return {
        "canonical program": lambda p: Planted(bee_like.statement(r), whole(p)),
        "  formatted otherwise": lambda p: Planted(bee_like.statement(r), ast.unparse(ast.parse(whole(p)))),
        "  and a main part": lambda p: Planted(bee_like.statement(r), whole(p) + MAIN.format(f=entry(p))),
        "function renamed": lambda p: Planted(called_otherwise(p.prompt, p)) if "def " in p.prompt else None,
        "another lead": lambda p: Planted(LEAD.sub(r.choice(OTHER_LEADS), p.prompt)) if LEAD.match(p.prompt) else None,
        "another text, the tests": lambda p: Planted(f"{bee_like.story(r, 60)[0]}\n\n{asserts(p)}"),
        "tests alone": lambda p: Planted(asserts(p)),
        "  function renamed": lambda p: Planted(called_otherwise(asserts(p), p)),
    }


MAIN = "\n\nif __name__ == '__main__':\n    n = int(input())\n    print({f}(n))\n"
LEAD = re.compile(r"^Write an? (?:python )?function (?:to|that|which|for) ", re.IGNORECASE)
OTHER_LEADS = ["Could you give me some Python code to ", "Implement a routine that is able to ", "In Python, how do I "]


def entry(problem: Problem) -> str:
    return str(problem.test_cases["entry_point"])


def whole(problem: Problem) -> str:
    return problem.program(problem.canonical_solution or "").replace("\r\n", "\n")


def asserts(problem: Problem) -> str:
    """The tests of a problem as a statement would give them: one assert a line."""
    if problem.test_type == "mbpp":
        return "\n".join(problem.test_cases["test_list"])
    nodes = [node for node in ast.walk(ast.parse(problem.test_cases["test_code"])) if isinstance(node, ast.Assert)]
    return "\n".join(map(ast.unparse, nodes)).replace("candidate", entry(problem))


def called_otherwise(text: str, problem: Problem) -> str:
    return re.sub(rf"\b{entry(problem)}\b", "solve_it", text)


# ------------------------------------------------------------------------------------------------------------ table
def report(title: str, problems: list[Problem], others: list[Planted], args: argparse.Namespace) -> bool:
    start = time.perf_counter()
    index = EvalIndex(map(known_problem, problems), n=args.ngram, threshold=args.containment)
    r, good = random.Random(args.seed), True
    print(f"\n{title}, n-grams of {args.ngram} words, containment {args.containment}")
    print(f"{'disguise':<26}{'found':>8}{'recall':>9}   by rule")
    for at, (name, disguise) in enumerate(disguises(r).items()):
        rules: Counter[str] = Counter()
        for i, problem in enumerate(problems):
            own = "_".join(problem.problem_id.split("/")[-2:]) + ". Its own title"
            title = own if name == "verbatim" else f"{30_000 + i}_C. Another title"
            count(rules, problem, index, title, Planted(disguise(problem.prompt)), r)
        good &= show(name, rules, len(problems)) or at >= 5
    good &= report_unrelated(index, "unrelated, dropped", others, args)
    print(f"{time.perf_counter() - start:.1f} s")
    return good


def report_parts(others: list[Planted], args: argparse.Namespace) -> bool:
    """The table of the disguises that leave a part, for the whole of HumanEval and MBPP."""
    from tests.public_problems import humaneval, mbpp

    sets = {"HumanEval": humaneval(args.public_data), "MBPP": mbpp(args.public_data)}
    index = EvalIndex(map(known_problem, [*sets["HumanEval"], *sets["MBPP"]]), args.ngram, args.containment)
    r, good = random.Random(args.seed), True
    for title, problems in sets.items():
        print(f"\n{title}, {len(problems)} problems, only a part of each\n{'disguise':<26}{'found':>8}{'recall':>9}")
        for name, disguise in parts(r).items():
            rules: Counter[str] = Counter()
            planted = [(problem, found) for problem in problems if (found := disguise(problem))]
            for i, (problem, found) in enumerate(planted):
                count(rules, problem, index, f"{30_000 + i}_C. Another title", found, r)
            wanted = 0.0 if name.startswith(" ") else args.recall_of_parts
            good &= not planted or show(name, rules, len(planted), wanted)
    good &= report_unrelated(index, "unrelated, dropped", others, args)
    if args.innocent:
        files = [path for folder in args.innocent for path in sorted(folder.rglob("*.py")) if path.is_file()]
        programs = [Planted(bee_like.statement(r), path.read_text("utf-8", "replace")) for path in files]
        good &= report_unrelated(index, "innocent programs, dropped", programs, args)
    return good


def count(rules: Counter[str], problem: Problem, index: EvalIndex, title: str, record: Planted, r: random.Random):
    if hit := find(index, title, record, r):
        rules[hit.rule if hit.problem_id == problem.problem_id else f"{hit.rule}, as another problem"] += 1


def show(name: str, rules: Counter[str], of: int, wanted: float = 0.99) -> bool:
    found = sum(rules.values())
    by_rule = ", ".join(f"{rule} {n}" for rule, n in rules.most_common())
    print(f"{name:<26}{found:>8}{found / of:>9.1%}   {by_rule}")
    return found >= wanted * of


def report_unrelated(index: EvalIndex, title: str, others: Iterable[Planted], args: argparse.Namespace) -> bool:
    r, others = random.Random(args.seed), list(others)
    hits = [
        (record, hit)
        for i, record in enumerate(others)
        if (hit := find(index, f"{50_000 + i // 6}_{'ABCDEF'[i % 6]}. Unrelated", record, r))
    ]
    print(f"{title:<26}{len(hits):>8}{len(hits) / len(others):>9.2%}   of {len(others):,}")
    for record, hit in hits[: args.show]:
        shown = record.program if hit.rule == "solution" else record.statement
        print(f"  {hit.problem_id} {hit.rule} {hit.score}: {' '.join(shown.split())[:160]}")
    return len(hits) <= args.dropped * len(others)


def find(index: EvalIndex, name: str, planted: Planted, r: random.Random):
    record = parse_record(bee_like.record(r, name, planted.statement, planted.program, r.choice(bee_like.LEADS)))
    return index.find(record.name, record.source, record.statement, record.solution)


# ------------------------------------------------------------------------------------------------------------- time
A_TURN = """
import json, sys, time
sys.path[:0] = [{checkout!r}]
from pathlib import Path
from phase1.data import bee, decontaminate, filters
from phase1.data.training_records import read_chunks
kept_out = decontaminate.read_kept_out(Path({manifests!r}), True, 0.6)
records = [raw for chunk in read_chunks([Path({source!r})]) for raw in chunk]
parsed = [bee.parse_record(json.loads(raw.payload)) for raw in records]
started = time.process_time()
for record in parsed:
    told = (record.name, record.source, record.statement, record.solution)
    kept_out.index.find(*told[:decontaminate.EvalIndex.find.__code__.co_argcount - 1])
found = time.process_time() - started
settings = filters.Filters(kept_out.index)
started = time.process_time()
for raw in records:
    filters.examine(raw, settings)
print(found / len(records), (time.process_time() - started) / len(records))
"""


def compare_times(args: argparse.Namespace, records: int = 5_000, rounds: int = 5) -> None:
    """CPU time a record of both checkouts, by turns, the best of each: of the search alone, and of all filters of a
    record, HumanEval and MBPP kept out."""
    import tempfile

    with tempfile.TemporaryDirectory() as temp:
        source = Path(temp) / "bee.jsonl"
        bee_like.write_records(source, records)
        manifests = bee_like.write_evaluation_sets(Path(temp) / "eval", public_data=args.public_data)
        best = dict.fromkeys((args.before, Path(__file__).resolve().parents[2]), (float("inf"), float("inf")))
        for _ in range(rounds):
            for checkout in best:
                code = A_TURN.format(checkout=str(checkout.resolve()), manifests=str(manifests), source=str(source))
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
                search, everything = map(float, done.stdout.split())
                best[checkout] = (min(best[checkout][0], search), min(best[checkout][1], everything))
    (search, everything), (own_search, own_everything) = best.values()
    print(f"\n{'CPU ms a record':<26}{'before':>10}{'now':>10}{'ratio':>8}")
    for name, before, now in (("search alone", search, own_search), ("all filters", everything, own_everything)):
        print(f"{name:<26}{before * 1e3:>10.3f}{now * 1e3:>10.3f}{now / before:>8.2f}")


if __name__ == "__main__":
    sys.exit(main())
