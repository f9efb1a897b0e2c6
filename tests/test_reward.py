"""phase1/reward.py: the reward that verl loads equals the judge's verdict, from many processes at once."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase1.judge import JudgeConfig, judge_all
from phase1.problems import load_problems
from phase1.prompts import answer, extract_code

ROOT = Path(__file__).resolve().parents[1]
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


def rewards(part: int) -> list[tuple[int, float]]:
    """In a process of its own: the scores of every eighth answer, through verl's own loader."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn

    function = {"path": str(ROOT / "phase1/reward.py"), "name": "compute_score", "reward_kwargs": {"run_timeout": 10.0}}
    score = get_custom_reward_fn(OmegaConf.create({"custom_reward_function": function}))
    found = []
    for i, (p, text) in enumerate(questions()):
        if i % 8 == part:
            truth = json.dumps({"problem_id": p.problem_id, "prompt": p.prompt, "test_cases": p.test_cases})
            found.append((i, score(data_source=p.dataset, solution_str=text, ground_truth=truth, extra_info={})["score"]))
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


def test_humaneval_without_its_prompt_is_an_error_and_not_a_zero():
    from phase1.reward import compute_score

    p = load_problems(MANIFESTS, "humaneval")[0]
    with pytest.raises(RuntimeError, match="judged with its prompt"):
        compute_score("humaneval", answer("pass"), p.test_cases)


def test_the_sandbox_ends_with_the_process():
    code = ("import sys, subprocess; from phase1.reward import compute_score, _open;"
            "print(compute_score('x', '<code>def f(): return 1</code>', {'type': 'mbpp', 'test_list': ['assert f() == 1'], 'entry_point': 'f'})['score']);"
            "print(*subprocess.check_output(['ps', '-o', 'pid=', '--ppid', str(__import__('os').getpid())], text=True).split())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("1.0\n"), done.stderr
    children = done.stdout.splitlines()[1].split()
    assert children
    end = time.monotonic() + 20
    while time.monotonic() < end and (left := [p for p in children if Path("/proc", p).exists()]):
        time.sleep(0.1)
    assert not left


def test_a_forked_child_opens_its_own_judge():
    from phase1.reward import compute_score

    p = load_problems(MANIFESTS, "mbpp_reg")[0]
    assert compute_score("mbpp_reg", answer(p.canonical_solution), p.test_cases)["score"] == 1.0
    if (pid := os.fork()) == 0:
        os._exit(int(10 * compute_score("mbpp_reg", answer(p.canonical_solution), p.test_cases)["score"]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
