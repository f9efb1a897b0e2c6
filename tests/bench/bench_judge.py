"""How fast the judge is beside its rivals, measured in one run: tests a second on one core, a trivial program of 100
tests.

    python tests/bench/bench_judge.py                    # both tables, about two minutes on an idle machine
    python tests/bench/bench_judge.py --rounds 20 --no_problems
    python tests/bench/bench_judge.py --before CHECKOUT  # the judge of another checkout, in turn with this one
    python tests/bench/bench_judge.py --sandlock_python /path/to/venv/bin/python  # has sandlock (PyPI)

Every rival is pinned to the same core and all take turns in each round; the best round of each counts, since noise only
adds. `ours` includes starting the sandbox, feeding it and comparing. Floors are fork+exit+wait and nothing else, in a
process that has (a) the usual libraries loaded, as a fork-server has that preloads them for every program; (b) what our
fork-server has loaded for this program, which imports nothing. A process that runs no program at all is not a target
that can be reached: the program itself, its output and its end cost what `the program, forked` says, a fork of (b) that
executes the compiled program and ends, with neither sandbox nor feeding, limits, cleaning or comparison.
"""

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all, open_judge
from tests import public_problems

PROGRAM = "print(int(input()) * 2)\n"
TESTS = 100
IN_A_ROW = 5  # programs of ours a round: each starts the next one's sandbox, so that many starts are paid for
USUAL = (
    "import bisect, collections, copy, datetime, decimal, fractions, functools, heapq, itertools, json, math, "
    "operator, random, re, statistics, string, typing"
)
FLOOR_USUAL, FLOOR_OURS = "floor (a): fork+exit+wait, usual libraries", "floor (b): fork+exit+wait, our fork-server's"
FORKED = "the program, forked: no sandbox, nothing else"
OURS = "import atexit, marshal, resource, signal, _ctypes"
FLOOR = """
import gc, os, sys, time
{preload}
code = compile({program!r}, "main.py", "exec")
source, sink = os.memfd_create("in"), os.memfd_create("out")
os.write(source, b"21\\n")
shown = os.dup(1)
os.dup2(source, 0), os.dup2(sink, 1)
gc.collect(); gc.freeze()
started = time.perf_counter()
for _ in range({tests}):
    os.lseek(0, 0, 0)
    pid = os.fork()
    if pid == 0:
        if {execute}:
            exec(code, {{"__name__": "__main__"}})
            sys.stdout.flush()
        os._exit(0)
    os.wait4(pid, 0)
os.write(shown, str(time.perf_counter() - started).encode())
"""
SANDLOCK = """
import os, sys, time
from sandlock import Sandbox
started = time.perf_counter()
for i in range({tests}):
    source = os.memfd_create("in")
    os.write(source, b"%d\\n" % i)
    os.lseek(source, 0, 0)
    os.dup2(source, 0)
    os.close(source)
    done = Sandbox(fs_readable={readable!r}).run({command!r}, timeout=30)
    assert done.stdout == b"%d\\n" % (2 * i), done
print(time.perf_counter() - started)
"""
IN_PROCESS = """
import io, sys, time
code = compile({program!r}, "main.py", "exec")
started = time.perf_counter()
for i in range({tests}):
    sys.stdin, sys.stdout = io.StringIO(f"{{i}}\\n"), io.StringIO()
    exec(code, {{"__name__": "__main__"}})
    assert sys.stdout.getvalue() == f"{{i * 2}}\\n"
sys.stdout = sys.__stdout__
print(time.perf_counter() - started)
"""


# Programs that end in different ways: the last two leave work for the interpreter's end.
KINDS = {
    "trivial": PROGRAM,
    "imports and classes": (
        "import sys, heapq\nfrom collections import deque\nclass A:\n    def f(self): return "
        "int(sys.stdin.readline())\nprint(A().f() * 2)\n"
    ),
    "a generator is left": "import sys\nlines = (line for line in sys.stdin)\nprint(int(next(lines)) * 2)\n",
    "sys.stdout replaced": "import io, os, sys\nclass Out(io.IOBase):\n    def __init__(self): self.b = []\n"
    "    def write(self, t): self.b.append(t)\n"
    "    def flush(self): os.write(1, ''.join(self.b).encode()); self.b = []\nsys.stdout = Out()\n"
    "print(int(input()) * 2)\n",
}
A_TURN = """
import asyncio, os, sys, time
sys.path.insert(0, {checkout!r})
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
os.sched_setaffinity(0, {{max(os.sched_getaffinity(0))}})
tests = [{{"input": f"{{i}}\\n", "output": f"{{i * 2}}\\n"}} for i in range({tests})]
cases = {{"type": "codecontests", "tests": tests}}
async def main():
    async with open_judge(JudgeConfig(workers=1)) as judge:
        await judge.judge({program!r}, cases)
        started = time.perf_counter()
        for again in range({programs}):
            verdict = await judge.judge({program!r} + f"# {{again}}", cases)
        print((time.perf_counter() - started) / {programs}, verdict.error_type)
asyncio.run(main())
"""


def against(before: str, rounds: int) -> None:
    """Print tests/s of this checkout's judge and of another's for each of KINDS, one core, by turns; the best of each
    counts."""
    checkouts = {"before": before, "this": str(Path(__file__).resolve().parents[2])}
    print(
        "| one core, 100 tests a program | before, tests/s | this, tests/s | this / before | verdicts before, "
        "this |\n|---|---|---|---|---|"
    )
    for kind, program in KINDS.items():
        best, verdicts = dict.fromkeys(checkouts, float("inf")), dict.fromkeys(checkouts, "")
        for _ in range(rounds):
            for name, checkout in checkouts.items():
                source = A_TURN.format(checkout=checkout, program=program, programs=IN_A_ROW, tests=TESTS)
                seconds, verdicts[name] = subprocess.run(
                    [sys.executable, "-c", source], capture_output=True, text=True, check=True
                ).stdout.split()
                best[name] = min(best[name], float(seconds))
        rates = {name: TESTS / seconds for name, seconds in best.items()}
        print(
            (
                f"| {kind} | {rates['before']:,.0f} | {rates['this']:,.0f} | {rates['this'] / rates['before']:.2f} "
                f"| {verdicts['before']}, {verdicts['this']} |"
            ),
            flush=True,
        )


def process_a_test(command: list[str]) -> float:
    """Seconds for TESTS runs of `command`, each a process with its own stdin, compared."""
    started = time.perf_counter()
    for i in range(TESTS):
        done = subprocess.run(command, input=b"%d\n" % i, capture_output=True)
        assert done.stdout == b"%d\n" % (2 * i), done.stderr
    return time.perf_counter() - started


def timed_by_itself(source: str, *command: str) -> float:
    return float(
        subprocess.run(
            [*(command or (sys.executable, "-I", "-S")), "-c", source], capture_output=True, text=True, check=True
        ).stdout
    )


def rivals(folder: Path, sandlock_python: str | None) -> dict[str, Callable[[], float]]:
    program = folder / "main.py"
    program.write_text(PROGRAM)
    python = [os.path.realpath(sys.executable), "-I", "-S"]
    prefix = os.path.realpath(sys.base_prefix)
    found: dict[str, Callable[[], float]] = {"bare process a test": lambda: process_a_test([*python, str(program)])}
    if bwrap := shutil.which("bwrap"):
        command = [
            bwrap,
            "--unshare-all",
            "--ro-bind",
            "/",
            "/",
            "--tmpfs",
            "/tmp",
            "--ro-bind",
            str(program),
            "/tmp/main.py",
            *python,
            "/tmp/main.py",
        ]
        found["bubblewrap a test"] = lambda: process_a_test(command)
    if nsjail := shutil.which("nsjail"):
        command_ns = [
            nsjail,
            "-Mo",
            "-q",
            "--chroot",
            "/",
            "-R",
            prefix,
            "-R",
            str(program),
            "--",
            *python,
            str(program),
        ]
        found["nsjail a test"] = lambda: process_a_test(command_ns)
    if sandlock_python:
        readable = [*(path for path in ("/usr", "/lib", "/lib64") if os.path.isdir(path)), prefix, str(folder)]
        source = SANDLOCK.format(tests=TESTS, readable=readable, command=[*python, str(program)])
        found["sandlock a test"] = lambda: timed_by_itself(source, sandlock_python)
    found["in-process exec (no isolation)"] = lambda: timed_by_itself(IN_PROCESS.format(program=PROGRAM, tests=TESTS))
    floor = {"program": PROGRAM, "tests": TESTS}
    found[FLOOR_USUAL] = lambda: timed_by_itself(FLOOR.format(preload=USUAL, execute=False, **floor))
    found[FLOOR_OURS] = lambda: timed_by_itself(FLOOR.format(preload=OURS, execute=False, **floor))
    found[FORKED] = lambda: timed_by_itself(FLOOR.format(preload=OURS, execute=True, **floor))
    return found


async def one_core(rounds: int, sandlock_python: str | None) -> dict[str, float]:
    """Best seconds of each rival and of the judge for TESTS tests, all on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cases = {"type": "codecontests", "tests": [{"input": f"{i}\n", "output": f"{i * 2}\n"} for i in range(TESTS)]}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        others = rivals(Path(folder), sandlock_python)
        best = dict.fromkeys([*others, "ours, start-up included"], float("inf"))
        async with open_judge(JudgeConfig(workers=1)) as judge:
            print(
                f"sandbox: {judge.info['mode']}, interpreter {judge.info['interpreter']['version']}, "
                f"{platform.platform()}, load {os.getloadavg()[0]:.1f}"
            )
            for number in range(rounds):
                for name, measure in others.items():
                    best[name] = min(best[name], measure())
                started = time.perf_counter()
                for again in range(IN_A_ROW):
                    verdict = await judge.judge(f"{PROGRAM}# round {number} {again}", cases)
                    assert verdict.accepted, verdict
                best["ours, start-up included"] = min(
                    best["ours, start-up included"], (time.perf_counter() - started) / IN_A_ROW
                )
    return best


def real_problems(data: Path, workers: int) -> tuple[int, float]:
    """(tests, seconds) of the public problems: reference solutions, and for CodeContests a program that reads its
    input."""
    items = [
        (p.problem_id, p.program(p.canonical_solution), p.test_cases)
        for p in [*public_problems.humaneval(data), *public_problems.mbpp(data)[:200]]
    ]
    reader = "import sys\nprint(sum(map(len, sys.stdin.read().split())))"
    items += [(p.problem_id, reader, p.test_cases) for p in public_problems.codecontests(data)]
    started = time.perf_counter()
    tests = sum(v.tests_run for _, v in judge_all(items, JudgeConfig(workers=workers)))
    return tests, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each rival; the best counts")
    parser.add_argument(
        "--sandlock_python",
        help="interpreter of an environment with sandlock, which comes as a library; left out without",
    )
    parser.add_argument("--no_problems", action="store_true", help="skip the public problems")
    parser.add_argument(
        "--before", metavar="CHECKOUT", help="measure only this checkout's judge and that one's, by turns"
    )
    args = parser.parse_args()
    if args.before:
        against(args.before, args.rounds)
        return
    cores = os.sched_getaffinity(0)
    best = asyncio.run(one_core(args.rounds, args.sandlock_python))
    os.sched_setaffinity(0, cores)
    print(f"\n| one core, trivial program, {TESTS} tests | tests/s | ms a test |\n|---|---|---|")
    for name, seconds in sorted(best.items(), key=lambda item: -item[1]):
        print(f"| {name} | {TESTS / seconds:,.0f} | {seconds / TESTS * 1e3:.2f} |")
    ours = best["ours, start-up included"]
    print(f"\nours / bare process: {best['bare process a test'] / ours:.2f}x (wanted 4.5)")
    print(f"ours / floor (a):    {best[FLOOR_USUAL] / ours:.0%} (wanted 60%)")
    print(f"ours / floor (b):    {best[FLOOR_OURS] / ours:.0%}; of the program, forked: {best[FORKED] / ours:.0%}")
    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    if args.no_problems or not data.is_dir():
        return
    print(
        "\n| public problems (HumanEval, 200 of MBPP, CodeContests sample) | tests | s | tests/s |\n|---|---|---|---|"
    )
    for workers in (1, 2):
        tests, seconds = min((real_problems(data, workers) for _ in range(2)), key=lambda r: r[1])
        print(f"| {workers} worker{'s' * (workers > 1)} | {tests:,} | {seconds:.1f} | {tests / seconds:,.0f} |")


if __name__ == "__main__":
    main()
