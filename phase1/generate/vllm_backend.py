"""Generation by vLLM: running servers, or servers that are started here and stopped when all is answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import aiohttp
from pydantic import JsonValue

from phase1.files import BadInput
from phase1.generate.kept_servers import Kept, Served
from phase1.generate.make_requests import Request
from phase1.generate.model_config import context_limit
from phase1.generate.protocol import BackendRecord, Generation, Progress, Setup
from phase1.generate.settings import BackendSettings
from phase1.generate.vllm_client import Client, ClientSettings, Endpoint, allowed_connections
from phase1.generate.vllm_servers import (
    Server,
    ServerConfig,
    authorization,
    start_servers,
    stop_servers,
    vllm_version,
    wait_ready,
)
from phase1.machine import usable_gpus
from phase1.redact import is_secret, redacted

MOST_BATCH_INVARIANT = 255  # sequences that vLLM's batch-invariant kernels take at a time
CORES_A_SERVER = 2  # an API process and an engine
KEEP_ALIVE = 4  # seconds; vLLM closes a connection that rested for 5


def is_available(settings: BackendSettings) -> bool:
    """Whether there is a running server, or a vLLM with something to run on: a GPU, or an interpreter named for it."""
    if settings.vllm_url:
        return True
    return bool((settings.vllm_python or usable_gpus()) and vllm_version(_interpreter(settings)))


def from_settings(settings: BackendSettings) -> VllmGenerator:
    """The generator that `settings` describe; starts nothing.

    Raises:
        BadInput: --vllm_args cannot be split into words, or servers are to be started and there is no vLLM.
    """
    concurrent = settings.max_concurrent
    if settings.batch_invariant:
        concurrent = min(concurrent, MOST_BATCH_INVARIANT)
    client = ClientSettings(
        served_model_name=settings.served_model_name,
        max_concurrent=concurrent,
        request_timeout=settings.request_timeout,
        stall_timeout=settings.stall_timeout,
    )
    try:
        more_args = tuple(shlex.split(settings.vllm_args))
    except ValueError as e:
        raise BadInput(f"--vllm_args {settings.vllm_args}: {e}") from None
    for word in (*more_args, *settings.vllm_url):
        if redacted(word) != word or is_secret(word.lstrip("-")):
            raise BadInput(
                f"--vllm_args or --vllm_url: {redacted(word)} holds a secret, which would stand in logs and in the "
                "list of processes; leave it out and set VLLM_API_KEY"
            )
    if settings.vllm_url:
        return VllmGenerator(client, urls=settings.vllm_url)
    python = _interpreter(settings)
    if vllm_version(python) is None:
        raise BadInput(
            f"--backend vllm: {python} has no vLLM; name an interpreter that has it with --vllm_python, running "
            "servers with --vllm_url, or --backend transformers"
        )
    servers = ServerConfig(
        model_path=settings.model_path,
        log_dir=settings.log_dir,
        num_servers=settings.num_servers,
        tensor_parallel_size=settings.tensor_parallel_size,
        dtype=settings.dtype,
        max_model_len=context_limit(settings.model_path, settings.max_model_len),
        max_num_seqs=concurrent,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        batch_invariant=settings.batch_invariant,
        start_timeout=settings.start_timeout,
        python=python,
        more_args=more_args,
    )
    return VllmGenerator(client, servers=servers)


def _interpreter(settings: BackendSettings) -> str:
    """The absolute path of the interpreter that has vLLM: servers are started in another directory."""
    named = settings.vllm_python
    return os.path.abspath(shutil.which(named) or named) if named else sys.executable


@dataclass(frozen=True)
class _Reached:
    """Servers that answer, and what that took, as BackendRecord has it."""

    endpoints: list[Endpoint]
    seconds: dict[str, float]


def _reached(served: Served, waited: float | None = None) -> _Reached:
    took = {} if waited is None else {"wait": waited}
    took["swap" if served.swapped else "start"] = served.seconds
    return _Reached([Endpoint(server.url, server) for server in served.servers], took)


@dataclass(frozen=True)
class VllmGenerator:
    """Either `urls`, servers that run already, or `servers`, how to start our own."""

    client: ClientSettings
    urls: tuple[str, ...] = ()
    servers: ServerConfig | None = None

    @property
    def name(self) -> str:
        return "vllm"

    @property
    def needs_torch(self) -> bool:
        return False

    @property
    def busy_cores(self) -> int:
        if not self.servers:
            return 0
        count = self.servers.num_servers or len(usable_gpus()) // self.servers.tensor_parallel_size
        return CORES_A_SERVER * max(1, count)

    @contextlib.asynccontextmanager
    async def open(self, requests: list[Request], setup: Setup, progress: Progress) -> AsyncIterator[Generation]:
        async with self._endpoints(progress) as reached, self._http(len(reached.endpoints)) as http:
            endpoints = reached.endpoints
            client = Client(http=http, endpoints=endpoints, settings=self.client, setup=setup, progress=progress)
            await client.check(requests[0])

            def servers() -> dict[str, JsonValue]:
                return {"servers": {url: asdict(server) for url, server in client.records().items()}}

            versions = sorted({server.vllm for server in client.records().values() if server.vllm})
            record = BackendRecord(
                facts=servers(),
                versions={"vllm": ", ".join(versions)} if versions else {},
                seconds=reached.seconds,
            )
            yield Generation(record, client.completions(requests), facts_at_end=servers)

    @contextlib.asynccontextmanager
    async def _endpoints(self, progress: Progress) -> AsyncIterator[_Reached]:
        """The servers, ready to answer; those started here are stopped on leaving, unless a pass keeps them."""
        if not self.servers:
            yield _Reached([Endpoint(url.rstrip("/").removesuffix("/v1")) for url in self.urls], {})
            return
        if kept := Kept.from_environment():
            async with kept.turn(progress.say) as waited:
                serving = asyncio.create_task(asyncio.to_thread(kept.serve, self.servers, progress.say))
                try:
                    served = await asyncio.shield(serving)
                except asyncio.CancelledError:  # the thread goes on, and the turn is ours as long as it does
                    await asyncio.to_thread(kept.give_up)
                    await asyncio.wait([serving])
                    serving.exception()  # that it was given up is no news
                    raise
                yield _reached(served, waited)
            return
        owned: list[Server] = []
        began = time.monotonic()
        try:
            owned = await asyncio.to_thread(start_servers, self.servers)
            places = ", ".join(dict.fromkeys(server.gpus for server in owned))
            progress.say(f"vLLM: starting {len(owned)} servers on {places}; logs in {self.servers.log_dir}")
            ready = await asyncio.to_thread(wait_ready, owned, self.servers.start_timeout, progress.say)
            yield _reached(Served(ready, swapped=False, seconds=time.monotonic() - began))
        finally:
            if owned:
                await asyncio.to_thread(stop_servers, owned)

    def _http(self, servers: int) -> aiohttp.ClientSession:
        """A session with room for every request and, for each server, two questions about its health."""
        wanted = servers * (self.client.max_concurrent + 2)
        connector = aiohttp.TCPConnector(limit=allowed_connections(wanted), keepalive_timeout=KEEP_ALIVE)
        no_timeout = aiohttp.ClientTimeout(total=None)
        return aiohttp.ClientSession(connector=connector, headers=authorization(), timeout=no_timeout)
