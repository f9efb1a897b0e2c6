"""How long the report takes and how large its page is at the contract's size: 1,146 problems a side.

    python tests/bench/bench_report.py
    python tests/bench/bench_report.py --text 20000      # with long prompts and programs
    python tests/bench/bench_report.py --samples 16      # 16 answers a problem

Times the whole command, imports included. Exit 1 beyond 20 s of a core or 5 MB; with several answers beyond 60 s or
8 MB: other work on the machine makes the command late, and costs it next to nothing of a core's time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.report.fake_evaluations import PHASE0, WORSE, Fake, write_evaluation, write_sampled


def main() -> int:
    args = parse_args()
    worst_time, worst_size = 0.0, 0
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp)
        text = "\n# <b>&'\"" * (args.text // 9)  # characters that grow when escaped
        for name, rates, seed in (("base", PHASE0, 0), ("sft", WORSE, 1)):
            fake = Fake(rates, seed=seed, noise=0.3, text=text)  # noise: many flips
            if args.samples > 1:
                write_sampled(root / name, fake, args.samples)
            else:
                write_evaluation(root / name, fake)
        command = [
            sys.executable,
            str(Path(__file__).resolve().parents[2] / "generate_report.py"),
            "--phase0_metrics",
            root / "base" / "metrics.json",
            "--phase1_metrics",
            root / "sft" / "metrics.json",
            "--output_dir",
            root / "out",
            "--qa_html",
        ]
        for i in range(args.repeat):
            started, of_a_core = time.perf_counter(), core_seconds()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds, of_a_core = time.perf_counter() - started, core_seconds() - of_a_core
            size = (root / "out" / "report.html").stat().st_size
            worst_time, worst_size = max(worst_time, of_a_core), max(worst_size, size)
            print(
                f"run {i + 1}: {seconds:.1f} s, {of_a_core:.1f} s of a core, report.html {size / 1e6:.2f} MB, qa.html "
                f"{(root / 'out' / 'qa.html').stat().st_size / 1e6:.2f} MB"
            )
    most_time, most_size = (60, 8_000_000) if args.samples > 1 else (20, 5_000_000)
    return worst_time > most_time or worst_size > most_size


def core_seconds() -> float:
    """What the processes that were waited for have had of a core's time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--text", type=int, default=2000, help="characters added to every prompt, program and message (default: 2000)"
    )
    p.add_argument("--samples", type=int, default=1, help="answers a problem (default: 1)")
    p.add_argument("--repeat", type=int, default=3, help="runs (default: 3)")
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
