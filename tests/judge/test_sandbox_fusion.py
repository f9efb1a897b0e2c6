"""The SandboxFusion adapter against a server that really runs the code and replays the shapes and faults of the real
one.

The fake server runs what it is sent in the local judge's sandbox, so untrusted code stays inside it here too.
"""

import asyncio
import base64
import contextlib
import json
import time

import pytest
from aiohttp import web

from phase1.contract.prompts import answer
from phase1.files import BadInput
from phase1.judge import sandbox_fusion
from phase1.judge.__main__ import print_probes
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
from phase1.judge.outcomes import Task
from phase1.judge.sandbox import LocalSandbox
from phase1.reward import compute_score
from tests.judge.running_judge import asserts, stdin
from tests.judge.test_judge import BEHAVE
from tests.judge.test_judge_asserts import CHEATS, SMALL

CUT = 219_264


class FakeServer:
    """POST /run_code as the real one answers it; `faults` are played first, one a request."""

    def __init__(self, sandbox):
        self.sandbox, self.faults, self.requests, self.logins = sandbox, [], [], []

    async def run_code(self, request):
        body = await request.json()
        self.requests.append(body)
        self.logins.append(request.headers.get("Authorization"))
        fault = self.faults.pop(0) if self.faults else None
        if fault == "500":
            return web.Response(status=500, text="Internal Server Error")
        if fault == "html":
            return web.Response(text="<html>bad gateway</html>")
        if fault == "drop":
            request.transport.close()
            return web.Response()
        if fault == "truncated":
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
            await response.prepare(request)
            await response.write(b'{"status": "Success", "run_')
            request.transport.close()
            return response
        if fault == "SandboxError":
            return web.json_response({"status": "SandboxError", "message": "docker died", "run_result": None})
        if fault == "Error":
            return web.json_response(
                {
                    "status": "Failed",
                    "message": "",
                    "run_result": {"status": "Error", "stdout": "", "stderr": "", "return_code": None},
                }
            )
        if fault == "no result":
            return web.json_response({"status": "Success", "message": ""})
        if fault == "slow":
            await asyncio.sleep(1.5)
        return web.json_response(await self.answer(body))

    async def answer(self, body):
        started = time.monotonic()
        # The real server gives the code a process of its own: so does a program that runs it from a file.
        outer = (
            "import os, subprocess, sys\nopen('code.py', 'w').write(CODE)\n"
            "sys.exit(subprocess.run([sys.executable, 'code.py']).returncode % 256)"
        )
        task = Task(
            outer.replace("CODE", repr(body["code"])),
            kind="stdin",
            count=1,
            limit=body["run_timeout"],
            memory=1 << 30,
            inputs=[body["stdin"]],
        )
        [run] = [run async for run in self.sandbox.run(task)]
        out = run.output.decode(errors="replace")
        late = run.verdict == "timeout" or len(out) > 1_000_000
        code = 0 if not run.verdict else int(run.detail.split()[-1]) if run.detail.startswith("exit code") else 1
        result = {
            "status": "TimeLimitExceeded",
            "execution_time": body["run_timeout"],
            "return_code": None,
            "stdout": "",
            "stderr": "",
        }
        if not late:
            stderr = run.stderr.decode(errors="replace")
            result = {
                "status": "Finished",
                "execution_time": time.monotonic() - started,
                "return_code": code,
                "stdout": out[:CUT],
                "stderr": stderr,
            }
        status = "Success" if not late and code == 0 else "Failed"
        return {
            "status": status,
            "message": "",
            "compile_result": None,
            "run_result": result,
            "executor_pod_name": None,
            "files": {},
        }


@pytest.fixture(scope="module")
def world():
    """(runner, server, fusion judge, local judge) that live in one event loop."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()

        async def start():
            local = await stack.enter_async_context(open_judge(JudgeConfig(workers=2, run_timeout=1.0)))
            server = FakeServer(local.backend)
            app = web.Application(client_max_size=1 << 28)
            app.router.add_post("/run_code", server.run_code)
            web_runner = web.AppRunner(app)
            await web_runner.setup()
            stack.push_async_callback(web_runner.cleanup)
            site = web.TCPSite(web_runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
            fusion = await stack.enter_async_context(
                open_judge(JudgeConfig(judge="sandbox_fusion", sandbox_urls=(url,), workers=2, run_timeout=1.0))
            )
            fusion.backend.back_off = 0.01
            return server, fusion, local

        server, fusion, local = runner.run(start())
        assert isinstance(local.backend, LocalSandbox)
        yield runner, server, fusion, local
        runner.run(stack.aclose())


PROGRAMS = {
    "verdicts of all kinds": (BEHAVE, stdin(*((w + "\n", w + "\n") for w in ("a", "wrong", "crash", "b")))),
    "timeouts": (BEHAVE, stdin(*((w + "\n", w + "\n") for w in ("a", "slow", "slow", "slow", "a")))),
    "syntax error": ("def f(:", stdin(("", ""))),
    "fake syntax error": ("raise SyntaxError('x')", stdin(("", ""))),
    "exit 0": ("import sys\nprint(1)\nsys.exit(0)", stdin(("", "1"))),
    "exit 3": ("import sys\nsys.exit(3)", stdin(("", "1"))),
    "empty": ("", stdin(("", "1"))),
    "unicode": ("print(input()[::-1])", stdin(("äö→😀\n", "😀→öä\n"))),
    "mbpp right": ("def f(x): return [x]", SMALL["mbpp"]),
    "humaneval right": ("def f(x): return [x]", SMALL["humaneval"]),
    "mbpp half": ("def f(x): return [3]", SMALL["mbpp"]),
    "mbpp dies": (
        "import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return x",
        asserts("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"),
    ),
    "mbpp body fails": ("1 / 0", SMALL["mbpp"]),
    "mbpp prints": ("def f(x):\n    print('x' * 100)\n    return [x]", SMALL["mbpp"]),
    "mbpp tests broken": ("def f(x): return x", asserts("assert f(1) ==")),
    **{
        f"cheat: {name}": (CHEATS[name].replace("{e}", "f"), SMALL["mbpp"])
        for name in ("sys.exit", "os._exit", "always equal", "patched builtins", "replaced check", "prints an end")
    },
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "timeouts" else ()) for n in PROGRAMS])
def test_verdicts_equal_the_local_judges(world, name):
    runner, _, fusion, local = world
    program, cases = PROGRAMS[name]
    theirs, ours = (runner.run(judge.judge(program, cases)) for judge in (fusion, local))
    same = (
        "error_type",
        "accepted",
        "pass_ratio",
        "tests_total",
        "tests_run",
        "tests_passed",
        "test_verdicts",
        "tests_silent",
    )
    assert {k: getattr(theirs, k) for k in same} == {k: getattr(ours, k) for k in same}, (theirs.detail, ours.detail)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "html", "drop", "truncated", "SandboxError", "Error", "no result", "slow"])
def test_a_fault_is_tried_again(world, fault):
    runner, server, fusion, _ = world
    server.faults = [fault, fault]
    before = len(server.requests)
    verdict = runner.run(fusion.judge(f"print(1) # {fault}", stdin(("", "1"))))
    assert verdict.accepted
    assert len(server.requests) == before + (1 if fault == "slow" else 3)
    server.faults.clear()


@pytest.mark.parametrize("fault", ["500", "SandboxError", "drop", "truncated"])
def test_a_lasting_fault_is_the_judges_and_never_the_models(world, fault):
    runner, server, fusion, _ = world
    server.faults = [fault] * 50
    verdict = runner.run(fusion.judge(f"print(2) # {fault}", stdin(("", "1"))))
    server.faults.clear()
    assert verdict.error_type == "sandbox_error"
    assert verdict.detail
    assert not verdict.accepted


@pytest.mark.slow
@pytest.mark.parametrize("code", ["def f(x): return [x]", "def f(x): return [3]", "def f(:", "raise ValueError"])
def test_the_reward_by_a_server_equals_the_local_one(world, code):
    runner, _, fusion, _ = world
    options = ({"workers": 1}, {"judge": "sandbox_fusion", "sandbox_urls": [fusion.backend.urls[0]]})
    scored = [
        runner.run(asyncio.to_thread(compute_score, "mbpp", answer(code), SMALL["mbpp"], **each)) for each in options
    ]
    assert scored[0] == scored[1] and scored[0]["sandbox_error"] == 0.0


@pytest.mark.parametrize("size", [200_000, 300_000, 1_200_000])
def test_outputs_that_the_server_cuts_are_not_judged(world, size):
    runner, _, fusion, local = world
    program, cases = f"print('x' * {size})", stdin(("", "x" * size))
    assert runner.run(local.judge(program, cases)).accepted
    assert runner.run(fusion.judge(program, cases)).error_type == "sandbox_error"


def test_the_memory_limit_is_never_sent(world):
    runner, server, fusion, _ = world
    runner.run(fusion.judge("print(3)", stdin(("", "3"), memory_limit_mb=64)))
    assert server.requests[-1]["memory_limit_MB"] == -1
    assert set(server.requests[-1]) == {
        "code",
        "language",
        "stdin",
        "compile_timeout",
        "run_timeout",
        "memory_limit_MB",
        "files",
        "fetch_files",
    }
    json.dumps(server.requests[-1])


def test_a_syntax_error_costs_the_server_nothing(world):
    runner, server, fusion, _ = world
    before = len(server.requests)
    assert runner.run(fusion.judge("def g(:", stdin(("", "3")))).error_type == "syntax_error"
    assert len(server.requests) == before


def test_a_dead_server_among_live_ones_is_passed_over(world):
    runner, _, fusion, _ = world

    async def both():
        config = JudgeConfig(
            judge="sandbox_fusion", sandbox_urls=("http://127.0.0.1:9", fusion.backend.urls[0]), workers=4
        )
        async with open_judge(config) as judge:
            judge.backend.back_off = 0.01
            assert judge.info["healthy"] == 1
            return await asyncio.gather(*(judge.judge(f"print({i})", stdin(("", str(i)))) for i in range(8)))

    assert all(v.accepted for v in runner.run(both()))


def test_no_server_at_all_is_one_clear_error():
    async def start():
        async with open_judge(JudgeConfig(judge="sandbox_fusion", sandbox_urls=("http://127.0.0.1:9",))):
            pass

    with pytest.raises(BadInput, match=r"no SandboxFusion server answers: http://127.0.0.1:9/run_code"):
        asyncio.run(start())
    with pytest.raises(BadInput, match="--sandbox_url"):
        sandbox_fusion.FusionSandbox((), 1)


def test_probe_of_servers_says_how_many_answer(world, capsys):
    runner, _, fusion, _ = world
    config = JudgeConfig(judge="sandbox_fusion", sandbox_urls=("http://127.0.0.1:9", fusion.backend.urls[0]))
    assert runner.run(print_probes(config)) == 0
    assert "1 of 2 servers" in capsys.readouterr().out


def test_the_password_in_a_url_is_sent_and_not_told(world):
    runner, server, fusion, _ = world
    url = fusion.backend.urls[0].removesuffix("/run_code").replace("http://", "http://me:pass%40word@")

    async def start():
        async with open_judge(JudgeConfig(judge="sandbox_fusion", sandbox_urls=(url,))) as judge:
            return judge.info, judge.backend.urls

    told = runner.run(start())
    assert "pass" not in str(told) and base64.b64decode(server.logins[-1].removeprefix("Basic ")) == b"me:pass@word"
