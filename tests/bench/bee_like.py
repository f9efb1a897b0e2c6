"""Made-up training records and evaluation sets in the shape of the real ones, for the benchmarks.

Statements are told in sentences that many problems share, filled with words that few share, and end in the phrases of
the trade, so unrelated problems look alike as they do in contests. Lengths are BEE's: about 2.1 kB a record, lognormal;
nine solutions a problem, standing together; one record in twelve is dirty. Equal seeds give equal bytes.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

NAMES = """Polycarp Vasya Petya Alice Bob Masha Misha Chef Takahashi Aoki Kefa Limak Nastya Sasha Anton Dasha Ivan Olya
Timur Zoya Marek Lena Farid Ines Joao Kenji Amara Otto Bruno Clara Dmitri Elif Goran Hana Igor Jelena Karim
Luca Mina Nadia
""".split()  # noqa: SIM905 - words read better than quoted words
NOUNS = """array string vertex edge graph tree grid cell permutation segment stone candy road city bridge card coin box
lamp ticket train robot garden flower fence tower castle river boat island mountain tunnel ladder bottle
cake apple basket ribbon bead necklace letter word page book shelf library drawer key door room corridor
elevator floor roof window mirror clock bell rope wheel gear engine battery cable plug signal message packet
server disk file folder password counter token marble domino tile puzzle piece knight rook queen board die
dragon wizard potion spell sword shield arrow wolf sheep goat cow farm field well pump pipe tank valve meter
bill salary ticket parcel truck warehouse market stall shop orange melon spoon plate kettle oven recipe
cookie napkin curtain carpet blanket pillow
""".split()  # noqa: SIM905 - words read better than quoted words
KINDS = """red blue heavy broken magic ancient hidden empty crooked shiny lucky wooden golden rusty narrow wide frozen
lonely noisy quiet striped bright sticky bitter fragile round square hollow rare common spare locked open
twisted polished painted numbered forgotten
""".split()  # noqa: SIM905 - words read better than quoted words
VERBS = """moves swaps paints removes doubles counts collects buys sells hides opens closes turns cuts joins sorts
reverses shifts copies weighs measures repairs breaks carries throws catches stacks splits merges marks
erases writes reads sends loads fills drains lifts
""".split()  # noqa: SIM905 - words read better than quoted words
STORY = [
    "{N} has {a} {k} {n}s and wants to give them to the {n2}s of the town.",
    "Once {N} found a {k} {n} under the {n2} near the {k2} {n3}.",
    "Every minute {N} {v} one {n} and {v2} the {k} {n2} next to it.",
    "The {n}s stand in a row from left to right, and the i-th {n} has {k} power p_i.",
    "You are given an array of {a} integers that describe the {k} {n}s.",
    "In one operation {N} {v} a {k} {n}, then {v2} any {n2} that is left.",
    "Between each {n} and the following {n2} lies a {k} {n3}.",
    "{N} and {M} play a game with {k} {n}s in turns, {N} goes first.",
    "Whoever cannot move a {n} loses the game to the owner of the {k} {n2}.",
    "A {n} is called {k} if no {n2} inside of it is {k2}.",
    "Help {N} find the smallest number of {k} {n}s that are needed for the {n2}.",
    "It takes {a} seconds until {N} {v} the {k} {n}.",
    "The cost of a {n} is the number of {k} {n2}s on it times {b}.",
    "No two {n}s of the same {n2} may be {k} at once.",
    "{M} does not like {k} {n}s, so {N} {v} at most {a} of them.",
    "Recall that a subsequence of the {n}s is what is left after {N} {v} some of them.",
    "A path through the {n}s is {k} when it visits each {n2} exactly once.",
    "There are {a} {n}s in total, numbered with integers from 1 to n.",
    "At the end {N} {v} whatever {k} {n} {M} has left behind in the {n2}.",
    "The {k} {n} of {N} holds at most {b} {n2}s and one {n3}.",
    "Note that {N} may use the same {n} several times, but the {n2} only once.",
    "For each {n} find out how many {k} {n2}s {M} {v}.",
    "If the {n} is {k}, then {N} {v} it; otherwise {M} {v2} the {n2}.",
    "Two {n}s are neighbours if they share a {k} {n2} or a {n3}.",
    "The {n}s are connected by {a} {k} {n2}s so that there is a way between any two of them.",
    "{N} wonders how long the {k} {n} can last without a {n2}.",
    "Your task is to determine whether {N} can reach the {k} {n} before {M} {v} the {n2}.",
    "Since the {n} is {k}, the {n2} grows by {b} each day.",
]
INPUT = [
    (
        "The first line contains a single integer t (1 \u2264 t \u2264 {e}) \u2014 the number of test cases. Then "
        "t test cases follow."
    ),
    "The first line contains two integers n and m (1 \u2264 n, m \u2264 {e}).",
    "The first line of each test case contains one integer n (1 \u2264 n \u2264 {e}).",
    "The second line contains n integers a_1, a_2, ..., a_n (1 \u2264 a_i \u2264 {e}).",
    "The only line contains a string s of lowercase English letters.",
    "It is guaranteed that the sum of n over all test cases does not exceed {e}.",
    "Each of the next m lines contains two integers u and v \u2014 the {n}s that are joined.",
    "All numbers in the input are integers. The {n}s are given from left to right.",
]
OUTPUT = [
    "Print a single integer \u2014 the answer to the problem.",
    "For each test case print one integer \u2014 the minimum number of operations.",
    'Print "YES" (without quotes) if it is possible, otherwise print "NO".',
    "Output the largest number of {n}s that {N} can have, modulo 10^9 + 7.",
    "For every {n} print the number of {k} {n2}s on a line of its own.",
]
LEADS = [
    "In Python3, your task is to solve the following problem:",
    "Your challenge is to write a Python3 solution to the following problem:",
    "Please create a solution in Python3 to the following problem:",
    "Develop a solution in python3 to the problem described below:",
    "Construct a Python3 code solution to the problem outlined:",
]
LINES = [
    "n = int(input())",
    "a = list(map(int, input().split()))",
    "res = 0",
    "for i in range(n):",
    "    if a[i] > {k}:",
    "        res += a[i] * {k}",
    "    else:",
    "        res -= {k}",
    "d{k} = dict()",
    "def f{k}(x, y):",
    "    return (x * {k} + y) % 1000000007",
    "b = sorted(set(a), key=lambda v: -v % {k})",
    "print(res + {k})",
]
DIRT = {1: "print 1", 2: "print((", 3: "", 4: "x = raw_input()"}


def story(r: random.Random, length: int) -> list[str]:
    """Sentences of about `length` characters together."""
    sentences, size = [], 0
    cast = r.sample(NAMES, 2)
    while size < length:
        template = r.choice(STORY)
        n, n2, n3, k, k2, v, v2 = *r.choices(NOUNS, k=3), *r.choices(KINDS, k=2), *r.choices(VERBS, k=2)
        sentences.append(
            template.format(
                N=cast[0],
                M=cast[1],
                n=n,
                n2=n2,
                n3=n3,
                k=k,
                k2=k2,
                v=v,
                v2=v2,
                a=r.randrange(2, 99),
                b=r.randrange(2, 999),
            )
        )
        size += len(sentences[-1]) + 1
    return sentences


def examples(r: random.Random) -> str:
    blocks = [
        (
            f"Input\n\n{r.randrange(1, 9)}\n"
            f"{' '.join(str(r.randrange(1, 100)) for _ in range(r.randrange(2, 9)))}\n\n\nOutput\n\n"
            f"{r.randrange(1, 1000)}"
        )
        for _ in range(r.randrange(1, 4))
    ]
    return "Examples\n\n" + "\n\n".join(blocks)


def statement(r: random.Random) -> str:
    """A contest problem as CodeContests describes it."""
    length = int(min(5000, max(250, r.lognormvariate(6.8, 0.5))))
    sentences = story(r, length)
    paragraphs = [" ".join(sentences[i : i + 4]) for i in range(0, len(sentences), 4)]
    fill = {
        "n": r.choice(NOUNS),
        "n2": r.choice(NOUNS),
        "k": r.choice(KINDS),
        "N": r.choice(NAMES),
        "e": r.choice(["100", "1000", "10^5", "2 \u22c5 10^5", "10^9"]),
    }
    given = " ".join(s.format(**fill) for s in r.sample(INPUT, r.randrange(2, 5)))
    wanted = r.choice(OUTPUT).format(**fill)
    note = (
        f"\n\nNote\n\nIn the first example {r.choice(NAMES)} takes {r.randrange(2, 50)} steps."
        if r.random() < 0.5
        else ""
    )
    return "\n\n".join(paragraphs) + f"\n\nInput\n\n{given}\n\nOutput\n\n{wanted}\n\n{examples(r)}{note}"


def solution(r: random.Random) -> str:
    return "\n".join(
        line.format(k=r.randrange(2, 999))
        for line in LINES
        for _ in range(1 if line[0] in " fd" else r.randrange(1, 5))
    )


def record(r: random.Random, name: str, text: str, code: str, lead: str = LEADS[0], language: str = "PYTHON3") -> dict:
    """A line of BEE."""
    return {
        "name": name,
        "source": 2,
        "difficulty": r.randrange(6, 12),
        "language": language,
        "text": f"### Prompt\n\n{lead} {text}\n\n### Response\n\n```python3\n{code}\n```",
    }


def write_records(path: Path, count: int, seed: int = 5) -> None:
    """Write `count` records; the same first lines whatever the count."""
    r = random.Random(seed)
    with open(path, "w", encoding="utf-8") as f:
        for i in range(count):
            if i % 9 == 0:
                text, problem, lead = statement(r), 10_000 + i // 54, r.choice(LEADS)
                name = f"{problem}_{'ABCDEF'[i // 9 % 6]}. {r.choice(KINDS).title()} {r.choice(NOUNS).title()}"
            code = DIRT.get(r.randrange(40)) if r.random() < 0.6 else None
            f.write(
                json.dumps(
                    record(
                        r, name, text, solution(r) if code is None else code, lead, "PYTHON3" if i % 50 else "PYTHON"
                    )
                )
                + "\n"
            )


def write_evaluation_sets(folder: Path, seed: int = 7, public_data: Path | None = None) -> Path:
    """Manifests and raw files of the five sets at the contract's sizes, for decontamination alone; the manifest
    directory. With `public_data`, the published HumanEval and MBPP are in place of the made-up ones."""
    from phase1.contract.problems import EVAL_SETS
    from tests.public_problems import humaneval, mbpp

    r, contests = random.Random(seed), itertools.count(1000)
    published = {"humaneval": humaneval, "mbpp_reg": mbpp} if public_data else {}
    (folder / "manifests").mkdir(parents=True)
    (folder / "raw").mkdir()
    for name, found in EVAL_SETS.items():
        if read := published.get(name):
            rows = [
                {
                    "problem_id": p.problem_id,
                    "prompt": p.prompt,
                    "test_cases": p.test_cases,
                    "canonical_solution": p.canonical_solution,
                }
                for p in read(public_data)
            ]
        else:
            rows = []
            for i in range(found.size):
                problem_id = f"Codeforces/{next(contests)}/A" if name.startswith("code") else f"{name}/{i}"
                prompt = statement(r) if name.startswith("code") else " ".join(story(r, 120))
                cases = {"type": "codecontests", "tests": [{"input": "", "output": "1"}]}
                rows.append({"problem_id": problem_id, "prompt": prompt, "test_cases": cases})
        with (
            open(folder / "manifests" / f"{name}_manifest.jsonl", "w") as m,
            open(folder / "raw" / f"{name}_raw.jsonl", "w") as raw,
        ):
            for row in rows:
                m.write(json.dumps({"problem_id": row["problem_id"]}) + "\n")
                raw.write(json.dumps(row) + "\n")
    return folder / "manifests"
