"""prepare_sft_data.py at full size, against reading the file and tokenising it once with the bare fast tokenizer.

    python tests/bench/bench_prepare.py --model MODEL_DIR                       # 95,629 records, about 200 MB
    python tests/bench/bench_prepare.py --model MODEL_DIR --records 1000000 --work_dir /var/tmp/bench

MODEL_DIR holds a tokenizer with a chat template. The records are made up: BEE-like lengths, several solutions a problem,
a tenth of them dirty. Both sides run on the same file in the same run; memory is sampled over the whole process tree.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["the", "of", "a", "number", "integer", "each", "is", "array", "string", "vertex", "edge", "graph", "operation", "minimum",
         "maximum", "sum", "line", "contains", "test", "case", "print", "input", "output", "first", "second", "element", "position",
         "cost", "move", "cell", "grid", "row", "column", "between", "such", "that", "can", "any", "given", "exactly"]  # fmt: skip
LINES = ["n = int(input())", "a = list(map(int, input().split()))", "res = 0", "for i in range(n):", "    if a[i] > {k}:",
         "        res += a[i] * {k}", "    else:", "        res -= {k}", "d{k} = dict()", "def f{k}(x, y):",
         "    return (x * {k} + y) % 1000000007", "b = sorted(set(a), key=lambda v: -v % {k})", "print(res + {k})"]  # fmt: skip


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory(dir=args.work_dir) as temp:
        source = Path(temp) / "bee.jsonl"
        make_records(source, args.records)
        size = source.stat().st_size
        bare = [sys.executable, __file__, "--model", args.model, "--tokenise", source]
        script = [sys.executable, ROOT / "prepare_sft_data.py", "--input_jsonl", source, "--output_dir", Path(temp) / "out", "--model",
                  args.model, "--manifest_dir", args.manifest_dir, "--allow_missing_manifests", "--no_verl_check"]  # fmt: skip
        rows = [(name, *measure(command)) for name, command in (("read and tokenise once", bare), ("prepare_sft_data.py", script))]
        report = json.loads((Path(temp) / "out" / "sft_report.json").read_text())
    print(f"\n{args.records:,} records, {size / 1e6:.0f} MB, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<26}{'wall s':>9}{'cpu s':>9}{'ms/record':>11}{'main RSS MB':>13}{'tree PSS MB':>13}")
    for name, wall, cpu, rss, pss in rows:
        print(f"{name:<26}{wall:>9.1f}{cpu:>9.1f}{1000 * wall / args.records:>11.3f}{rss:>13.0f}{pss:>13.0f}")
    print(f"ratio {rows[1][1] / rows[0][1]:.2f} in wall time, {rows[1][2] / rows[0][2]:.2f} in CPU time")
    print(f"kept {report['final_total']:,}; dropped {report['dropped']}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory with tokenizer.json and a chat template")
    parser.add_argument("--records", type=int, default=95_629)
    parser.add_argument("--manifest_dir", default=str(ROOT / "data" / "samples" / "manifests"))
    parser.add_argument("--work_dir", default=None, help="where the made-up file and the outputs lie for the while")
    parser.add_argument("--tokenise", type=Path, help=argparse.SUPPRESS)  # the rival, in a process of its own
    args = parser.parse_args()
    if args.tokenise:
        tokenise(args.tokenise, Path(args.model) / "tokenizer.json")
        sys.exit(0)
    return args


def tokenise(source: Path, tokenizer: Path) -> None:
    """The rival: every `text` of the file through the bare tokenizer, on all cores, in batches."""
    from tokenizers import Tokenizer

    bare, batch = Tokenizer.from_file(str(tokenizer)), []
    with open(source, "rb") as f:
        for line in f:
            batch.append(json.loads(line)["text"])
            if len(batch) == 1024:
                bare.encode_batch_fast(batch)
                batch.clear()
    bare.encode_batch_fast(batch)


def make_records(path: Path, count: int) -> None:
    """Write made-up records: statement lengths lognormal about 1,300 characters, nine solutions a problem."""
    r = random.Random(5)
    dirt = {1: "print 1", 2: "print((", 3: "", 4: "x = raw_input()"}
    with open(path, "w", encoding="utf-8") as f:
        for i in range(count):
            if i % 9 == 0:
                length = int(min(6000, r.lognormvariate(7.0, 0.5)) / 6.2)
                words = " ".join(w if r.random() < 0.9 else f"{w}{r.randrange(1000)}" for w in r.choices(WORDS, k=length))
                problem = i // 9
            lines = [line.format(k=r.randrange(2, 999)) for line in LINES for _ in range(1 if line.startswith((" ", "for", "def")) else r.randrange(1, 5))]
            solution = dirt.get(r.randrange(40), "\n".join(lines))
            text = (f"### Prompt\n\nIn Python3, your task is to solve the following problem: {words}\n\nInput\n\nOne line.\n\n"
                    f"Output\n\nPrint it.\n\nExamples\n\nInput\n\n1 2\n\n\nOutput\n\n3\n\n\n### Response\n\n```python3\n{solution}\n```")  # fmt: skip
            f.write(json.dumps({"name": f"{100000 + problem}. Title {problem}", "source": 2, "difficulty": 7,
                                "language": "PYTHON3" if i % 50 else "PYTHON", "text": text}) + "\n")  # fmt: skip


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
                children = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
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
