"""The judge: a program and a problem's tests in, a verdict out (contract 6).

    python -m phase1.judge --probe                                    # what the sandbox here holds and what it does not
    python -m phase1.judge --raw data/raw/humaneval_raw.jsonl --solutions answers.jsonl --out verdicts.jsonl
    python -m phase1.judge --raw RAW.jsonl.gz --solutions outputs/eval_final/results/humaneval.jsonl --out again.jsonl

What the local judge covers. One bubblewrap a program (phase1/judge/launcher.py), in it a fork-server that forks once a
test (phase1/judge/inside/fork_server.py); expected outputs and comparison stay outside. A program sees /usr, the
interpreter, numpy and scipy where the judge has them, an empty /tmp and /dev/shm, and nothing else: no host files,
network, environment, other processes, nor the fork-server's memory; no new namespaces, tracing, memory files or System
V segments (seccomp). Bounded: CPU time and waiting a test, memory (resident with a cgroup, where one may be made; else
the address space of a process and samples of all together), 64 processes, 80 MiB of files, output. After each test
every process of it is killed. Root drops to uid 65534 before bubblewrap. `--probe` tries each of these here; run.json
records what held. docs/judge.md says how each is tried.

What it does not. A hole in the kernel is a hole in the sandbox. Samples of memory come every 0.1 s, so without a
cgroup several processes can overshoot for that long. Tests of one program share its sandbox: files in /tmp are
removed between tests, and a new sandbox is started where that is not plain. Problems that accept any of several
answers need a checker. Without /proc (docker masks it) the waiting limit is a looser wall clock, and only a cgroup
bounds all processes together. Kernel memory (buffers of sockets and pipes) only a cgroup bounds. With --unsafe and
no bubblewrap there are limits, no isolation.

Rules where contract 6 leaves room. Three timeouts *one after another* end a problem; the tests behind them count as
failed and are not run. Any AssertionError of an assert task is wrong_answer, any other exception (SystemExit too) a
runtime_error. Too much output is a runtime_error with detail `output_limit`. The asserts of an mbpp problem run in
one process, as published, which is not the program's; when one ends it, the next process goes on behind it.
`test_setup_code` runs before the program, and after it where it needs the program's names. Hash order is fixed
(PYTHONHASHSEED=0). Standard modules that a program imports (inside/stage.py, USUAL) are imported once for all its
tests, before them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from phase1.arguments import Parser, output_file
from phase1.contract.extraction import program_of
from phase1.contract.problems import read_raw
from phase1.contract.records import NO_ANSWER
from phase1.files import BadInput, finite, read_jsonl, replacing, run_script, run_stamp, write_json
from phase1.judge.config import JudgeConfig, add_judge_arguments, config_from
from phase1.judge.judge import judge_all, open_judge
from phase1.judge.verdict import Verdict


def main() -> int:
    """The command line. Returns the exit code."""
    parser = Parser(__doc__, prog="python -m phase1.judge")
    what = parser.add_argument_group("what is judged")
    what.add_argument(
        "--probe",
        action="store_true",
        help="try the sandbox's guarantees, print them, exit 1 where one that matters fails",
    )
    what.add_argument(
        "--raw",
        help="raw file of an evaluation set: problems with their tests, .jsonl or .jsonl.gz (needed without --probe)",
    )
    what.add_argument(
        "--solutions", help="a line a solution: {problem_id, code} or {problem_id, completion} (needed without --probe)"
    )
    out = "where to write the verdicts, a line each; OUT.run.json says how they were made (needed without --probe)"
    what.add_argument("--out", type=output_file, help=out)
    add_judge_arguments(parser)
    args = parser.parse_args()
    config = config_from(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds as Ctrl-C does, so that no temporary file stays
    if args.probe:
        return asyncio.run(print_probes(config))
    if not (args.raw and args.solutions and args.out):
        raise BadInput("give --raw, --solutions and --out, or --probe")
    return judge_file(args, config)


async def print_probes(config: JudgeConfig) -> int:
    """Open the judge whatever its probes see, and print what they saw. Returns the exit code."""
    async with open_judge(replace(config, unsafe=True)) as judge:
        info = judge.backend.info
    print("\n".join(info.lines()))
    return 1 if info.missing and not config.unsafe else 0


def judge_file(args: argparse.Namespace, config: JudgeConfig) -> int:
    """Judge a file of solutions; verdicts in the order of the solutions, the file written whole or not at all.

    Raises:
        BadInput: the output cannot be written, or a line of the solutions is not one or names no problem.
    """
    out: Path = args.out
    out.parent.mkdir(parents=True, exist_ok=True)  # before hours of judging, not after
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise BadInput(
            f"{out}: {'is a directory' if out.is_dir() else 'its folder cannot be written to'}; give --out a file"
        )
    problems = read_raw(args.raw)
    items, rows, verdicts = [], {}, {}
    for number, row in read_jsonl(args.solutions):
        key, where, problem = str(number), f"{args.solutions}:{number}", problems.get(str(row.get("problem_id")))
        if problem is None:
            raise BadInput(
                f"{where}: problem_id {row.get('problem_id')!r} is not in {args.raw}; "
                "delete this line, or give its own --raw"
            )
        rows[key] = {"problem_id": problem.problem_id, **({"sample": row["sample"]} if "sample" in row else {})}
        if (
            row.get("finish_reason") in NO_ANSWER
        ):  # a line of an evaluation whose generation failed: nothing to blame on a program
            verdicts[key] = Verdict("api_error", detail=str(row.get("error") or ""))
            continue
        if isinstance(row.get("completion"), str):
            code = program_of(row["completion"], config.extraction)
        elif isinstance(row.get("code"), str):
            code = row["code"]
        else:
            raise BadInput(f"{where}: needs `code` or `completion`, a string")
        items.append((key, problem.program(code), problem.judged))
    if not rows:
        raise BadInput(
            f"{args.solutions}: holds no solution; expected a line each, {{problem_id, code}} or {{problem_id, "
            f"completion}}"
        )
    started = time.time()
    with tqdm(total=len(items), unit="program", disable=None) as bar:
        for key, verdict in judge_all(items, config):
            verdicts[key] = verdict
            bar.update()
    with replacing(args.out) as temp, open(temp, "w", encoding="ascii") as f:
        for key, row in rows.items():
            f.write(json.dumps(finite({**row, **asdict(verdicts[key])}), allow_nan=False) + "\n")
    counts = Counter(v.error_type for v in verdicts.values())
    accepted = sum(v.accepted for v in verdicts.values())
    write_json(
        f"{args.out}.run.json",
        {"stamp": run_stamp(vars(args)), "verdicts": counts, "accepted": accepted, "seconds": time.time() - started},
    )
    print(
        f"{accepted} of {len(rows)} accepted; "
        + ", ".join(f"{n} {k}" for k, n in counts.most_common())
        + f"; {args.out}"
    )
    return 1 if counts["sandbox_error"] else 0


if __name__ == "__main__":
    run_script(main)
