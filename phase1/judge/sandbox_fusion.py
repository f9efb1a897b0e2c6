"""SandboxFusion over HTTP (github.com/bytedance/SandboxFusion): the same tasks as the local sandbox, run by its
servers.

What was seen on a real server, and what is done about it:
- Python has no compile step there, a syntax error is exit code 1: programs are compiled here first, without running
them.
- stdout is cut at 219,264 bytes with status Success, and 1 MB of it is called TimeLimitExceeded: an output, or an
  expected one, of 200 kB or more is the judge's failure, not the model's.
- memory_limit_MB above 0 makes threads and `import numpy` fail: it is never sent, the server's own limit holds.
- `sys.exit(0)` before the asserts is Success: assert tasks carry the local sandbox's end marker and guards.
- One blocking loop: 21 runs/s a server whatever the concurrency, so several URLs share one queue.
- 500, SandboxError, a cut answer, a dropped connection: tried again, elsewhere if possible, then `sandbox_error`.
Time limits are the server's, wall clock; a loaded server makes timeouts that the local sandbox would not.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import random
import secrets
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import JsonValue

from phase1.files import BadInput
from phase1.judge.inside import asserts, fork_server
from phase1.judge.outcomes import (
    ATTEMPTS,
    MAX_TIMEOUTS,
    CompileFailed,
    SandboxFailed,
    Task,
    TestRun,
    assert_runs,
    stdin_verdict,
)

MAX_OUTPUT = 200_000  # bytes; beyond it the server's answer cannot be trusted
TRIES = ATTEMPTS + 2  # of one request, over all servers
BACK_OFF = 0.5  # seconds before the second try; doubles, with jitter
GRACE = 30.0  # seconds of queueing at the server beyond a test's own limit

_COMPILE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
try:
    compile(sys.stdin.buffer.read(), "main.py", "exec", dont_inherit=True)
except BaseException as e:
    print(f"{type(e).__name__}: {e}"[:300].encode("ascii", "backslashreplace").decode())
"""
_ASSERTS = """
import base64, builtins
scope = {{"__builtins__": dict(vars(builtins)), "__name__": "asserts"}}
exec(compile(base64.b64decode({source!r}), "asserts", "exec"), scope)
scope["run_remote"](__import__("ast").literal_eval(base64.b64decode({job!r}).decode("utf-8", "surrogatepass")))
"""


class FusionSandbox:
    """Any number of SandboxFusion servers behind one queue; `workers` programs at a time."""

    def __init__(self, urls: tuple[str, ...], workers: int, back_off: float = BACK_OFF):
        if not urls:
            raise BadInput("--judge sandbox_fusion needs --sandbox_url http://HOST:PORT (once a server)")
        self.urls = [url if url.endswith("/run_code") else url.rstrip("/") + "/run_code" for url in urls]
        self.back_off = back_off
        self.slots = asyncio.Semaphore(max(workers, 2 * len(urls)))
        self.in_flight = dict.fromkeys(self.urls, 0)
        self.down = dict.fromkeys(self.urls, 0.0)  # loop time until which a server is left alone
        self.lost = 0  # answers that said nothing of the program; each costs a further request
        self.info: dict[str, JsonValue] = {"mode": "sandbox_fusion", "sandbox_urls": list(urls)}

    async def open(self) -> None:
        """Health check: at least one server must run a program. BadInput when none does."""
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = self._body("print(6 * 7)", "", 10)
        answers = await asyncio.gather(*(self._post(url, body, 10) for url in self.urls), return_exceptions=True)
        problems = {
            u: str(e) or type(e).__name__ if isinstance(e, BaseException) else ""
            for u, e in zip(self.urls, answers, strict=True)
        }
        if all(problems.values()):
            url, problem = next(iter(problems.items()))
            raise BadInput(f"no SandboxFusion server answers: {url}: {problem}; start one or mend --sandbox_url")
        self.info["healthy"] = sum(not p for p in problems.values())

    async def close(self) -> None:
        await self.session.close()

    async def run(self, task: Task) -> AsyncGenerator[TestRun]:
        """As LocalSandbox.run."""
        async with self.slots:
            await self._compile(task.program)
            if task.longest_output >= MAX_OUTPUT:
                raise SandboxFailed(
                    "an expected output has 200 kB or more, which this server cuts or calls a timeout; judge locally"
                )
            done = late = 0
            while done < task.count and late < MAX_TIMEOUTS:
                for run in await (
                    self._run_stdin(task, done) if task.kind == "stdin" else self._run_asserts(task, done)
                ):
                    done += 1
                    late = late + 1 if run.verdict == "timeout" else 0
                    yield run

    async def _run_stdin(self, task: Task, number: int) -> list[TestRun]:
        kind, code, wall, out, err = await self._execute(task.program, task.inputs[number], task.limit)
        verdict, detail = stdin_verdict(kind, code, False, err, 0, task)
        return [TestRun(verdict, detail, wall, wall, 0, out, err)]

    async def _run_asserts(self, task: Task, first: int) -> list[TestRun]:
        marker = secrets.token_hex(16).encode()
        job = {
            "program": task.program,
            "setup": task.setup,
            "tests": task.tests,
            "entry_point": task.entry_point,
            "modules": task.modules,
            "marker": marker,
            "cpu": task.limit,
            "first": first,
        }
        for source in (task.setup, *task.tests):
            try:
                ast.parse(source)
            except (SyntaxError, ValueError) as e:
                raise SandboxFailed(f"the tests do not compile: {e}") from None
        module = base64.b64encode(Path(asserts.__file__).read_bytes())
        code = _ASSERTS.format(source=module, job=base64.b64encode(repr(job).encode("utf-8", "surrogatepass")))
        kind, status, wall, out, err = await self._execute(code, "", task.limit)
        return assert_runs(kind, status, out, marker, task, first, wall, 0, err)

    # ------------------------------------------------------------------------------------------------------ requests
    async def _compile(self, program: str) -> None:
        """CompileFailed if this Python cannot compile the program; in a process of its own, which nothing is run in."""
        command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _COMPILE]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        out, _ = await process.communicate(program.encode("utf-8", "surrogatepass"))
        if out or process.returncode:
            raise CompileFailed(out.decode().strip() or "the compiler crashed on this program")

    @staticmethod
    def _body(code: str, stdin: str, limit: float) -> dict[str, Any]:
        return {
            "code": code,
            "language": "python",
            "stdin": stdin,
            "compile_timeout": 10,
            "run_timeout": limit,
            "memory_limit_MB": -1,
            "files": {},
            "fetch_files": [],
        }

    async def _execute(self, code: str, stdin: str, limit: float) -> tuple[int, int, float, bytes, bytes]:
        """(kind as the fork-server's, exit code or signal, wall s, stdout, stderr); SandboxFailed after TRIES."""
        body, problem, tried = self._body(code, stdin, limit), "", None
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self.back_off * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            url = self._choose(avoid=tried)
            tried = url
            self.in_flight[url] += 1
            try:
                result = await self._post(url, body, limit)
                self.down[url] = 0.0
                break
            except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as e:
                problem = f"{url}: {e or type(e).__name__}"
                self.lost += 1
                self.down[url] = asyncio.get_running_loop().time() + self.back_off * 2**attempt
            finally:
                self.in_flight[url] -= 1
        else:
            raise SandboxFailed(f"no answer after {TRIES} tries: {problem}")
        out, err = (
            result["stdout"].encode("utf-8", "surrogatepass"),
            result["stderr"].encode("utf-8", "surrogatepass")[-fork_server.ERR_TAIL :],
        )
        if len(out) >= MAX_OUTPUT:
            raise SandboxFailed("an output of 200 kB or more, which this server cuts or calls a timeout; judge locally")
        wall, status = float(result["execution_time"]), int(result["return_code"])
        if result["status"] == "TimeLimitExceeded":
            return fork_server.WALL, 0, wall, out, err
        return (
            (fork_server.SIGNALLED, -status, wall, out, err)
            if status < 0
            else (fork_server.EXITED, status, wall, out, err)
        )

    def _choose(self, avoid: str | None) -> str:
        """The server with the least to do; one that has just failed only when there is no other."""
        now = asyncio.get_running_loop().time()
        return min(self.urls, key=lambda url: (self.down[url] > now, url == avoid, self.in_flight[url]))

    async def _post(self, url: str, body: dict, limit: float) -> dict[str, Any]:
        """The run_result of one request, checked field by field; ValueError or ClientError where the server failed."""
        async with self.session.post(url, json=body, timeout=aiohttp.ClientTimeout(total=limit + GRACE)) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            answer = await response.json(content_type=None)
        if not isinstance(answer, dict) or answer.get("status") not in ("Success", "Failed"):
            status = answer.get("status") if isinstance(answer, dict) else type(answer).__name__
            raise ValueError(f"status {status}: {str(answer.get('message'))[:200] if isinstance(answer, dict) else ''}")
        result = answer.get("run_result")
        if not isinstance(result, dict) or result.get("status") not in ("Finished", "TimeLimitExceeded"):
            raise ValueError(f"run_result {result.get('status') if isinstance(result, dict) else result}")
        result = {"execution_time": 0.0, **{k: v for k, v in result.items() if v is not None}}
        result.setdefault("stdout", "")
        result.setdefault("stderr", "")
        if result["status"] == "Finished" and not isinstance(result.get("return_code"), int):
            raise ValueError("run_result has no return_code")
        result.setdefault("return_code", 0)
        return result
