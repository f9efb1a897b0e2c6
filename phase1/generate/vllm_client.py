"""One queue of requests over any number of vLLM servers, and what happens when one of them fails.

A request goes to whichever server has a free place, longest expected first. Connection errors, 5xx and timeouts are
tried again after a pause, elsewhere if possible. A server that is gone, or that answers /health but produces no token,
is taken out and its requests go to the others. Answers are not streamed: eight GPUs make some 100,000 tokens a second,
and that many events would keep a Python client busier than the judge. Whether an engine is alive shows in its /metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import aiohttp
from pydantic import JsonValue

from phase1.contract.records import Completion
from phase1.files import BadInput
from phase1.generate.decoding import Answer, decode
from phase1.generate.make_requests import Request
from phase1.generate.protocol import GenerationStopped, Progress, Setup
from phase1.generate.vllm_api import CompletionAnswer
from phase1.generate.vllm_checks import check_model, check_sampling, server_version
from phase1.generate.vllm_servers import Server

TRIES = 5  # of one request that a healthy server fails
BACK_OFF = 0.5  # seconds before the second try; doubles, with jitter
HEALTH_TRIES = 3  # of /health before a server that is not ours counts as gone; ours is gone when its process is
GUARD = 2.0  # seconds between two looks at a server
REFUSED = (400, 413, 422)  # the request is at fault, no server will take it
BUSY = (408, 425, 429)
OTHER_FILES = 1024  # open files besides connections: the judge's pipes, some to each core; logs, libraries
TOKEN_COUNTERS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")  # lines of /metrics


class Failed(Exception):
    """A try that may succeed later or elsewhere."""


class ServerRefuses(Exception):
    """The server refuses every request: it is of no use."""


@dataclass(frozen=True)
class ClientSettings:
    """How servers are asked.

    Attributes:
        served_model_name: under which running servers serve the model; None for its path.
        max_concurrent: requests at a time on each server.
        request_timeout: seconds for one answer.
        stall_timeout: seconds without one token from a server that has requests.
    """

    served_model_name: str | None = None
    max_concurrent: int = 256
    request_timeout: float = 600.0
    stall_timeout: float = 180.0


@dataclass(frozen=True)
class ServerRecord:
    """What run.json keeps of a server.

    Attributes:
        vllm: its version; None where it does not tell.
        on: the GPUs of a server of our own.
        defaults_verified: it adds no sampling parameters of the model's own.
        penalty_seen: a penalty changed an answer.
        answers: how many it gave in this session.
        tokens: of those answers.
        last_answer: seconds from the session's first request to its last answer; None where it gave none. Servers that
            shared the work evenly end together.
        gone: why it was taken out; None where it was not.
    """

    vllm: str | None
    on: str | None
    defaults_verified: bool
    penalty_seen: bool
    answers: int = 0
    tokens: int = 0
    last_answer: float | None = None
    gone: str | None = None


@dataclass
class Endpoint:
    """A server as the client sees it.

    Attributes:
        server: its process, where it is one of our own.
        model: the name it serves the model under.
        record: what run.json keeps of it; None before it has passed the checks.
        gone: why it is out of use; None while it is in use.
        finished: requests, also those that failed.
        answers: those that did not fail.
        tokens: of its answers.
        last_answer: when the last came, by the monotonic clock; None before the first.
        seen: tokens it had processed when last asked.
        moved: when `seen` or `finished` last rose.
    """

    url: str
    server: Server | None = None
    model: str = ""
    record: ServerRecord | None = None
    gone: str | None = None
    in_flight: int = 0
    finished: int = 0
    answers: int = 0
    tokens: int = 0
    last_answer: float | None = None
    seen: float = -1.0
    moved: float = 0.0
    workers: list[asyncio.Task[None]] = field(default_factory=list, repr=False)
    probing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @property
    def ended(self) -> bool:
        """Whether it is one of our own and its process has ended."""
        return self.server is not None and not self.server.alive


def allowed_connections(wanted: int) -> int:
    """As many of `wanted` connections as this process may open; raises its own limit as far as it may.

    Eight servers with 256 requests each are more than the 1,024 files that a login shell usually allows; a server to
    which no connection can be opened would look dead.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(soft - OTHER_FILES, soft // 2))


class Client:
    """The queue and the workers on it, `max_concurrent` for each server."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoints: list[Endpoint],
        settings: ClientSettings,
        setup: Setup,
        progress: Progress,
    ):
        self.http, self.endpoints, self.settings, self.setup, self.progress = http, endpoints, settings, setup, progress
        self.stops = frozenset(setup.stop_ids)
        self.queue: asyncio.PriorityQueue[tuple[int, Request]] = asyncio.PriorityQueue()
        self.out: asyncio.Queue[Completion | None] = asyncio.Queue()  # None: a server is gone, look whether any is left
        self.tries: dict[int, int] = {}
        self.began = time.monotonic()

    # ------------------------------------------------------------------------------------------------------ the checks
    async def check(self, probe: Request) -> None:
        """Check that every server serves this model, has room for its context, and adds no sampling of its own.

        A server of our own that dies or hangs here is taken out, as later. One that the user named is an error: only
        the user can say whether the evaluation should go on without it.

        Args:
            probe: its prompt is the question.

        Raises:
            BadInput: a server fails the check, or none is left.
        """
        await asyncio.gather(*(self._check_one(e, probe) for e in self.endpoints))
        if all(e.gone for e in self.endpoints):
            reasons = [f"{e.url}: {e.gone}; its log: {e.server.log}" for e in self.endpoints if e.server]
            raise BadInput(f"no vLLM server is left: {'; '.join(reasons)}")

    async def _check_one(self, e: Endpoint, probe: Request) -> None:
        """Give the endpoint its record, or take it out."""
        patience = min(self.settings.request_timeout, self.settings.stall_timeout)
        name, limit = self.settings.served_model_name, self.setup.context_limit
        try:
            async with asyncio.timeout(patience):
                e.model = await check_model(
                    http=self.http, url=e.url, model_path=self.setup.model_path, limit=limit, name=name
                )
                penalty_seen = await check_sampling(self.http, e.url, self._body(e, probe))
                version = await server_version(self.http, e.url)
        except TimeoutError:
            why = f"three short questions are not answered in {patience:.0f} s"
        except (aiohttp.ClientError, ValueError) as error:
            why = _described(error)
        else:
            if not penalty_seen:
                self.progress.say(
                    f"warning: {e.url}: a penalty of 2 changes nothing in the probe's answer, so the probe proves "
                    "nothing about penalties"
                )
            on = e.server.gpus if e.server else None
            e.record = ServerRecord(vllm=version, on=on, defaults_verified=True, penalty_seen=penalty_seen)
            return
        if e.server is None:
            raise BadInput(f"{e.url}: no vLLM server that answers there ({why}); leave it out, or start it again")
        self._retire(e, why)

    def records(self) -> dict[str, ServerRecord]:
        """What run.json keeps of each server that passed the checks, by URL, with what it has answered so far."""
        found = {}
        for e in self.endpoints:
            if e.record:
                last = None if e.last_answer is None else round(e.last_answer - self.began, 3)
                found[e.url] = replace(e.record, answers=e.answers, tokens=e.tokens, last_answer=last, gone=e.gone)
        return found

    # ------------------------------------------------------------------------------------------------------- the queue
    async def completions(self, requests: list[Request]) -> AsyncGenerator[Completion, None]:
        """Yield a completion for each request as it is finished.

        Raises:
            GenerationStopped: no server is left.
        """
        self.began = time.monotonic()
        for order, request in enumerate(requests):
            self.queue.put_nowait((order, request))
        # In turn over the servers, or the first would get the whole of a short queue.
        for _ in range(min(self.settings.max_concurrent, len(requests))):
            for e in self.endpoints:
                e.workers.append(asyncio.create_task(self._work(e)))
        guards = [asyncio.create_task(self._guard(e)) for e in self.endpoints]
        try:
            for left in range(len(requests), 0, -1):
                yield await self._next_completion(left)
        finally:
            tasks = guards + [task for e in self.endpoints for task in e.workers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next_completion(self, left: int) -> Completion:
        """The next finished completion; `left` are still missing."""
        while (completion := await self.out.get()) is None:
            # Answers of a server that is gone may still wait behind the word that it is.
            if all(e.gone for e in self.endpoints) and self.out.empty():
                reasons = "; ".join(f"{e.url}: {e.gone}" for e in self.endpoints)
                raise GenerationStopped(f"no vLLM server is left, {left} answers are missing ({reasons})")
        return completion

    async def _work(self, e: Endpoint) -> None:
        """One place on one server: take a request and answer it, until the server is gone."""
        while e.gone is None:
            order, request = await self.queue.get()
            completion = None
            e.in_flight += 1
            self.progress.requests_sent()
            try:
                completion = await self._answer(e, order, request)
            finally:  # also when it is cancelled, because the server is taken out
                e.in_flight -= 1
                if completion is None:
                    self.progress.requests_sent(-1)
                    self.queue.put_nowait((order, request))
            if completion is not None:
                e.finished += 1
                if completion.error is None:
                    e.answers += 1
                    e.tokens += completion.gen_tokens
                    e.last_answer = time.monotonic()
                self.out.put_nowait(completion)

    async def _answer(self, e: Endpoint, order: int, request: Request) -> Completion | None:
        """The request's completion, or one that says why there is none; None when it goes back into the queue."""
        started, clock = time.time(), time.perf_counter()

        def completion(answer: Answer, error: str | None = None) -> Completion:
            seconds = time.perf_counter() - clock
            return request.completion(answer, seconds=seconds, started=started, session=self.setup.session, error=error)

        def failed(why: str) -> Completion:
            return completion(Answer("", "error", 0), why)

        try:
            async with asyncio.timeout(self.settings.request_timeout):
                answer = await self._ask(e, request)
            return failed(answer) if isinstance(answer, str) else completion(answer)
        except ServerRefuses as error:
            self._retire(e, str(error))
            return None
        except TimeoutError:
            why = f"no answer in {self.settings.request_timeout:.0f} s"
        except (aiohttp.ClientError, Failed, ValueError, IndexError) as error:
            why = _described(error)
        if not await self._healthy(e):
            return None
        self.tries[order] = tries = self.tries.get(order, 0) + 1
        if tries >= TRIES:
            return failed(f"tried {tries} times, last at {e.url}: {why}")
        await asyncio.sleep(BACK_OFF * 2 ** (tries - 1) * random.uniform(0.5, 1.5))
        return None

    async def _ask(self, e: Endpoint, request: Request) -> Answer | str:
        """The server's answer, or why no server will give one.

        Raises:
            ServerRefuses: the server is of no use.
            Failed: another try may succeed.
        """
        async with self.http.post(e.url + "/v1/completions", json=self._body(e, request)) as response:
            if response.status != 200:
                text = await response.text()
                if response.status in REFUSED:
                    return f"{e.url} refused the request with {response.status}: {text[:300]}"
                if 400 <= response.status < 500 and response.status not in BUSY:
                    raise ServerRefuses(f"it answers {response.status}: {text[:200]}")
                raise Failed(f"{response.status}: {text[:200]}")
            answer = CompletionAnswer.model_validate(await response.json())
        choice, usage = answer.choices[0], answer.usage
        if usage.prompt_tokens != len(request.prompt):
            return f"{e.url} counts {usage.prompt_tokens} prompt tokens, {len(request.prompt)} were sent"
        if choice.finish_reason not in ("stop", "length"):  # abort: the engine gave up on it
            raise Failed(f"finish_reason {choice.finish_reason}")
        if choice.token_ids:
            return decode(self.setup.tokenizer, choice.token_ids, self.stops)._replace(reason=choice.finish_reason)
        return Answer(choice.text, choice.finish_reason, usage.completion_tokens)

    def _body(self, e: Endpoint, request: Request) -> dict[str, JsonValue]:
        """Every parameter is given: what is left out a server may fill from the model's generation_config.json."""
        sampling = self.setup.sampling
        body: dict[str, JsonValue] = {
            "model": e.model,
            "prompt": [*request.prompt],
            "max_tokens": request.max_tokens,
            "stop_token_ids": [*self.setup.stop_ids],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "return_token_ids": True,
        }
        if sampling.temperature > 0:
            body["seed"] = sampling.seed_of(request.problem.problem_id, request.sample)
        return body

    # ------------------------------------------------------------------------------------------------ is it still there
    async def _healthy(self, e: Endpoint) -> bool:
        """Whether the server is still of use; takes it out when it is not. Its workers ask one after another."""
        async with e.probing:
            for attempt in range(HEALTH_TRIES):
                if e.gone is not None:
                    return False
                if e.ended:
                    break
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(10), self.http.get(e.url + "/health") as response:
                        if response.status == 200:
                            return True
                await asyncio.sleep(BACK_OFF * 2**attempt)
            self._retire(e, "its process has ended" if e.ended else "it does not answer /health")
            return False

    async def _guard(self, e: Endpoint) -> None:
        """Take out a server whose process ends, or that has requests and makes nothing (lm-evaluation-harness#2904)."""
        e.moved = time.monotonic()
        patience, finished = self.settings.stall_timeout, 0
        while e.gone is None:
            await asyncio.sleep(min(GUARD, patience / 4))
            if e.ended:
                self._retire(e, "its process has ended")
                return
            tokens = await self._processed_tokens(e)
            if e.in_flight == 0 or e.finished != finished or (tokens is not None and tokens != e.seen):
                e.moved, finished = time.monotonic(), e.finished
                e.seen = e.seen if tokens is None else tokens
            # Without /metrics only finished answers show life, and one answer may take as long as a request may.
            limit = patience if tokens is not None else max(patience, self.settings.request_timeout)
            if time.monotonic() - e.moved > limit:
                self._retire(e, f"it answers /health but has produced nothing for {limit:.0f} s")

    async def _processed_tokens(self, e: Endpoint) -> float | None:
        """Prompt and output tokens that the engine has processed since its start; None where it does not say."""
        try:
            async with asyncio.timeout(10), self.http.get(e.url + "/metrics") as response:
                text = await response.text() if response.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return None
        values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(TOKEN_COUNTERS)]
        return sum(values) if values else None

    def _retire(self, e: Endpoint, reason: str) -> None:
        """Take the server out: its requests go back into the queue, and the user is told."""
        if e.gone is not None:
            return
        e.gone = reason
        others = sum(other.gone is None for other in self.endpoints)
        left = (
            f"its {e.in_flight} requests go to the others, of which {others} are left" if others else "no other is left"
        )
        log = ""
        if e.server:
            last = (e.server.last_lines(1) or [""])[0]
            log = f"; the last line of {e.server.log}: {last[-200:]}"
        self.progress.say(f"warning: {e.url} is taken out: {reason}; {left}{log}")
        current = asyncio.current_task()
        for task in e.workers:
            if task is not current:
                task.cancel()
        self.out.put_nowait(None)


def _described(error: Exception) -> str:
    """An error in one line. pydantic's own message for an answer of another form has several."""
    return f"{type(error).__name__}: {str(error)}".replace("\n", " ")[:300]
