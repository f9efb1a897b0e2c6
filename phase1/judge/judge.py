"""The judge: a program and a problem's tests in, a verdict out. The same program on the same tests is run once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace

from pydantic import JsonValue

from phase1.contract.problems import TestCases
from phase1.files import BadInput
from phase1.judge.compare import MODES
from phase1.judge.config import JudgeConfig
from phase1.judge.outcomes import Sandbox, Task
from phase1.judge.probes import ESSENTIAL, probe
from phase1.judge.sandbox import LocalSandbox
from phase1.judge.sandbox_fusion import FusionSandbox
from phase1.judge.verdict import Verdict, make_task, verdict_of

REMEMBERED = 20_000  # verdicts kept for programs that come again; a reward asks for millions in one process


class Judge:
    """What `open_judge` yields."""

    def __init__(self, config: JudgeConfig, backend: Sandbox):
        self.config, self.backend = config, backend
        self.judged: dict[bytes, asyncio.Future[Verdict]] = {}

    @property
    def info(self) -> dict[str, JsonValue]:
        """What goes into run.json: settings, what the backend is, and how many sandboxes were lost until now (0 is the
        only good figure)."""
        return {
            "judge": self.config.judge,
            "compare": self.config.compare,
            "workers": self.config.parallel,
            "run_timeout": self.config.run_timeout,
            "memory_limit_mb": self.config.memory_limit_mb,
            **self.backend.info,
            "lost_sandboxes": self.backend.lost,
        }

    async def judge(self, program: str, test_cases: TestCases) -> Verdict:
        """The verdict on a program; waits for a worker. The same program on the same tests is run once."""
        total = len(test_cases.get("tests") or test_cases.get("test_list") or [None])
        if not program.strip():
            return Verdict("empty_output", tests_total=total, detail="the answer holds no code")
        task = make_task(program, test_cases, self.config)
        key = await asyncio.to_thread(_key, task, test_cases)
        known = self.judged.get(key)
        if known is None or known.cancelled():
            known = self.judged[key] = asyncio.ensure_future(
                verdict_of(self.backend, task, test_cases, self.config.compare)
            )
            if len(self.judged) > REMEMBERED:
                del self.judged[next(iter(self.judged))]
        verdict = await asyncio.shield(known)
        if verdict.error_type == "sandbox_error":
            self.judged.pop(key, None)
        return replace(verdict, test_verdicts=list(verdict.test_verdicts))


def _key(task: Task, cases: TestCases) -> bytes:
    """Digest of a program with its tests, piecewise: the tests of one problem may be gigabytes."""
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
    """A judge to `await judge(program, test_cases)` on; closed on leaving, with every process it started."""
    if config.compare not in MODES:
        raise BadInput(f"--compare {config.compare}: expected one of {', '.join(MODES)}")
    local = LocalSandbox(config.parallel, config.unsafe) if config.judge == "local" else None
    sandbox: Sandbox = local or FusionSandbox(config.sandbox_urls, config.parallel)
    try:
        await sandbox.open()
        if local is not None:
            leaks = await probe(local)
            local.info["probes"] = {name: not seen for name, seen in leaks.items()}
            local.info["leaks"] = {name: seen for name, seen in leaks.items() if seen}
            if not config.unsafe and (failed := [n for n in ESSENTIAL if leaks[n]]):
                raise BadInput(
                    f"the sandbox here does not hold: {failed[0]} ({leaks[failed[0]][:200]}); "
                    "see python -m phase1.judge --probe, or judge with --judge sandbox_fusion or, knowing the "
                    "risk, --unsafe"
                )
        yield Judge(config, sandbox)
    finally:
        await sandbox.close()


def judge_all(items: Iterable[tuple[str, str, TestCases]], config: JudgeConfig) -> Iterator[tuple[str, Verdict]]:
    """(key, program, test_cases) in, (key, verdict) out as they finish; takes items only as fast as it judges them."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        judge = runner.run(stack.enter_async_context(open_judge(config)))
        try:
            todo, running = iter(items), dict[asyncio.Task[Verdict], str]()
            while True:
                while len(running) < 2 * config.parallel and (item := next(todo, None)) is not None:
                    key, program, cases = item

                    async def start(program: str = program, cases: TestCases = cases) -> asyncio.Task[Verdict]:
                        return asyncio.ensure_future(judge.judge(program, cases))

                    running[runner.run(start())] = key
                if not running:
                    break
                done, _ = runner.run(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for finished in done:
                    yield running.pop(finished), finished.result()
        finally:
            runner.run(stack.aclose())
