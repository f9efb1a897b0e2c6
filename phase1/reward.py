"""Phase 3's reward: verl's custom reward function over the extraction, judge and comparison that Phase 1 measured with.

    [reward.]custom_reward_function.path=phase1/reward.py [reward.]custom_reward_function.name=compute_score
    +[reward.]custom_reward_function.reward_kwargs.run_timeout=10      (any field of JudgeConfig)

`reward.` is verl 0.9.1's place, the other 0.7.0's; grpo_model.yaml fills both. Each process keeps one judge open from
its first call on; its sandboxes end when the process does, however it ends.

It is a plain function, which every reward manager of verl can call. verl's reward workers run it in a pool of threads
(32, or four more than the machine has cores), so a worker judges several programs at a time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import os
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# verl loads this file by its path (verl/utils/import_utils.py, load_extern_object), not as part of a package.
if (root := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, root)

from phase1.contract.extraction import contract_form, program_of
from phase1.contract.problems import Problem, TestCases
from phase1.contract.records import EXEC_SUCCESS, MODEL_ERRORS
from phase1.files import BadInput
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import Judge, open_judge
from phase1.judge.verdict import Verdict
from phase1.machine import known_gpus, usable_cores

if TYPE_CHECKING:
    from typing import Any

    from pydantic import JsonValue

ERRORS = (*(e for e in MODEL_ERRORS if e != "success"), "empty_output")  # a score of 0 or 1 each
REOPEN = 60.0  # seconds until a judge that could not be opened is tried again


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | dict[str, JsonValue],
    extra_info: dict[str, JsonValue] | None = None,
    **reward_kwargs: Any,
) -> dict[str, float]:
    """The reward of one answer, as verl asks for it.

    Where the judge itself fails, or the problem cannot be judged, the score is 0 with `sandbox_error` 1: an exception
    would end the training. The process writes a line to stderr the first time.

    Args:
        data_source: the name of the data set, for messages.
        solution_str: the model's answer.
        ground_truth: a problem's line of a raw file, or only its test_cases, as JSON text or as an object.
        extra_info: may hold the `prompt` of a HumanEval problem whose ground truth does not.
        reward_kwargs: see `judge_config`.

    Returns:
        The same keys for every answer, numbers all, so that verl averages them. `score` and `pass_ratio`, as in an
        evaluation's records; 0.0 or 1.0 each: `acc` (every test passed: verl's name for it), `accepted` (the same),
        `executed`, `format_found` (the answer has the code tag), `sandbox_error`, and those of ERRORS.

    Raises:
        BadInput: reward_kwargs that do not exist; told at the first answer, before anything is trained.
    """
    config = judge_config(reward_kwargs)
    try:
        verdict = _verdict(data_source, solution_str, ground_truth, extra_info or {}, config)
    except Exception as e:  # whatever it is, a training that runs for days must not end by one answer
        verdict = Verdict("sandbox_error", detail=f"{type(e).__name__}: {e}")
    failed = verdict.error_type == "sandbox_error"
    if failed:
        _tell(data_source, verdict.detail)
    accepted = float(verdict.accepted)
    return {
        "score": verdict.pass_ratio,
        "pass_ratio": verdict.pass_ratio,
        "acc": accepted,
        "accepted": accepted,
        "executed": float(verdict.error_type in EXEC_SUCCESS),
        "format_found": float(contract_form(solution_str) == "code_tag"),
        "sandbox_error": float(failed),
        **{error: float(verdict.error_type == error) for error in ERRORS},
    }


def _verdict(
    data_source: str,
    answer: str,
    ground_truth: str | dict[str, JsonValue],
    extra_info: dict[str, JsonValue],
    config: JudgeConfig,
) -> Verdict:
    truth: dict[str, Any] = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
    cases = truth.get("test_cases", truth)
    prompt = truth.get("prompt") or extra_info.get("prompt") or ""
    problem = Problem(data_source, str(truth.get("problem_id", "")), str(prompt), cases)
    if problem.test_type == "humaneval" and not prompt:
        raise BadInput("a HumanEval answer is judged with its prompt; give it in ground_truth or extra_info")
    return judged(problem.program(program_of(answer, config.extraction)), problem.judged, config)


# --------------------------------------------------------------------------------------------------------- settings
def judge_config(reward_kwargs: dict[str, Any]) -> JudgeConfig:
    """How a reward worker judges.

    The workers of one machine know nothing of each other and all see all of its cores. So each takes its share: the
    cores that this process may use, less one for each GPU (its rollout engine keeps one busy), by the workers of the
    machine; at least one program at a time. A lock that they share would use cores better towards a step's end, but
    verl deals answers out evenly, and shares need nothing that outlives a killed worker.

    Args:
        reward_kwargs: fields of JudgeConfig (lists as verl's configuration has them); and `processes`, verl's reward
            workers in all, over `nodes` machines, 1 each by default. `workers`, programs at a time a process, and
            `reserve_cores` take precedence.

    Raises:
        BadInput: one that does not exist.
    """
    options = dict(reward_kwargs)
    processes, nodes = int(options.pop("processes", 1)), int(options.pop("nodes", 1))
    known = [field.name for field in fields(JudgeConfig)]
    if unknown := sorted(options.keys() - set(known) - {"reward_router_address", "reward_model_tokenizer"}):
        raise BadInput(f"reward_kwargs.{unknown[0]}: no such setting; there are processes, nodes, {', '.join(known)}")
    given = {name: options[name] for name in known if name in options}
    if "sandbox_urls" in given:
        urls = given["sandbox_urls"]
        given["sandbox_urls"] = (urls,) if isinstance(urls, str) else tuple(urls)  # OmegaConf's list has no hash
    config = JudgeConfig(**{"reserve_cores": len(known_gpus(os.environ.get("PATH"))), **given})
    if config.workers:
        return config
    here = max(1, -(-processes // max(1, nodes)))
    return replace(config, workers=max(1, (usable_cores() - config.reserve_cores) // here))


# ------------------------------------------------------------------------------------------------------- the judges
def judged(program: str, cases: TestCases, config: JudgeConfig) -> Verdict:
    """The verdict of this process's judge with these settings; may be called from any number of threads.

    A judge whose sandboxes were killed from outside, as by a machine short of memory, is opened anew.
    """
    for last in (False, True):
        thread = _thread(config)
        verdict = asyncio.run_coroutine_threadsafe(thread.judge.judge(program, cases), thread.loop).result()
        if last or verdict.error_type != "sandbox_error" or not thread.spent:
            break
    return verdict


def _thread(config: JudgeConfig) -> _JudgeThread:
    with _lock:
        key = (os.getpid(), config)
        known = _open.get(key)
        if known is None or known.spent:
            _open[key] = known = _open_thread(config)
    if isinstance(known, _Failed):
        raise known.reason
    return known


def _open_thread(config: JudgeConfig) -> _JudgeThread | _Failed:
    try:
        return _JudgeThread(config)
    except Exception as e:
        return _Failed(e, time.monotonic())


class _Failed(NamedTuple):
    """A judge that could not be opened: thousands of answers must not each try again.

    No dataclass: those look their module up in sys.modules, where verl's loader does not put it.
    """

    reason: Exception
    since: float  # of time.monotonic

    @property
    def spent(self) -> bool:
        """Whether it is time to try again."""
        return self.since + REOPEN < time.monotonic()


class _JudgeThread:
    """A thread whose event loop holds a judge open until the process ends."""

    def __init__(self, config: JudgeConfig):
        self.loop = asyncio.new_event_loop()
        opened: concurrent.futures.Future[Judge] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(config, opened), name="reward-judge", daemon=True)
        self._thread.start()
        self.judge = opened.result()

    @property
    def spent(self) -> bool:
        """Whether the process that starts its sandboxes has ended; a server of sandboxes has none."""
        process = getattr(self.judge.backend, "process", None)
        return process is not None and process.poll() is not None

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


def _tell(data_source: str, detail: str) -> None:
    """Count an answer that could not be judged. On stderr: what is wrong, once, then how many, at 100, 1000, …"""
    count = next(_failures)
    if count == 1:
        told = (
            f"an answer to {data_source} could not be judged ({detail}): it scores 0 with sandbox_error 1, as will all "
            "like it. See python -m phase1.judge --probe"
        )
    elif count >= 100 and str(count).rstrip("0") == "1":
        told = f"{count} answers could not be judged until now, the last one of {data_source} ({detail})"
    else:
        return
    print(f"phase1/reward.py: {told}", file=sys.stderr, flush=True)


_open: dict[tuple[int, JudgeConfig], _JudgeThread | _Failed] = {}  # by pid: a child must not use its parent's judge
_lock = threading.Lock()
_failures = itertools.count(1)  # answers that this process could not judge; next() takes one in one step
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock(), _failures=itertools.count(1)))
