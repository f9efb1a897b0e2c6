"""Programs a second through verl's own reward workers, beside the judge alone in the same run.

    python tests/bench/bench_reward.py                        # 1 and 8 workers, about two minutes on two cores
    .venv-latest/bin/python tests/bench/bench_reward.py       # the same with verl 0.9.1
    python tests/bench/bench_reward.py --workers 1 8 16 --answers 2000

grpo_model.yaml is written and resolved as main_ppo resolves it. Each worker is a process with verl's RewardLoopWorker,
which decodes an answer's ids and calls the reward; all start their part at once, as at the end of a step's rollouts.
The judge alone is one process that judges the same programs, as many at a time as the machine has cores. Every program
is different, so none is remembered. All take turns in each round, and the best round of each counts. Exit 1 where 8
workers do less than 60% of the judge alone.
"""

import argparse
import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.contract.problems import Problem, load_problems
from phase1.contract.prompts import answer
from phase1.handoff.grpo import NAME, grpo_yaml
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all

ROOT = Path(__file__).resolve().parents[2]
LIMIT, LIMIT_AT = 0.60, 8  # share of the judge's own throughput, at so many workers


@dataclass(frozen=True)
class Asked:
    """A problem and a right answer to it, whose program is no other's."""

    problem: Problem
    code: str


def main() -> int:
    args = parse_args()
    import verl.experimental.reward_loop.reward_loop  # noqa: F401  imported once, inherited by the forked workers

    problems = load_problems(ROOT / "data/samples/manifests", "codecontests_valid")
    best: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as temp:
        model, folder = Path(temp) / "model", Path(temp) / "handoff"
        build = [sys.executable, str(ROOT / "data/samples/build_model.py"), "--output_dir", str(model)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        folder.mkdir()
        (folder / NAME).write_text(grpo_yaml(model, ROOT))
        for number in range(args.rounds):
            asked = [
                Asked(p, f"{p.canonical_solution}\n# {number}.{i}")
                for i in range(args.answers)
                for p in [problems[i % len(problems)]]
            ]
            for workers in (0, *args.workers):
                seconds = by_workers(asked, workers, folder) if workers else alone(asked)
                best[workers] = max(best.get(workers, 0.0), len(asked) / seconds)
    print(f"verl {version('verl')}, {JudgeConfig().parallel} cores, {args.answers} answers, best of {args.rounds}")
    print("| through | programs/s | of the judge alone |\n|---|---|---|")
    for workers, rate in best.items():
        name = f"verl's reward workers: {workers}" if workers else "the judge alone"
        print(f"| {name} | {rate:.1f} | {rate / best[0]:.0%} |")
    share = best.get(LIMIT_AT, best[0]) / best[0]
    if share < LIMIT:
        print(f"FAIL: {share:.0%} at {LIMIT_AT} workers, at least {LIMIT:.0%} is wanted")
    return int(share < LIMIT)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--workers", type=int, nargs="+", default=[1, 8], help="reward workers (default: 1 8)")
    p.add_argument("--answers", type=int, default=400, help="in a round (default: 400)")
    p.add_argument("--rounds", type=int, default=3, help="of which the best counts (default: 3)")
    return p.parse_args()


def alone(asked: list[Asked]) -> float:
    """Seconds in which the judge alone judges them, opening it included in neither rival."""
    items = [(str(i), a.code, a.problem.test_cases) for i, a in enumerate(asked)]
    verdicts = judge_all([("warm", asked[0].code + "#", asked[0].problem.test_cases), *items], JudgeConfig())
    assert next(verdicts).verdict.accepted
    started = time.perf_counter()
    assert all(found.verdict.accepted for found in verdicts)
    return time.perf_counter() - started


def by_workers(asked: list[Asked], workers: int, folder: Path) -> float:
    """Seconds in which so many of verl's reward workers score them, from the moment that all are ready."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(workers)
    with context.Pool(workers, initializer=_be_ready_at, initargs=(ready,)) as pool:
        parts = [(asked[i::workers], workers, folder) for i in range(workers)]
        spans = pool.starmap(score_part, parts, chunksize=1)
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _be_ready_at(barrier) -> None:
    global READY
    READY = barrier


def score_part(asked: list[Asked], workers: int, folder: Path) -> tuple[float, float]:
    """In a process of its own: when it began and ended to score its part."""
    return asyncio.run(_score(asked, workers, folder))


async def _score(asked: list[Asked], workers: int, folder: Path) -> tuple[float, float]:
    import numpy as np
    import torch
    from hydra import compose, initialize_config_dir
    from verl import DataProto
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    with initialize_config_dir(str(folder), version_base=None):
        config = compose("grpo_model", [f"actor_rollout_ref.rollout.agent.num_workers={workers}"])
    if "num_workers" in config.get("reward", {}):  # verl 0.9.1; 0.7.0 has a reward worker an agent loop worker
        config.reward.num_workers = workers
    plain = getattr(RewardLoopWorker, "__ray_metadata__", None)
    worker = (plain.modified_class if plain else RewardLoopWorker)(config)

    def batch(some: list[Asked]) -> DataProto:
        ids = [worker.input_tokenizer(answer(a.code)).input_ids for a in some]
        longest = max(map(len, ids))
        truth = [
            {"ground_truth": json.dumps({"problem_id": a.problem.problem_id, "test_cases": a.problem.test_cases})}
            for a in some
        ]
        return DataProto.from_dict(
            tensors={
                "responses": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
                "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
            },
            non_tensors={
                "data_source": np.array([a.problem.dataset for a in some], dtype=object),
                "reward_model": np.array(truth, dtype=object),
                "extra_info": np.array([{"index": i} for i in range(len(some))], dtype=object),
            },
        )

    data = batch(asked)
    await worker.compute_score_batch(batch([Asked(asked[0].problem, asked[0].code + "#")]))  # opens the judge
    await asyncio.to_thread(READY.wait)
    started = time.perf_counter()
    scored = await worker.compute_score_batch(data)
    ended = time.perf_counter()
    wrong = [each for each in scored if each["reward_score"] != 1.0]
    assert not wrong, wrong[0]
    return started, ended


if __name__ == "__main__":
    sys.exit(main())
