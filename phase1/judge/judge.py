"""The judge: a program and a problem's tests in, a verdict out (contract 6). docs/judge.md tells what it guarantees."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import asdict, replace
from typing import NamedTuple

from pydantic import JsonValue

from phase1.contract.problems import TestCases
from phase1.files import BadInput
from phase1.judge.checkers import Checkers
from phase1.judge.compare import MODES
from phase1.judge.config import JudgeConfig
from phase1.judge.outcomes import Sandbox, Task
from phase1.judge.sandbox import LocalSandbox
from phase1.judge.verdict import Verdict, make_task, verdict_of

REMEMBERED = 20_000  # verdicts kept for programs that come again; a reward asks for millions in one process


class Judge:
    """What `open_judge` yields."""

    def __init__(self, config: JudgeConfig, backend: Sandbox):
        self.config, self.backend = config, backend
        self.checkers = Checkers(backend, config)
        self.judged: dict[bytes, asyncio.Future[Verdict]] = {}

    @property
    def info(self) -> dict[str, JsonValue]:
        """What goes into run.json: settings, what the sandbox says of itself, and how many sandboxes were lost until
        now (0 is the only good figure)."""
        return {
            "judge": self.config.judge,
            "compare": self.config.compare,
            "workers": self.config.parallel,
            "run_timeout": self.config.run_timeout,
            "memory_limit_mb": self.config.memory_limit_mb,
            **asdict(self.backend.info),
            "lost_sandboxes": self.backend.lost,
        }

    async def judge(self, program: str, test_cases: TestCases, slow: bool = False) -> Verdict:
        """The verdict on a program; waits for a worker. The same program on the same tests is run once.

        Args:
            program: source text; a blank one is `empty_output`.
            test_cases: of the problem, as a raw file has them (contract 4).
            slow: it is expected to run into its time limit, so it starts before others; the verdict is the same.

        Raises:
            BadInput: when `test_cases` breaks the contract.
        """
        total = len(test_cases.get("tests") or test_cases.get("test_list") or [None])
        if not program.strip():
            return Verdict("empty_output", tests_total=total, detail="the answer holds no code")
        task = replace(make_task(program, test_cases, self.config), slow=slow)
        key = await asyncio.to_thread(_key, task, test_cases)
        known = self.judged.get(key)
        if known is None or known.cancelled():
            known = self.judged[key] = asyncio.ensure_future(
                verdict_of(self.backend, task, test_cases, self.config.compare, self.checkers)
            )
            if len(self.judged) > REMEMBERED:
                del self.judged[next(iter(self.judged))]
        verdict = await asyncio.shield(known)
        if verdict.error_type == "sandbox_error":
            self.judged.pop(key, None)
        return replace(verdict, test_verdicts=list(verdict.test_verdicts))


def _key(task: Task, cases: TestCases) -> bytes:
    """Digest of a program with its tests, piece by piece: the tests of one problem may be gigabytes."""
    digest = hashlib.blake2b(digest_size=16)
    parts = [task.program, json.dumps({k: v for k, v in cases.items() if k != "tests"}, sort_keys=True)]
    for part in parts:
        digest.update(b"%d:" % len(part) + part.encode("utf-8", "surrogatepass"))
    for test in cases.get("tests", ()):
        for part in (test["input"], test["output"]):
            digest.update(b"%d:" % len(part))
            digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.digest()


@contextlib.asynccontextmanager
async def open_judge(config: JudgeConfig) -> AsyncIterator[Judge]:
    """A judge to `await judge(program, test_cases)` on; closed on leaving, with every process it started.

    Raises:
        BadInput: when programs cannot be run here as `config` asks, or the sandbox does not isolate them and `unsafe`
            is not set.
    """
    if config.compare not in MODES:
        raise BadInput(f"--compare {config.compare}: expected one of {', '.join(MODES)}")
    sandbox: Sandbox
    if config.judge == "local":
        sandbox = LocalSandbox(config.parallel, config.unsafe)
    else:
        from phase1.judge.sandbox_fusion import FusionSandbox  # late: aiohttp is half of what a judge would import

        sandbox = FusionSandbox(config.sandbox_urls, config.parallel)
    try:
        await sandbox.open()
        if not config.unsafe and (missing := sandbox.info.missing):
            raise BadInput(
                f"the sandbox here does not hold: {missing[0]}; see python -m phase1.judge --probe, or judge with "
                "--judge sandbox_fusion or, knowing the risk, --unsafe"
            )
        yield Judge(config, sandbox)
    finally:
        await sandbox.close()


class Judged(NamedTuple):
    """A verdict with the key of what it is on."""

    key: str
    verdict: Verdict


def judge_all(items: Iterable[tuple[str, str, TestCases]], config: JudgeConfig) -> Iterator[Judged]:
    """Judge many programs. Items are taken only as fast as they are judged.

    Args:
        items: (key, program, test_cases) each.

    Yields:
        A verdict for each item, in the order in which they finish.

    Raises:
        BadInput: as `open_judge` and `Judge.judge`.
    """
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        judge = runner.run(stack.enter_async_context(open_judge(config)))

        async def start(program: str, cases: TestCases) -> asyncio.Task[Verdict]:
            return asyncio.ensure_future(judge.judge(program, cases))

        try:
            todo, running = iter(items), dict[asyncio.Task[Verdict], str]()
            while True:
                while len(running) < 2 * config.parallel and (item := next(todo, None)) is not None:
                    key, program, cases = item
                    running[runner.run(start(program, cases))] = key
                if not running:
                    break
                done, _ = runner.run(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for finished in done:
                    yield Judged(running.pop(finished), finished.result())
        finally:
            runner.run(stack.aclose())
