"""SandboxFusion over HTTP (github.com/bytedance/SandboxFusion): the same tasks as the local sandbox, run by its
servers.

What was seen on a real server, and what is done about it:

- Python has no compile step there, a syntax error is exit code 1: programs are compiled here first, without running
  them.
- stdout is cut at 219,264 bytes with status Success, and 1 MB of it is called TimeLimitExceeded: an output, or an
  expected one, of 200 kB or more is the judge's failure, not the model's.
- memory_limit_MB above 0 makes threads and `import numpy` fail: it is never sent, the server's own limit holds.
- `sys.exit(0)` before the asserts is Success: assert tasks carry the local sandbox's end marker and guards.
- A server handles one run after another, 21 a second whatever the concurrency: several URLs share one queue.
- 500, SandboxError, a cut answer, a dropped connection: tried again, elsewhere if possible, then `sandbox_error`.

Time limits are the server's, in wall clock: a loaded server gives timeouts that the local sandbox would not.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import random
import secrets
import sys
import urllib.parse
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import aiohttp

from phase1.files import BadInput
from phase1.judge.inside import (
    asserts,
    group,
    plain,
    processes,
    program_process,
    protocol,
    remote,
    talk,
    tests_process,
)
from phase1.judge.outcomes import (
    ATTEMPTS,
    MAX_TIMEOUTS,
    CompileFailed,
    ProcessEnd,
    Running,
    SandboxFailed,
    SandboxInfo,
    Task,
    TestRun,
    assert_runs,
    stdin_verdict,
)
from phase1.redact import redacted

if TYPE_CHECKING:
    from pydantic import JsonValue

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
# An assert task on a server: the modules that its two processes use, and what `remote.be_tests` is given.
_MODULES = (asserts, group, plain, talk, protocol, processes, program_process, tests_process, remote)
_ASSERTS = """
import ast
sources, job, tests = ast.literal_eval({given!r})
{load}
sys.modules["phase1.judge.inside.remote"].be_tests(job, tests, sources)
"""


@dataclass(frozen=True)
class ServersInfo(SandboxInfo):
    """The servers that were given, and how many of them run programs."""

    sandbox_urls: list[str]
    healthy: int

    def lines(self) -> list[str]:
        return [
            f"mode         {self.mode}: {self.healthy} of {len(self.sandbox_urls)} servers run programs; what they "
            "isolate cannot be tried from here"
        ]


class _Result(NamedTuple):
    """The run_result of a server's answer."""

    late: bool  # TimeLimitExceeded
    return_code: int
    execution_time: float  # s
    stdout: bytes
    stderr: bytes


class FusionSandbox:
    """Any number of SandboxFusion servers behind one queue.

    Args:
        urls: of the servers, with or without `/run_code`.
        workers: programs at a time, over all servers; at least two a server.
        back_off: seconds before the second try of a request.

    Raises:
        BadInput: when there is no URL.
    """

    def __init__(self, urls: tuple[str, ...], workers: int, back_off: float = BACK_OFF):
        if not urls:
            raise BadInput("--judge sandbox_fusion needs --sandbox_url http://HOST:PORT (once a server)")
        self.urls = []
        self.login: dict[str, dict[str, str]] = {}  # header by URL, which is told without user and password
        for given in urls:
            url = given if given.endswith("/run_code") else given.rstrip("/") + "/run_code"
            user, at, host = url.rpartition("@")
            if at:
                scheme, _, login = user.partition("://")
                url = f"{scheme}://{host}"
                word = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
                self.login[url] = {"Authorization": f"Basic {word}"}
            self.urls.append(url)
        self.back_off = back_off
        self.slots = asyncio.Semaphore(max(workers, 2 * len(urls)))
        self.in_flight = dict.fromkeys(self.urls, 0)
        self.down = dict.fromkeys(self.urls, 0.0)  # loop time until which a server is left alone
        self.lost = 0  # answers that said nothing of the program; each costs a further request
        self.info = ServersInfo("sandbox_fusion", redacted(list(urls)), healthy=0)
        self.session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Health check. Raises BadInput when no server runs a program."""
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = self._body("print(6 * 7)", "", 10)
        answers = await asyncio.gather(*(self._post(url, body, 10) for url in self.urls), return_exceptions=True)
        problems = [str(e) or type(e).__name__ for e in answers if isinstance(e, BaseException)]
        if len(problems) == len(self.urls):
            raise BadInput(
                f"no SandboxFusion server answers: {self.urls[0]}: {problems[0]}; start one or correct --sandbox_url"
            )
        self.info = replace(self.info, healthy=len(self.urls) - len(problems))

    async def close(self) -> None:
        """Close the connections."""
        if self.session is not None:
            await self.session.close()

    def running(self) -> list[Running]:
        """As `Sandbox.running`: what a server is at, it does not tell."""
        return []

    async def run(self, task: Task) -> AsyncGenerator[TestRun, None]:
        """As `Sandbox.run`."""
        async with self.slots:
            await self._compile(task.program)
            if task.longest_output >= MAX_OUTPUT:
                raise SandboxFailed(
                    "an expected output has 200 kB or more, which this server cuts or calls a timeout; judge locally"
                )
            done = late = 0
            while done < task.count and late < MAX_TIMEOUTS:
                run_tests = self._run_stdin if task.kind == "stdin" else self._run_asserts
                for run in await run_tests(task, done):
                    done += 1
                    late = late + 1 if run.verdict == "timeout" else 0
                    yield run

    async def _run_stdin(self, task: Task, number: int) -> list[TestRun]:
        end = await self._execute(task.program, task.inputs[number], task.limit)
        verdict, detail = stdin_verdict(end, task)
        return [
            TestRun(
                verdict=verdict,
                detail=detail,
                cpu=end.cpu,
                wall=end.wall,
                peak_rss=end.peak_rss,
                output=end.out,
                stderr=end.err,
            )
        ]

    async def _run_asserts(self, task: Task, first: int) -> list[TestRun]:
        marker = secrets.token_hex(16).encode()
        assert task.asserts is not None
        for source in (task.asserts.setup, *task.asserts.tests):
            try:
                ast.parse(source)
            except (SyntaxError, ValueError) as e:
                raise SandboxFailed(f"the tests do not compile: {e}") from None
        job = {"program": task.program, "shared": task.asserts.shared, "classes": task.asserts.classes}
        tests = asdict(task.asserts) | {"first": first, "marker": marker}
        sources = [(module.__name__, Path(str(module.__file__)).read_text(encoding="utf-8")) for module in _MODULES]
        code = _ASSERTS.format(given=repr((sources, job, tests)), load=remote.LOAD)
        end = await self._execute(code, "", task.limit)
        # A server tells how long the processes took, and not what of the processor.
        return assert_runs(end._replace(report=end.out, cpu=0.0), task, first, marker)

    # ------------------------------------------------------------------------------------------------------ requests
    async def _compile(self, program: str) -> None:
        """Compile the program in a process of its own, without running it. Raises CompileFailed where that fails."""
        command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _COMPILE]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        out, _ = await process.communicate(program.encode("utf-8", "surrogatepass"))
        if out or process.returncode:
            raise CompileFailed(out.decode().strip() or "the compiler crashed on this program")

    @staticmethod
    def _body(code: str, stdin: str, limit: float) -> dict[str, object]:
        """The request for one run. `limit`: seconds."""
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

    async def _execute(self, code: str, stdin: str, limit: float) -> ProcessEnd:
        """One run on one of the servers. The server does not tell CPU time or memory. Raises SandboxFailed after TRIES
        tries, or where the server cannot be trusted with so long an output."""
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
        if len(result.stdout) >= MAX_OUTPUT:
            raise SandboxFailed("an output of 200 kB or more, which this server cuts or calls a timeout; judge locally")
        kind, code_or_signal = protocol.EXITED, result.return_code
        if result.late:
            kind, code_or_signal = protocol.WALL, 0
        elif result.return_code < 0:
            kind, code_or_signal = protocol.SIGNALLED, -result.return_code
        return ProcessEnd(
            kind=kind,
            code=code_or_signal,
            cpu=result.execution_time,
            wall=result.execution_time,
            peak_rss=0,
            written=len(result.stdout),
            out=result.stdout,
            err=result.stderr[-protocol.ERR_TAIL :],
            report=b"",
        )

    def _choose(self, avoid: str | None) -> str:
        """The server with the least to do; one that has just failed only when there is no other."""
        now = asyncio.get_running_loop().time()
        return min(self.urls, key=lambda url: (self.down[url] > now, url == avoid, self.in_flight[url]))

    async def _post(self, url: str, body: dict[str, object], limit: float) -> _Result:
        """One request. Raises ValueError or aiohttp.ClientError where the server failed."""
        assert self.session is not None
        timeout = aiohttp.ClientTimeout(total=limit + GRACE)
        async with self.session.post(url, json=body, headers=self.login.get(url), timeout=timeout) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            return _read_answer(await response.json(content_type=None))


def _read_answer(answer: JsonValue) -> _Result:
    """A server's answer, checked field by field. Raises ValueError where it is none of a run."""
    if not isinstance(answer, dict):
        raise ValueError(f"status {type(answer).__name__}")
    if answer.get("status") not in ("Success", "Failed"):
        raise ValueError(f"status {answer.get('status')}: {str(answer.get('message'))[:200]}")
    result = answer.get("run_result")
    if not isinstance(result, dict):
        raise ValueError(f"run_result {result}")
    status, code, seconds = (result.get(key) for key in ("status", "return_code", "execution_time"))
    if status not in ("Finished", "TimeLimitExceeded"):
        raise ValueError(f"run_result {status}")
    late = status == "TimeLimitExceeded"
    if not late and not isinstance(code, int):
        raise ValueError("run_result has no return_code")
    out, err = (str(result.get(key) or "").encode("utf-8", "surrogatepass") for key in ("stdout", "stderr"))
    return _Result(
        late=late,
        return_code=code if isinstance(code, int) else 0,
        execution_time=float(seconds) if isinstance(seconds, int | float) else 0.0,
        stdout=out,
        stderr=err,
    )
