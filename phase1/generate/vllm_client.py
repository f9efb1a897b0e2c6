"""One queue of requests over any number of vLLM servers, ours or running ones, and what happens when one of them fails.

A request goes to whichever server has a free place, longest expected first. Connection errors, 5xx and timeouts are
tried again with back-off, elsewhere if possible. A server that is gone, or that answers /health but produces no token,
is taken out and its requests go to the others. Answers are not streamed: eight GPUs make some 100,000 tokens a second,
and that many events would keep a Python client busier than the judge; whether an engine is alive shows in its /metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import aiohttp
from pydantic import JsonValue

from phase1.contract.records import Completion
from phase1.files import BadInput
from phase1.generate.generator import Asked, GenerationStopped
from phase1.generate.requests import Request, context_limit, decode, stop_ids
from phase1.generate.vllm_checks import check_model, check_sampling, version
from phase1.generate.vllm_servers import Server, ServerConfig, authorization, start_servers, stop_servers, wait_ready

TRIES = 5  # of one request that a healthy server fails
BACK_OFF = 0.5  # seconds before the second try; doubles, with jitter
HEALTH_TRIES = 3  # of /health before a server that is not ours counts as gone; ours is gone when its process is
GUARD = 2.0  # seconds between two looks at a server
REFUSED = (400, 413, 422)  # the request is at fault, no server will take it
BUSY = (408, 425, 429)
OTHER_FILES = 1024  # open files besides connections: the judge's pipes, some to each core; logs, libraries


class Failed(Exception):
    """A try that may succeed later or elsewhere."""


@dataclass
class Endpoint:
    """A server as the client sees it. `model`: the name it serves the model under; `gone`: why it is out of use."""

    url: str
    server: Server | None = None
    model: str = ""
    gone: str | None = None
    in_flight: int = 0
    finished: int = 0
    seen: float = -1.0  # tokens processed when last asked
    moved: float = 0.0  # when that, or `finished`, last rose
    workers: list[asyncio.Task] = field(default_factory=list, repr=False)
    probing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


@dataclass(frozen=True)
class VllmSettings:
    """Running servers (`urls`), or our own (`servers`); `max_concurrent` requests at a time on each.

    `served_model_name`: under which running servers serve the model, where it is not its path. Timeouts in seconds: of
    one answer, and of a server that has requests and produces no token.
    """

    urls: tuple[str, ...] = ()
    servers: ServerConfig | None = None
    served_model_name: str | None = None
    max_concurrent: int = 256
    request_timeout: float = 600.0
    stall_timeout: float = 180.0
    batch_invariant: bool = False  # as the servers are started, or were


class VllmGenerator:
    """A Generator: from `urls`, or from servers that are started for it and stopped on the way out."""

    def __init__(self, settings: VllmSettings):
        self.settings = settings
        self.info: dict[str, JsonValue] = {}

    async def completions(self, requests: Sequence[Request], asked: Asked) -> AsyncGenerator[Completion, None]:
        """See Generator."""
        settings = self.settings
        owned: list[Server] = []
        try:
            if not settings.urls and settings.servers:
                owned = await asyncio.to_thread(start_servers, settings.servers)
                asked.progress.say(
                    f"vLLM: starting {len(owned)} servers on {', '.join(dict.fromkeys(s.gpus for s in owned))}; "
                    f"logs in {settings.servers.log_dir}"
                )
                ready = await asyncio.to_thread(wait_ready, owned, settings.servers.start_timeout, asked.progress.say)
                endpoints = [Endpoint(s.url, s) for s in ready]
            else:
                endpoints = [Endpoint(url.rstrip("/").removesuffix("/v1")) for url in settings.urls]
            # Keep-alive is closed by vLLM after 5 s of rest.
            connector = aiohttp.TCPConnector(
                limit=connections(len(endpoints) * (settings.max_concurrent + 2)), keepalive_timeout=4
            )
            async with aiohttp.ClientSession(
                connector=connector, headers=authorization(), timeout=aiohttp.ClientTimeout(total=None)
            ) as http:
                client = Client(http, endpoints, settings, asked)
                self.info["servers"] = await client.check(requests[0])
                async with contextlib.aclosing(client.completions(requests)) as stream:
                    async for completion in stream:
                        yield completion
        finally:
            if owned:
                await asyncio.to_thread(stop_servers, owned)


def connections(wanted: int) -> int:
    """As many of `wanted` connections as this process may open; raises its own limit as far as it may.

    Eight servers with 256 requests each are more than the 1,024 files that a login shell usually allows; a server to
    which no connection can be opened would look dead.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + OTHER_FILES:
        soft = wanted + OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + OTHER_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(soft - OTHER_FILES, soft // 2))


class Client:
    """The queue and the workers on it: `max_concurrent` a server."""

    def __init__(self, http: aiohttp.ClientSession, endpoints: list[Endpoint], settings: VllmSettings, asked: Asked):
        self.http, self.endpoints, self.settings, self.asked = http, endpoints, settings, asked
        self.stops = stop_ids(asked.model_path, asked.tokenizer)
        self.queue: asyncio.PriorityQueue[tuple[int, Request]] = asyncio.PriorityQueue()
        self.out: asyncio.Queue[Completion | None] = asyncio.Queue()  # None: a server is gone, look whether any is left
        self.tries: dict[int, int] = {}

    async def check(self, probe: Request) -> dict[str, JsonValue]:
        """Every server serves this model, with room for `max_model_len`, and applies no sampling of the model's own.

        BadInput when one does not. One of our own that dies or hangs here is taken out, as later; one that the user
        named is an error, since only the user can say whether the evaluation should go on without it.
        """
        found = await asyncio.gather(*(self._check_one(e, probe) for e in self.endpoints))
        if all(e.gone for e in self.endpoints):
            raise BadInput(
                "no vLLM server is left: "
                f"{'; '.join(f'{e.url}: {e.gone}; its log: {e.server.log}' for e in self.endpoints if e.server)}"
            )
        return {e.url: server for e, server in zip(self.endpoints, found, strict=True) if server is not None}

    async def _check_one(self, e: Endpoint, probe: Request) -> dict[str, JsonValue] | None:
        """What the server said of itself; None where it is taken out."""
        model_path = self.asked.model_path
        limit = context_limit(model_path, self.asked.sampling.max_model_len)
        patience = min(self.settings.request_timeout, self.settings.stall_timeout)
        try:
            async with asyncio.timeout(patience):
                e.model = await check_model(self.http, e.url, model_path, limit, self.settings.served_model_name)
                found = await check_sampling(self.http, e.url, self.body(e, probe))
                server = {"vllm": await version(self.http, e.url), "on": e.server.gpus if e.server else None, **found}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            why = (
                f"{type(error).__name__}: {error}"
                if not isinstance(error, TimeoutError)
                else f"three short questions are not answered in {patience:.0f} s"
            )
            if e.server:
                self._retire(e, why)
                return None
            raise BadInput(
                f"{e.url}: no vLLM server that answers there ({why}); leave it out, or start it again"
            ) from None
        if found["penalty_seen"] is False:
            self.asked.progress.say(
                f"warning: {e.url}: a penalty of 2 changes nothing in the probe's answer, so the probe proves "
                "nothing about penalties"
            )
        return server

    # -------------------------------------------------------------------------------------------------------- the queue
    async def completions(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Yield a Completion a request as each is finished. GenerationStopped when no server is left."""
        for order, request in enumerate(requests):
            self.queue.put_nowait((order, request))
        # In turn over the servers, or the first would get the whole of a short queue.
        for _ in range(min(self.settings.max_concurrent, len(requests))):
            for e in self.endpoints:
                e.workers.append(asyncio.create_task(self._work(e)))
        guards = [asyncio.create_task(self._guard(e)) for e in self.endpoints]
        try:
            for left in range(len(requests), 0, -1):
                while (completion := await self.out.get()) is None:
                    if (
                        all(e.gone for e in self.endpoints) and self.out.empty()
                    ):  # answers may still stand behind this word
                        reasons = "; ".join(f"{e.url}: {e.gone}" for e in self.endpoints)
                        raise GenerationStopped(f"no vLLM server is left, {left} answers are missing ({reasons})")
                yield completion
        finally:
            tasks = guards + [t for e in self.endpoints for t in e.workers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, e: Endpoint) -> None:
        """One place on one server: take a request, answer it, until the server is gone."""
        while e.gone is None:
            order, request = await self.queue.get()
            done = False
            e.in_flight += 1
            self.asked.progress.start("generated")
            try:
                completion = await self._answer(e, order, request)
                if done := completion is not None:
                    e.finished += 1
                    self.out.put_nowait(completion)
            finally:  # cancelled too, when the server is taken out
                e.in_flight -= 1
                if not done:
                    self.asked.progress.start("generated", -1)
                    self.queue.put_nowait((order, request))

    async def _answer(self, e: Endpoint, order: int, request: Request) -> Completion | None:
        """The request's completion, one that says why there is none, or None: put it back into the queue."""
        started, clock = time.time(), time.perf_counter()

        def failed(why: str) -> Completion:
            seconds, session = time.perf_counter() - clock, self.asked.session
            return request.completion(reason="error", seconds=seconds, started=started, session=session, error=why)

        try:
            async with asyncio.timeout(self.settings.request_timeout):
                async with self.http.post(e.url + "/v1/completions", json=self.body(e, request)) as response:
                    if response.status in REFUSED:
                        return failed(
                            f"{e.url} refused the request with {response.status}: {(await response.text())[:300]}"
                        )
                    if 400 <= response.status < 500 and response.status not in BUSY:
                        self._retire(e, f"it answers {response.status}: {(await response.text())[:200]}")
                        return None
                    if response.status != 200:
                        raise Failed(f"{response.status}: {(await response.text())[:200]}")
                    answer = await response.json()
            choice, usage = answer["choices"][0], answer["usage"]
            if usage["prompt_tokens"] != len(request.prompt):
                return failed(f"{e.url} counts {usage['prompt_tokens']} prompt tokens, {len(request.prompt)} were sent")
            if choice["finish_reason"] not in ("stop", "length"):  # abort: the engine gave up on it
                raise Failed(f"finish_reason {choice['finish_reason']}")
            text, n_tokens = choice["text"], usage["completion_tokens"]
            if ids := choice.get("token_ids"):  # vLLM 0.10.2 and later
                decoded = decode(self.asked.tokenizer, ids, set(self.stops))
                text, n_tokens = decoded.text, decoded.n_tokens
            return request.completion(
                text,
                reason=choice["finish_reason"],
                n_tokens=n_tokens,
                seconds=time.perf_counter() - clock,
                started=started,
                session=self.asked.session,
            )
        except (aiohttp.ClientError, TimeoutError, Failed, ValueError, KeyError, IndexError, TypeError) as error:
            why = (
                f"{type(error).__name__}: {error}"
                if not isinstance(error, TimeoutError)
                else f"no answer in {self.settings.request_timeout:.0f} s"
            )
        if not await self._healthy(e):
            return None
        self.tries[order] = tries = self.tries.get(order, 0) + 1
        if tries >= TRIES:
            return failed(f"tried {tries} times, last at {e.url}: {why}")
        await asyncio.sleep(BACK_OFF * 2 ** (tries - 1) * random.uniform(0.5, 1.5))
        return None

    def body(self, e: Endpoint, request: Request) -> dict[str, JsonValue]:
        """Everything explicit: what is left out a server may fill from the model's generation_config.json."""
        s = self.asked.sampling
        body = {
            "model": e.model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "stop_token_ids": self.stops,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "top_k": s.top_k,
            "min_p": 0.0,
            "repetition_penalty": s.repetition_penalty,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "return_token_ids": True,
        }
        return body | {"seed": request.seed(s.seed)} if s.temperature > 0 else body

    # ------------------------------------------------------------------------------------------------ is it still there
    async def _healthy(self, e: Endpoint) -> bool:
        """Whether the server is still of use; takes it out when it is not. Its workers ask one after another."""
        async with e.probing:
            for attempt in range(HEALTH_TRIES):
                if e.gone is not None:
                    return False
                if e.server and not e.server.alive:
                    break
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(10), self.http.get(e.url + "/health") as response:
                        if response.status == 200:
                            return True
                await asyncio.sleep(BACK_OFF * 2**attempt)
            self._retire(
                e, "its process has ended" if e.server and not e.server.alive else "it does not answer /health"
            )
            return False

    async def _guard(self, e: Endpoint) -> None:
        """Take out a server whose process ends, or that has requests and produces nothing
        (lm-evaluation-harness#2904)."""
        e.moved = time.monotonic()
        patience, finished = self.settings.stall_timeout, 0
        while e.gone is None:
            await asyncio.sleep(min(GUARD, patience / 4))
            if e.server and not e.server.alive:
                self._retire(e, "its process has ended")
                return
            tokens = await self._tokens(e)
            if e.in_flight == 0 or e.finished != finished or (tokens is not None and tokens != e.seen):
                e.moved, e.seen, finished = time.monotonic(), tokens if tokens is not None else e.seen, e.finished
            # Without /metrics only finished answers show life, and one answer may take as long as a request may.
            limit = patience if tokens is not None else max(patience, self.settings.request_timeout)
            if time.monotonic() - e.moved > limit:
                self._retire(e, f"it answers /health but has produced nothing for {limit:.0f} s")

    async def _tokens(self, e: Endpoint) -> float | None:
        """Prompt and output tokens that the engine has processed since its start; None where it does not say."""
        try:
            async with asyncio.timeout(10), self.http.get(e.url + "/metrics") as response:
                text = await response.text() if response.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return None
        counters = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
        values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(counters)]
        return sum(values) if values else None

    def _retire(self, e: Endpoint, reason: str) -> None:
        if e.gone is not None:
            return
        e.gone = reason
        log = f"; the last line of {e.server.log}: {(e.server.last_lines(1) or [''])[0][-200:]}" if e.server else ""
        others = sum(o.gone is None for o in self.endpoints)
        left = (
            f"its {e.in_flight} requests go to the others, of which {others} are left" if others else "no other is left"
        )
        self.asked.progress.say(f"warning: {e.url} is taken out: {reason}; {left}{log}")
        current = asyncio.current_task()
        for task in e.workers:
            if task is not current:
                task.cancel()
        self.out.put_nowait(None)
