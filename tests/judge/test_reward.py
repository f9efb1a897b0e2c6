"""phase1/reward.py: the reward that verl loads equals the judge's verdict, from many processes at once."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from phase1.contract.extraction import extract_code
from phase1.contract.problems import load_problems
from phase1.contract.prompts import answer
from phase1.contract.records import read_records
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "outputs/demo/eval_final"
MANIFESTS = ROOT / "data/samples/manifests"
SETS = ("codecontests_valid", "humaneval", "mbpp_reg")


def questions() -> list[tuple]:
    """(problem, answer): each sample problem with its reference solution, and in turn one of four ways to fail."""
    found = []
    for dataset in SETS:
        for i, p in enumerate(load_problems(MANIFESTS, dataset)):
            code = p.canonical_solution
            wrong = ("print(0)", "def f(:", "raise ValueError", "")[i % 4]
            found += [(p, answer(code)), (p, answer(wrong))]
    return found


def recorded() -> list[tuple]:
    """(problem, answer, pass_ratio) of every record of the demo's final evaluation."""
    found = []
    for path in sorted((DEMO / "results").glob("*.jsonl")):
        problems = {p.problem_id: p for p in load_problems(MANIFESTS, path.stem)}
        found += [(problems[r.problem_id], r.completion, r.pass_ratio) for r in read_records(path)]
    return found


def rewards(part: int, asked: Callable[[], list[tuple]] = questions) -> list[tuple[int, float]]:
    """In a process of its own: the scores of every eighth answer, through verl's own loader."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn

    function = {"path": str(ROOT / "phase1/reward.py"), "name": "compute_score", "reward_kwargs": {"run_timeout": 10.0}}
    places = {
        "custom_reward_function": function,
        "reward": {"custom_reward_function": function},
    }  # verl 0.7.0's, and 0.9.1's
    score = get_custom_reward_fn(OmegaConf.create(places))
    found = []
    for i, (p, text, *_) in enumerate(asked()):
        if i % 8 == part:
            truth = json.dumps({"problem_id": p.problem_id, "prompt": p.prompt, "test_cases": p.test_cases})
            found.append(
                (i, score(data_source=p.dataset, solution_str=text, ground_truth=truth, extra_info={})["score"])
            )
    return found


@pytest.mark.slow
def test_eight_processes_through_verls_loader_agree_with_the_judge():
    asked = questions()
    items = [(str(i), p.program(extract_code(text)), p.test_cases) for i, (p, text) in enumerate(asked)]
    expected = {int(i): v.pass_ratio for i, v in judge_all(items, JudgeConfig(run_timeout=10.0))}
    import verl.trainer.ppo.reward  # noqa: F401  imported once, inherited by the forked processes

    with multiprocessing.get_context("fork").Pool(8) as pool:
        scored = dict(pair for part in pool.map(rewards, range(8), chunksize=1) for pair in part)
    assert scored == expected and len(scored) == len(asked) >= 120
    assert {0.0, 1.0} <= set(scored.values())


@pytest.mark.slow
@pytest.mark.skipif(not (DEMO / "summary.json").exists(), reason="bash run_demo.sh has not been run to its end here")
def test_eight_processes_through_verls_loader_give_the_pass_ratio_of_every_record_of_an_evaluation():
    import verl.trainer.ppo.reward  # noqa: F401

    with multiprocessing.get_context("fork").Pool(8) as pool:
        scored = dict(
            pair for part in pool.map(partial(rewards, asked=recorded), range(8), chunksize=1) for pair in part
        )
    expected = {i: ratio for i, (_, _, ratio) in enumerate(recorded())}
    assert scored == expected and len(expected) >= 170
    assert {0.0, 1.0} < set(expected.values())


def test_humaneval_without_its_prompt_is_an_error_and_not_a_zero():
    from phase1.reward import compute_score

    p = load_problems(MANIFESTS, "humaneval")[0]
    with pytest.raises(RuntimeError, match="judged with its prompt"):
        compute_score("humaneval", answer("pass"), p.test_cases)


@pytest.mark.slow
def test_the_sandbox_ends_with_the_process():
    code = (
        "import sys, subprocess; from phase1.reward import compute_score, _open;"
        "print(compute_score('x', '<code>def f(): return 1</code>', {'type': 'mbpp', 'test_list': ['assert f() "
        "== 1'], 'entry_point': 'f'})['score']);"
        "print(*subprocess.check_output(['ps', '-o', 'pid=', '--ppid', str(__import__('os').getpid())], "
        "text=True).split())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0 and done.stdout.startswith("1.0\n"), done.stderr
    children = done.stdout.splitlines()[1].split()
    assert children
    end = time.monotonic() + 120
    while time.monotonic() < end and (left := [p for p in children if Path("/proc", p).exists()]):
        time.sleep(0.1)
    assert not left


@pytest.mark.slow
def test_a_forked_child_opens_its_own_judge():
    from phase1.reward import compute_score

    p = load_problems(MANIFESTS, "mbpp_reg")[0]
    assert compute_score("mbpp_reg", answer(p.canonical_solution), p.test_cases)["score"] == 1.0
    if (pid := os.fork()) == 0:
        os._exit(int(10 * compute_score("mbpp_reg", answer(p.canonical_solution), p.test_cases)["score"]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
