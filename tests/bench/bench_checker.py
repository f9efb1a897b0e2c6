"""What a checker costs: tests a second with a Python checker and with a C++ one beside plain comparison, in one run.

    python tests/bench/bench_checker.py              # about a minute on an idle machine
    python tests/bench/bench_checker.py --rounds 10

All take turns in each round on one core and the best round of each counts, since noise only adds. Each judges programs
of 100 tests; a checker is one more process a test in a sandbox of its own. Exits 1 where the programs with a Python
checker run at less than half the speed of those without.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.judge.config import JudgeConfig
from tests.judge.checkers_by_hand import SUM_CPP, SUM_PYTHON
from tests.judge.running_judge import RunningJudge, stdin

WANTED = 0.5
TESTS = 100
# Any two numbers whose sum is n: a program that does nothing else, and one that works as contest programs do.
PROGRAMS = {
    "trivial": "n = int(input())\nprint(1, n - 1)\n",
    "10 ms of work": (
        "import sys\nfrom collections import deque\nn = int(sys.stdin.readline())\nseen, queue = {0}, deque([0])\n"
        "while queue and len(seen) < 20000:\n    at = queue.popleft()\n    for to in (at + 1, 2 * at + 1):\n"
        "        if to not in seen:\n            seen.add(to)\n            queue.append(to)\nprint(1, n - 1)\n"
    ),
}
RIVALS = {
    "compared": {},
    "python checker": {"checker": {"kind": "python", "source": SUM_PYTHON}},
    "C++ checker": {"checker": {"kind": "testlib", "source": SUM_CPP}},
}


def main() -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    judge = RunningJudge(JudgeConfig(workers=1))
    best: dict[tuple[str, str], float] = {}
    try:
        for number in range(args.rounds + 1):  # the first one compiles the checker
            for name, program in PROGRAMS.items():
                for rival, more in RIVALS.items():
                    cases = stdin(*((f"{n}\n", f"1 {n - 1}\n") for n in range(TESTS)), **more)
                    started = time.perf_counter()
                    verdict = judge(f"{program}# {number}", cases)
                    rate = TESTS / (time.perf_counter() - started)
                    if verdict.error_type != "success":
                        raise SystemExit(f"{name}, {rival}: {verdict.error_type}: {verdict.detail}")
                    best[name, rival] = max(best.get((name, rival), 0.0), rate)
    finally:
        judge.close()
    print(
        f"| one core, {TESTS} tests a program | " + " | ".join(f"{r}, tests/s" for r in RIVALS) + " | python/compared |"
    )
    print("|---" * (len(RIVALS) + 2) + "|")
    shares = []
    for name in PROGRAMS:
        rates = [best[name, rival] for rival in RIVALS]
        shares.append(rates[1] / rates[0])
        print(
            f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + f" | {shares[-1]:.2f} (wanted {WANTED}) |"
        )
    return 0 if min(shares) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
