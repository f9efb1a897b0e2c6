"""The judge's tail: from the last completion to the last verdict, serial beside side by side.

    python tests/bench/bench_tail.py                    # 317 programs, ten of which time out, 16 workers
    python tests/bench/bench_tail.py --burn             # they compute: needs as many cores as workers

317 programs come in at an even pace over --seconds, as completions do; ten of them, evenly spread, the last one
included, end no test. Each of those has ten tests, of which three time out one after another. By default they wait
rather than compute, so that 16 workers need no 16 cores: a test that waits is ended a second behind its limit. Both
ways are measured in the same run. Exit 1 where a verdict of the two differs in any field that holds
no measured time, or where the tail is longer than 1.2 times the slowest single test.
"""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.judge.config import JudgeConfig
from phase1.judge.judge import Judge, open_judge
from phase1.judge.verdict import Verdict

TESTS = [{"input": f"{n}\n", "output": f"{n}\n"} for n in range(10)]
QUICK = "print(input())  # {number}"
WAITS = "import time\ntime.sleep(3600)  # {number}"
BURNS = "while True: pass  # {number}"
LONGEST_TAIL = 1.2  # times the slowest single test


@dataclass(frozen=True)
class Way:
    """One way of judging. Seconds."""

    verdicts: list[Verdict]
    tail: float
    slowest: float


def main() -> int:
    args = parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, {args.workers} workers, {args.programs} programs over "
        f"{args.seconds:g} s, {args.endless} that {'compute' if args.burn else 'wait'} for ever, "
        f"limit {args.limit:g} s a test"
    )
    serial, beside = asyncio.run(both(args))
    print("| way | slowest test s | last completion to last verdict s | over the slowest test |\n|---|---|---|---|")
    for name, way in (("serial", serial), ("side by side", beside)):
        print(f"| {name} | {way.slowest:.2f} | {way.tail:.2f} | {way.tail / way.slowest:.2f} |")
    differ = sum(told(a) != told(b) for a, b in zip(serial.verdicts, beside.verdicts, strict=True))
    late = sum(v.error_type == "timeout" for v in beside.verdicts)
    print(f"verdicts that differ: {differ}; timeouts: {late}")
    return int(differ > 0 or late != args.endless or beside.tail > LONGEST_TAIL * beside.slowest)


async def both(args: argparse.Namespace) -> list[Way]:
    async with open_judge(JudgeConfig(workers=args.workers)) as judge:
        pool = judge.backend.pool
        run_ahead, pool.run_ahead = pool.run_ahead, None
        serial = await come_in(judge, args)
        judge.judged.clear()
        pool.run_ahead = run_ahead
        return [serial, await come_in(judge, args)]


async def come_in(judge: Judge, args: argparse.Namespace) -> Way:
    """The programs, one after another at their pace; the endless ones evenly spread, one of them the last."""
    every = args.programs / args.endless
    endless = {round(every * n) for n in range(1, args.endless + 1)}
    cases = {"type": "codecontests", "tests": TESTS, "time_limit": args.limit}
    judging, started = [], time.monotonic()
    for number in range(1, args.programs + 1):
        await asyncio.sleep(max(0.0, started + args.seconds * number / args.programs - time.monotonic()))
        source = (BURNS if args.burn else WAITS) if number in endless else QUICK
        judging.append(asyncio.create_task(judge.judge(source.format(number=number), cases)))
    last = time.monotonic()
    verdicts = await asyncio.gather(*judging)
    tail = time.monotonic() - last
    slowest = max(v.first_failed_case["wall"] for v in verdicts if v.first_failed_case)
    return Way(verdicts, tail, slowest)


def told(verdict: Verdict) -> dict:
    """A verdict without what was measured."""
    fields = asdict(verdict) | {"judge_time": 0}
    if case := fields["first_failed_case"]:
        case |= {"cpu": 0, "wall": 0, "peak_rss": 0}
    return fields


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--programs", type=int, default=317, help="programs in all (default: 317)")
    p.add_argument("--endless", type=int, default=10, help="of them (default: 10)")
    p.add_argument("--workers", type=int, default=16, help="judge workers (default: 16)")
    p.add_argument("--limit", type=float, default=5.0, help="CPU seconds a test (default: 5)")
    p.add_argument("--seconds", type=float, default=20.0, help="over which completions come in (default: 20)")
    p.add_argument("--burn", action="store_true", help="the endless programs compute")
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
