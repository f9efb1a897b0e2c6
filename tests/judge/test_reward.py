"""phase1/reward.py: the reward that verl loads equals the judge's verdict, from many processes at once."""

import itertools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from phase1 import reward
from phase1.contract.extraction import extract_code
from phase1.contract.problems import load_problems
from phase1.contract.prompts import answer
from phase1.contract.records import read_records
from phase1.files import BadInput
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "outputs/demo/eval_final"
MANIFESTS = ROOT / "data/samples/manifests"
SETS = ("codecontests_valid", "humaneval", "mbpp_reg")
HUMANEVAL, MBPP = (load_problems(MANIFESTS, dataset)[0] for dataset in SETS[1:])


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

    from phase1.handoff.grpo import grpo_yaml

    written = OmegaConf.create(grpo_yaml(ROOT, ROOT))  # tests/handoff/test_grpo_start.py has it resolved by verl whole
    agents = {"actor_rollout_ref": {"rollout": {"agent": {"num_workers": 8}}}}
    known = OmegaConf.create({"trainer": {"nnodes": 1}, **agents})
    score = get_custom_reward_fn(OmegaConf.merge(written, known))
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
    expected = {int(i): v.pass_ratio for i, v in judge_all(items, JudgeConfig())}
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


@pytest.fixture(autouse=True)
def first_line(monkeypatch):
    """Each test is as a process that has told nothing yet."""
    monkeypatch.setattr(reward, "_failures", itertools.count(1))


BROKEN = {
    "HumanEval without its prompt": HUMANEVAL.test_cases,
    "no JSON": "{",
    "JSON that is no object": "[]",
    "a test type that nobody knows": {"type": "leetcode"},
    "no tests": {"type": "mbpp", "test_list": [], "entry_point": "f"},
    "nothing": None,
}


@pytest.mark.parametrize("truth", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_judged_is_a_zero_that_says_so_once_and_no_exception(truth, capsys):
    for _ in range(2):
        scores = reward.compute_score("the_set", answer("pass"), truth, workers=1)
        assert scores["score"] == 0.0 and scores["sandbox_error"] == 1.0
    assert capsys.readouterr().err.count("the_set") == 1


def test_failures_are_counted_and_told_ever_more_seldom(capsys):
    for _ in range(1000):
        reward.compute_score("the_set", answer("pass"), None, workers=1)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and "100 answers" in told[1] and "1000 answers" in told[2]


def test_a_judge_that_cannot_be_opened_is_tried_again_after_a_while_only(monkeypatch, capsys):
    opened = []

    def refused(config):
        opened.append(config)
        raise BadInput("no sandbox works here")

    monkeypatch.setattr(reward, "_JudgeThread", refused)
    monkeypatch.setattr(reward, "_open", {})
    for _ in range(3):
        assert reward.compute_score("x", answer("pass"), MBPP.test_cases, workers=1)["sandbox_error"] == 1.0
    assert len(opened) == 1 and "no sandbox works here" in capsys.readouterr().err
    monkeypatch.setattr(reward, "REOPEN", 0.0)
    reward.compute_score("x", answer("pass"), MBPP.test_cases, workers=1)
    assert len(opened) == 2


def test_servers_that_do_not_answer_are_a_zero_that_says_so(monkeypatch, capsys):
    from omegaconf import OmegaConf

    urls = OmegaConf.create({"urls": ["http://127.0.0.1:9"]}).urls
    scores = reward.compute_score("x", answer("pass"), MBPP.test_cases, judge="sandbox_fusion", sandbox_urls=urls)
    assert scores["score"] == 0.0 and scores["sandbox_error"] == 1.0
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_an_unknown_setting_is_told_before_anything_is_scored():
    with pytest.raises(BadInput, match="reward_kwargs.run_time: no such setting"):
        reward.compute_score("x", answer("pass"), MBPP.test_cases, run_time=10)


@pytest.mark.parametrize(
    ("cores", "gpus", "given", "workers"),
    [
        (128, 8, {"processes": 8}, 15),
        (128, 0, {"processes": 8}, 16),
        (128, 8, {"processes": 16, "nodes": 2}, 15),
        (128, 8, {"processes": 8, "nodes": 3}, 40),
        (128, 8, {}, 120),
        (128, 8, {"processes": 8, "reserve_cores": 64}, 8),
        (128, 8, {"processes": 8, "workers": 3}, 3),
        (2, 8, {"processes": 8}, 1),
    ],
)
def test_the_workers_of_a_machine_share_its_cores(cores, gpus, given, workers, monkeypatch):
    monkeypatch.setattr(reward, "usable_cores", lambda: cores)
    monkeypatch.setattr(reward, "known_gpus", lambda path: (None,) * gpus)
    assert reward.judge_config(given).workers == workers


ENDS = {  # what an answer's program does: the scores that are 1 beside format_found
    MBPP.canonical_solution: {"score", "pass_ratio", "acc", "accepted", "executed"},
    f"def {MBPP.test_cases['entry_point']}(*args): return object()": {"executed", "wrong_answer"},
    "raise ValueError": {"runtime_error"},
    "def f(:": {"syntax_error"},
    "": {"empty_output"},
}


@pytest.mark.slow
def test_every_answer_has_the_same_scores_all_numbers_that_verl_averages():
    """process_validation_metrics is what makes verl's val-core and val-aux of them."""
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    found = [reward.compute_score("mbpp_reg", answer(code), MBPP.test_cases, workers=1) for code in ENDS]
    found.append(reward.compute_score("mbpp_reg", "no code at all", None, workers=1))
    for scores, ones in zip(found, [*ENDS.values(), {"sandbox_error"}], strict=True):
        assert {name for name, value in scores.items() if value == 1.0} - {"format_found"} == ones
        assert scores.keys() == found[0].keys() and {type(value) for value in scores.values()} == {float}
    assert [scores["format_found"] for scores in found] == [1.0] * len(ENDS) + [0.0]
    columns = {name: [scores[name] for scores in found] for name in found[0]}
    told = process_validation_metrics(["mbpp_reg"] * len(found), [str(i) for i in range(len(found))], columns)
    assert {name: metrics["mean@1"] for name, metrics in told["mbpp_reg"].items()} == pytest.approx(
        {name: sum(values) / len(values) for name, values in columns.items()}
    )


@pytest.mark.slow
def test_a_judge_whose_sandboxes_were_killed_is_opened_anew():
    right = answer(MBPP.canonical_solution)
    assert reward.compute_score("mbpp_reg", right, MBPP.test_cases, workers=1, run_timeout=9.0)["score"] == 1.0
    [thread] = [t for (_, config), t in reward._open.items() if config.run_timeout == 9.0]
    os.kill(thread.judge.backend.process.pid, signal.SIGKILL)
    for i in range(3):
        code = f"{MBPP.canonical_solution}\n# {i}"  # the same program would be remembered
        scores = reward.compute_score("mbpp_reg", answer(code), MBPP.test_cases, workers=1, run_timeout=9.0)
        assert scores["score"] == 1.0 and scores["sandbox_error"] == 0.0


@pytest.mark.slow
def test_a_launcher_whose_socket_closes_before_it_has_ended_is_waited_for():
    """As the kernel ends a killed process: the socket first, the process a moment later."""
    right = answer(MBPP.canonical_solution)
    assert reward.compute_score("mbpp_reg", right, MBPP.test_cases, workers=1, run_timeout=8.0)["score"] == 1.0
    [thread] = [t for (_, config), t in reward._open.items() if config.run_timeout == 8.0]
    thread.judge.backend.channel.shutdown(socket.SHUT_WR)  # it hears that the judge is gone, and ends
    scores = reward.compute_score(
        "mbpp_reg", answer(f"{MBPP.canonical_solution}\n#"), MBPP.test_cases, workers=1, run_timeout=8.0
    )
    assert scores["score"] == 1.0 and scores["sandbox_error"] == 0.0


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
