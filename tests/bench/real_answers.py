"""How alike are two answers of a real model to one problem? Measured on answers that others published.

    git clone https://github.com/microsoft/CodeT
    cp CodeT/CodeT/data/generated_data/HumanEval_codegen16B*_code_solution.jsonl answers.jsonl
    python tests/bench/real_answers.py --humaneval HumanEval.jsonl.gz --work DIR --answers answers.jsonl

--answers holds a line a problem, {"prompt", "samples"}; the problem is found by its function's name and its prompt, an
answer ends where the next statement of the outermost level begins. Judges the first --samples of each in the sandbox,
then prints pass@k, to be held against what the authors published, and the mean and rho that phase1/report/power.py
takes: rho is the correlation of two answers to one problem, the variance of the problems' chances over that of all
answers.
"""

import argparse
import difflib
import gzip
import json
import re
import subprocess
import sys
from math import comb
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
NEXT_STATEMENT = re.compile(r"\n(?=class |def |#|if |print|assert|@)")


def main() -> int:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    prepare = [sys.executable, str(ROOT / "prepare_eval_data.py"), "--output_dir", str(args.work / "data")]
    subprocess.run([*prepare, "--datasets", "humaneval", "--humaneval_file", str(args.humaneval)], check=True)
    solutions, verdicts = args.work / "solutions.jsonl", args.work / "verdicts.jsonl"
    programs = programs_of(args.answers, args.humaneval, args.samples)
    solutions.write_text("".join(json.dumps({"problem_id": i, "code": code}) + "\n" for i, code in programs))
    judge = [sys.executable, "-m", "phase1.judge", "--raw", str(args.work / "data" / "raw" / "humaneval_raw.jsonl")]
    judge += ["--solutions", str(solutions), "--out", str(verdicts), "--run_timeout", str(args.run_timeout)]
    subprocess.run(judge, cwd=ROOT, check=True)
    accepted: dict[str, list[bool]] = {}
    for line in verdicts.read_text().splitlines():
        verdict = json.loads(line)
        accepted.setdefault(verdict["problem_id"], []).append(verdict["accepted"])
    report(np.array(list(accepted.values()), float))
    return 0


def programs_of(answers: Path, humaneval: Path, samples: int) -> list[tuple[str, str]]:
    """(problem, program) of the first `samples` answers to each problem."""
    with gzip.open(humaneval, "rt", encoding="utf-8") as f:
        problems = [json.loads(line) for line in f]
    found: dict[str, list[str]] = {}
    for line in answers.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = re.findall(r"def (\w+)\(", row["prompt"])[-1]
        same_name = [p for p in problems if p["entry_point"] == name]
        problem = max(same_name, key=lambda p: difflib.SequenceMatcher(None, p["prompt"], row["prompt"]).ratio())
        if problem["task_id"] in found:
            raise ValueError(f"{answers}: two lines for {problem['task_id']}")
        found[problem["task_id"]] = [row["prompt"] + body(text) for text in row["samples"][:samples]]
    return [(i, code) for i, codes in sorted(found.items()) for code in codes]


def body(text: str) -> str:
    return text if text.startswith(("class ", "def ")) else NEXT_STATEMENT.split(text, maxsplit=1)[0]


def report(accepted: np.ndarray) -> None:
    """Prints pass@k, the mean and rho of a table of problems by answers."""
    problems, k = accepted.shape
    right = accepted.sum(axis=1).astype(int)
    for draw in (1, 10, k):
        missed = [comb(k - int(n), draw) / comb(k, draw) for n in right]
        print(f"pass@{draw}: {100 * (1 - np.mean(missed)):.1f}%")
    for name, part in ((f"all {k}", accepted), ("the first half", accepted[:, : k // 2])):
        share, each = part.mean(axis=1), part.shape[1]
        within = float(np.mean(share * (1 - share)) * each / (each - 1))
        between = float(share.var(ddof=1)) - within / each
        print(f"{name} answers to {problems} problems: mean {part.mean():.3f}, rho {between / (between + within):.3f}")


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--answers", type=Path, required=True, help="JSON Lines of {prompt, samples}")
    p.add_argument("--humaneval", type=Path, required=True, help="HumanEval.jsonl.gz")
    p.add_argument("--work", type=Path, required=True, help="programs and verdicts go here")
    p.add_argument("--samples", type=int, default=32, help="answers of each problem that are judged (default: 32)")
    p.add_argument("--run_timeout", type=float, default=2, help="CPU seconds of a test (default: 2)")
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
