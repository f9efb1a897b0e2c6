"""Judging while the rest is generated: the evaluation's wall time beside generation alone and judging alone.

    python tests/bench/bench_overlap.py                  # three ratios of the two, about three minutes
    python tests/bench/bench_overlap.py --memory         # instead: peak memory of phase1_eval.py at the real sets' size

A stub server (tests/generate/stub_vllm.py) answers at a settable pace, the judge is the real one, and the programs need
a known CPU time. All three are measured in the same run through the same functions: `generate` alone, `evaluate` on
stored answers alone, `evaluate` doing both. The original judged after each batch: its wall time is the sum of the two.
Exit 1 where the wall time exceeds 1.10 x the longer of the two.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.contract.problems import EVAL_SETS, Problem, load_problems
from phase1.evaluate.display import Display
from phase1.evaluate.loop import evaluate
from phase1.generate.generate import Answering, load_checked_tokenizer, open_generation
from phase1.generate.make_requests import Wanted
from phase1.generate.sampling import Sampling
from phase1.generate.vllm_backend import VllmGenerator
from phase1.generate.vllm_client import ClientSettings
from phase1.generate.vllm_servers import ask
from phase1.judge.config import JudgeConfig
from phase1.machine import free_ports
from phase1.model.tokenizer import chat_ids, load_chat_tokenizer
from tests.generate.stub_vllm import key

ROOT = Path(__file__).resolve().parents[2]
PLACES = 8  # answers at a time that the stub works on
BURN = "import time\nwhile time.process_time() < {seconds}: pass\nprint(input())  # {number}\n"


def main() -> int:
    args = parse_args()
    with tempfile.TemporaryDirectory() as temp:
        work = Path(temp)
        model = work / "model"
        subprocess.run(
            [sys.executable, str(ROOT / "data" / "samples" / "build_model.py"), "--output_dir", str(model)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return memory(work, model) if args.memory else overlap(args, work, model)


def overlap(args: argparse.Namespace, work: Path, model: Path) -> int:
    """A row a ratio of generation to judging."""
    problems = [
        Problem(
            "codecontests_valid",
            f"burn/{n}",
            f"Problem {n}: print the input.",
            {"type": "codecontests", "tests": [{"input": f"{t}\n", "output": f"{t}\n"} for t in range(5)]},
        )
        for n in range(args.problems)
    ]
    sets = {"codecontests_valid": problems}
    once = {"n_samples": 1, "session": 0, "judge_config": JudgeConfig(), "on_begun": lambda record: None}
    tokenizer = load_chat_tokenizer(model)
    answers = {
        key(chat_ids(tokenizer, p.user)): f"<code>\n{BURN.format(seconds=args.cpu_per_test, number=n)}</code>"
        for n, p in enumerate(problems)
    }
    (work / "answers.json").write_text(json.dumps(answers))
    judging_estimate = args.problems * 5 * args.cpu_per_test / JudgeConfig().parallel
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, {args.problems} "
        f"programs of 5 tests of {args.cpu_per_test} s, {JudgeConfig().parallel} judge workers"
    )
    print(
        "| generation : judging | generation alone s | judging alone s | both s | both / longer | serial would "
        "be s |\n|---|---|---|---|---|---|"
    )
    worst = 0.0
    for ratio in (1 / 3, 1, 3):
        seconds = judging_estimate * ratio * PLACES / args.problems
        with stub(
            work, model, "--answers", str(work / "answers.json"), "--places", str(PLACES), "--seconds", str(seconds)
        ) as url:
            answering = Answering(model, Sampling(), VllmGenerator(ClientSettings(), urls=(url,)))
            out = work / f"out_{ratio:.2f}"
            alone = timed(generate_only(problems, answering))
            both = timed(evaluate(out, sets, answering=answering, **once))
        shutil.rmtree(out / "results")
        judging = timed(evaluate(out, sets, answering=None, **once))
        worst = max(worst, both / max(alone, judging))
        print(
            (
                f"| {ratio:.2f} | {alone:.1f} | {judging:.1f} | {both:.1f} | {both / max(alone, judging):.3f} | "
                f"{alone + judging:.1f} |"
            ),
            flush=True,
        )
    return worst > 1.10


def timed(work: Coroutine[object, object, object]) -> float:
    """Seconds that a coroutine takes, its output kept away."""
    started = time.perf_counter()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        asyncio.run(work)
    return time.perf_counter() - started


async def generate_only(problems: list[Problem], answering: Answering) -> None:
    todo = [Wanted(problem, 0) for problem in problems]
    tokenizer = load_checked_tokenizer(answering)
    async with open_generation(todo, answering, tokenizer, 0, Display(len(problems), 0, 0)) as begun:
        async for _ in begun.completions:
            pass


@contextlib.contextmanager
def stub(work: Path, model: Path, *args: str):
    """The URL of a stub server."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.generate.stub_vllm", "--model", str(model), "--port", str(port), *args], cwd=ROOT
    )
    try:
        for _ in range(400):
            with contextlib.suppress(OSError):
                ask(url + "/health", timeout=1)
                break
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def memory(work: Path, model: Path) -> int:
    """Peak memory of the evaluator over the five sets at their real sizes: 1,146 problems, 782 of them with about 130
    tests.

    Statements, tests and answers have the sizes of the public sets; every program is a short one, so that the run takes
    a minute: what is held does not depend on how long a program runs.
    """
    rng = random.Random(0)
    for folder in ("manifests", "raw"):
        (work / "data" / folder).mkdir(parents=True)
    for name, eval_set in EVAL_SETS.items():
        rows = []
        for n in range(eval_set.size):
            if name.startswith("codecontests"):  # a tenth of them with tests of 20 kB, as large inputs are
                size = 20_000 if n % 10 == 0 else 150
                tests = [
                    {"input": "1 " * (size // 2) + f"{t}\n", "output": f"{t}\n"} for t in range(rng.randint(30, 230))
                ]
                cases: dict = {"type": "codecontests", "tests": tests}
            elif name == "humaneval":
                cases = {
                    "type": "humaneval",
                    "test_code": "def check(candidate):\n" + "    assert candidate(1) == 1\n" * 8,
                    "entry_point": "f",
                }
            else:
                cases = {
                    "type": "mbpp",
                    "test_list": ["assert f(1) == 1"] * 3,
                    "entry_point": "f",
                    "example_call": "f(1)",
                }
            rows.append({"problem_id": f"{name}/{n}", "prompt": f"Problem {n}. " + "word " * 300, "test_cases": cases})
        (work / "data" / "manifests" / f"{name}_manifest.jsonl").write_text(
            "".join(json.dumps({"problem_id": r["problem_id"]}) + "\n" for r in rows)
        )
        (work / "data" / "raw" / f"{name}_raw.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    tokenizer, answers = load_chat_tokenizer(model), {}
    for name in EVAL_SETS:
        for n, p in enumerate(load_problems(work / "data" / "manifests", name)):
            code = f"print(input().split()[-1])  # {n}" if p.test_type == "codecontests" else "def f(x):\n    return x"
            answers[key(chat_ids(tokenizer, p.user))] = f"<code>\n{code}\n</code>" + " " * 4000
    (work / "answers.json").write_text(json.dumps(answers))
    raw = sum(p.stat().st_size for p in (work / "data" / "raw").iterdir())
    with stub(work, model, "--answers", str(work / "answers.json"), "--seconds", "0.05") as url:
        command = [
            sys.executable,
            str(ROOT / "phase1_eval.py"),
            "--model_path",
            str(model),
            "--output_dir",
            str(work / "out"),
            "--vllm_url",
            url,
            "--manifest_dir",
            str(work / "data" / "manifests"),
            "--datasets",
            *EVAL_SETS,
        ]
        started = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)  # of this process alone: sandboxes are children of children
        seconds = time.perf_counter() - started
    problems = sum(s.size for s in EVAL_SETS.values())
    print(
        f"{problems} problems, raw files of {raw / 2**20:.0f} MiB, {seconds:.0f} s, exit "
        f"{os.waitstatus_to_exitcode(status)}: evaluator's peak {usage.ru_maxrss / 1024:.0f} MiB"
    )
    return os.waitstatus_to_exitcode(status) != 0 or usage.ru_maxrss > 1_000_000


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--problems", type=int, default=100, help="programs to generate and judge (default: 100)")
    p.add_argument(
        "--cpu_per_test", type=float, default=0.04, help="CPU seconds a test; five tests a program (default: 0.04)"
    )
    p.add_argument("--memory", action="store_true", help="measure the evaluator's memory at 1,146 problems instead")
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
