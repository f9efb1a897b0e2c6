"""Phase 3's reward: verl's custom reward function over the extraction, judge and comparison that Phase 1 measured with.

    custom_reward_function.path=phase1/reward.py custom_reward_function.name=compute_score
    +custom_reward_function.reward_kwargs.run_timeout=10      (any field of JudgeConfig)

Each process keeps one judge open from its first call on; its sandboxes end when the process does, however it ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

# verl loads this file by its path (verl/utils/import_utils.py, load_extern_object), not as part of a package.
if (root := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, root)

from phase1.contract.extraction import program_of
from phase1.contract.problems import Problem, TestCases
from phase1.contract.records import EXEC_SUCCESS
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import Judge, open_judge
from phase1.judge.verdict import Verdict

if TYPE_CHECKING:
    from typing import Any

    from pydantic import JsonValue


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | dict[str, JsonValue],
    extra_info: dict[str, JsonValue] | None = None,
    **judge_options: Any,
) -> dict[str, float]:
    """The reward of one answer, as verl asks for it.

    Args:
        data_source: the name of the data set, for messages.
        solution_str: the model's answer.
        ground_truth: a problem's line of a raw file, or only its test_cases, as JSON text or as an object.
        extra_info: may hold the `prompt` of a HumanEval problem whose ground truth does not.
        judge_options: fields of JudgeConfig; `workers` is 1 by default.

    Returns:
        `score` and `pass_ratio`, the same as in an evaluation's records; `accepted` and `executed` as 0.0 or 1.0.

    Raises:
        RuntimeError: when the judge itself fails, or a HumanEval problem has no prompt. Neither is the answer's fault,
            and a zero would teach the model something false.
        BadInput: for tests that break contract 4, or where no program can be run here.
    """
    truth: dict[str, Any] = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
    cases = truth.get("test_cases", truth)
    prompt = truth.get("prompt") or (extra_info or {}).get("prompt") or ""
    problem = Problem(data_source, str(truth.get("problem_id", "")), prompt, cases)
    if problem.test_type == "humaneval" and not prompt:
        raise RuntimeError(
            f"{data_source}: a HumanEval answer is judged with its prompt; give it in ground_truth or extra_info"
        )
    config = JudgeConfig(**{"workers": 1, **judge_options})
    verdict = judged(problem.program(program_of(solution_str, config.extraction)), problem.judged, config)
    if verdict.error_type == "sandbox_error":
        raise RuntimeError(f"{data_source} {problem.problem_id}: the judge failed ({verdict.detail})")
    return {
        "score": verdict.pass_ratio,
        "pass_ratio": verdict.pass_ratio,
        "accepted": float(verdict.accepted),
        "executed": float(verdict.error_type in EXEC_SUCCESS),
    }


def judged(program: str, cases: TestCases, config: JudgeConfig) -> Verdict:
    """The verdict of this process's judge with these settings; may be called from any number of threads."""
    with _lock:
        key = (os.getpid(), config)
        if key not in _open:
            _open[key] = _JudgeThread(config)
        thread = _open[key]
    return asyncio.run_coroutine_threadsafe(thread.judge.judge(program, cases), thread.loop).result()


class _JudgeThread:
    """A thread whose event loop holds a judge open until the process ends."""

    def __init__(self, config: JudgeConfig):
        self.loop = asyncio.new_event_loop()
        opened: concurrent.futures.Future[Judge] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(config, opened), name="reward-judge", daemon=True)
        self._thread.start()
        self.judge = opened.result()

    def _run(self, config: JudgeConfig, opened: concurrent.futures.Future[Judge]) -> None:
        async def hold() -> None:
            async with open_judge(config) as judge:
                opened.set_result(judge)
                await asyncio.Event().wait()  # for ever: the thread is a daemon

        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(hold())
        except BaseException as e:
            if opened.done():
                raise
            opened.set_exception(e)


_open: dict[tuple[int, JudgeConfig], _JudgeThread] = {}  # by pid too: a forked child must not use its parent's judge
_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))
