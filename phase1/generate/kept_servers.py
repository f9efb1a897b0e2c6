"""vLLM servers that outlive one evaluation: the checkpoints of a pass are answered by servers that start once.

run_eval_checkpoints.sh holds a folder for them and a pipe that every keeper (vllm_keeper.py) listens on: they end when
the pass does, by whatever end. Each phase1_eval.py of the pass takes them over. It has vLLM load the new checkpoint's
weights into the running engine (its `reload_weights`), drop what it remembers of prompts, and then prove that the new
weights answer: the workers compare every one with the checkpoint's files (inside/phase1_weights.py), and the
log-probabilities of one fixed answer must have moved. What fails, or differs in more than weights, starts anew.

Two evaluations of a pass overlap: while one judges, or still generates, the next prepares, then waits for its turn at
the servers. A turn is a lock of the kernel, so it ends with whoever has it.

    servers/model           a link to the model that is served: one path for all, so that vLLM's compile cache knows it
    servers/servers.json    which servers there are, how they were started, what they serve
    servers/turn            the lock of the evaluation that uses them, with its process
    servers/vllm_N.log      what each said
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from phase1.contract.state.base import StateFile
from phase1.files import BadInput, fingerprint, only_one, read_json, sha256_file, sha256_json
from phase1.generate.vllm_servers import (
    GRACE,
    Server,
    ServerConfig,
    ServerFailed,
    ask,
    read_metrics,
    start_servers,
    stop_servers,
    wait_ready,
)
from phase1.owned import birth

HELD = "PHASE1_KEPT_SERVERS"  # what a pass tells its children: the pipe's file descriptor, a space, the folder
TURN = "PHASE1_TURN"  # and each child: the file descriptor by which it says that its turn at them has begun
STATE = "servers.json"
LOOK = 0.1  # seconds between two looks whether the turn is ours
INCIDENTAL = ("_name_or_path", "transformers_version")  # of config.json: they change no answer
AT_WORK = ("vllm:num_requests_running", "vllm:num_requests_waiting{")  # lines of /metrics
IDLE_WAIT = 15.0  # seconds until a server has dropped the requests of an evaluation that ended early
QUESTION: dict[str, JsonValue] = {
    "prompt": list(range(16)),  # token ids that every vocabulary has
    "max_tokens": 8,
    "temperature": 0.0,
    "logprobs": 1,
    "ignore_eos": True,
}


class KeptServer(BaseModel):
    """A server that runs under the keeper `pid`, which was born at `born` (clock ticks since the machine's start)."""

    model_config = ConfigDict(frozen=True)

    url: str
    log: str
    gpus: str
    pid: int
    born: int
    ready_after: float


class KeptServers(StateFile):
    """servers.json: `how` they were started, the fingerprint of the `model` they serve, and what each answers."""

    how: dict[str, JsonValue]
    model: str
    servers: list[KeptServer]
    answers: list[list[float]]


@dataclass(frozen=True)
class Served:
    """Servers that answer, whether they were `swapped` rather than started, and the seconds that took."""

    servers: list[Server]
    swapped: bool
    seconds: float


class NotProved(Exception):
    """It is not certain that the new weights answer. The message says why."""


class Keeper:
    """The process of a kept server's keeper, which need not be a child of ours."""

    stdin = None

    def __init__(self, pid: int, born: int):
        self.pid, self.born = pid, born

    def poll(self) -> int | None:
        """None while it runs; its exit code is its parent's to know."""
        return None if birth(self.pid) == self.born else -1

    def terminate(self) -> None:
        """SIGTERM: it ends the server and itself."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; the server then gets the kernel's death signal."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended. Raises TimeoutExpired after `timeout` seconds."""
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while self.poll() is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("vllm_keeper.py", timeout or 0.0)
            time.sleep(0.05)
        return -1

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


# -------------------------------------------------------------------------------------------------------- of the pass
@contextlib.contextmanager
def held_servers(folder: Path) -> Iterator[dict[str, str]]:
    """Let servers outlive the evaluations that start them; on leaving, none is left.

    Yields:
        What the evaluations' environment needs; each also inherits the files of `inherited`.
    """
    (folder / STATE).unlink(missing_ok=True)  # of a pass that was killed: its servers have ended with it
    listening, ours = os.pipe()
    try:
        yield {HELD: f"{listening} {folder}"}
    finally:
        os.close(ours)  # every keeper hears it
        os.close(listening)
        for server in _known(folder).servers if (folder / STATE).exists() else []:
            with contextlib.suppress(subprocess.TimeoutExpired):
                Keeper(server.pid, server.born).wait(GRACE + 15)
        for left in (folder / STATE, folder / "model", folder / "turn"):
            left.unlink(missing_ok=True)


class Turn:
    """How a pass hears that the turn of one child at the servers has begun: the next child may prepare then."""

    def __init__(self) -> None:
        self._ours, self._childs = os.pipe()
        self.environment = {TURN: str(self._childs)}

    async def begun(self, child: asyncio.Task[bool]) -> None:
        """Wait until it has begun, or the child has ended without one."""
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._ours, heard.set)
        hearing = asyncio.create_task(heard.wait())
        try:
            await asyncio.wait({hearing, child}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._ours)
            hearing.cancel()

    def close(self) -> None:
        """Hear no more."""
        os.close(self._ours)
        os.close(self._childs)


def inherited(environment: Mapping[str, str]) -> tuple[int, ...]:
    """The file descriptors that a child with this environment must inherit."""
    pipes = (environment.get(HELD, "").partition(" ")[0], environment.get(TURN, ""))
    return tuple(int(pipe) for pipe in pipes if pipe.isdecimal())


def _known(folder: Path) -> KeptServers:
    return KeptServers.read(folder / STATE)


# -------------------------------------------------------------------------------------------------- of an evaluation
@dataclass(frozen=True)
class Kept:
    """The folder of kept servers, the pipe that their keepers listen on, and the one that tells of our turn."""

    folder: Path
    pipe: int
    turn_pipe: int | None = None
    given_up: threading.Event = field(default_factory=threading.Event, compare=False)
    starting: list[Server] = field(default_factory=list, compare=False)

    @classmethod
    def from_environment(cls) -> Kept | None:
        """What the pass that runs this evaluation holds; None where none does."""
        pipe, _, folder = os.environ.get(HELD, "").partition(" ")
        turn = os.environ.get(TURN, "")
        return cls(Path(folder), int(pipe), int(turn) if turn else None) if pipe.isdecimal() and folder else None

    @contextlib.asynccontextmanager
    async def turn(self, say: Callable[[str], None] = print) -> AsyncIterator[float]:
        """Have the servers to oneself, once the evaluation before has its answers; yields the seconds of waiting."""
        began, told = time.monotonic(), False
        while True:
            with only_one(self.folder / "turn") as mine:
                if mine:
                    if self.turn_pipe is not None:
                        with contextlib.suppress(OSError):  # the pass is gone, and its word with it
                            os.write(self.turn_pipe, b"1")
                    yield time.monotonic() - began
                    return
            if not told:
                say("vLLM: ready, waiting until the evaluation before has its answers")
            told = True
            await asyncio.sleep(LOOK)

    def give_up(self) -> None:
        """Let a `serve` that runs in another thread end at once rather than wait for the servers that it starts."""
        self.given_up.set()
        stop_servers([*self.starting])

    def serve(self, config: ServerConfig, say: Callable[[str], None] = print) -> Served:
        """Servers that answer with the weights of `config.model_path`: those that run, or new ones.

        Raises:
            BadInput: there are fewer GPUs than `config` needs.
            ServerFailed: none could be started.
        """
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        how = description(config)
        known = _known(self.folder) if (self.folder / STATE).exists() else None
        if known:
            servers = [_server(s) for s in known.servers]
            try:
                self._load(known, servers, how, config)
                seconds = time.monotonic() - began
                say(f"vLLM: {len(servers)} servers took the weights of {config.model_path} in {seconds:.1f} s, proved")
                return Served(servers, swapped=True, seconds=seconds)
            except (NotProved, OSError) as e:
                say(f"vLLM: started anew: {e}")
                stop_servers(servers)
        self._link(config.model_path)
        servers = self._start(config, say)
        try:
            self.starting.extend(servers)
            if self.given_up.is_set():
                raise ServerFailed("given up before the servers answered")
            ready = wait_ready(servers, config.start_timeout, say)
            try:
                answers = [ask_question(s.url, self.model) for s in ready]
            except (NotProved, OSError):  # no swap can be proved then, and none will be tried
                answers = []
        except BaseException:
            stop_servers(servers)
            raise
        self.starting.clear()
        stop_servers([s for s in servers if s not in ready])
        self._remember(how, config.model_path, ready, answers)
        return Served(ready, swapped=False, seconds=time.monotonic() - began)

    @property
    def model(self) -> Path:
        """The path under which every model is served."""
        return self.folder / "model"

    def _start(self, config: ServerConfig, say: Callable[[str], None]) -> list[Server]:
        at_link = dataclasses.replace(config, model_path=self.model, log_dir=self.folder, kept_by=self.pipe)
        servers = start_servers(at_link)
        places = ", ".join(dict.fromkeys(server.gpus for server in servers))
        say(f"vLLM: starting {len(servers)} servers on {places} for this pass; logs in {self.folder}")
        # Known from now on: a pass that ends while they load waits for them as well.
        self._remember({}, "", servers, [])
        return servers

    def _link(self, model: Path) -> None:
        """Let the constant path lead to `model`."""
        link = self.folder / ".model.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(model.resolve())
        os.replace(link, self.model)

    def _remember(
        self, how: dict[str, JsonValue], model: Path | str, servers: list[Server], answers: list[list[float]]
    ) -> None:
        kept = [
            KeptServer(
                url=s.url,
                log=str(s.log),
                gpus=s.gpus,
                pid=s.process.pid,
                born=birth(s.process.pid) or 0,
                ready_after=s.ready_after or 0.0,
            )
            for s in servers
        ]
        state = KeptServers(how=how, model=str(model) and fingerprint(model), servers=kept, answers=answers)
        state.write(self.folder / STATE)

    def _load(self, known: KeptServers, servers: list[Server], how: dict[str, JsonValue], config: ServerConfig) -> None:
        """Have every server answer with the weights of `config.model_path`, and prove it.

        Raises:
            NotProved: they differ in more than weights, one is gone, or the proof fails.
            OSError: a server does not do as it is asked.
        """
        if not known.how:
            raise NotProved("the last evaluation ended before its servers were ready")
        if other := sorted(name for name in how | known.how if how.get(name) != known.how.get(name)):
            raise NotProved(f"{other[0]} is not that of the last checkpoint")
        if gone := [s for s in servers if not s.alive]:
            raise NotProved(f"{gone[0].url} has ended; its log: {gone[0].log}")
        if len(known.answers) != len(servers):
            raise NotProved("they tell no log-probabilities")
        new = fingerprint(config.model_path)
        self._remember({}, "", servers, [])  # until it is proved, nobody takes them for what they were
        self._link(config.model_path)

        def swap(server: Server, before: list[float]) -> list[float]:
            wait_idle(server.url)
            load_weights(server.url, config.start_timeout)
            prove_weights(server.url, config.model_path, config.start_timeout)
            now = ask_question(server.url, self.model)
            if new != known.model and now == before:
                raise NotProved(f"{server.url} answers as with the last checkpoint's weights")
            return now

        with ThreadPoolExecutor(len(servers)) as pool:
            answers = list(pool.map(swap, servers, known.answers))
        self._remember(how, config.model_path, servers, answers)


def _server(kept: KeptServer) -> Server:
    process = Keeper(kept.pid, kept.born)
    return Server(kept.url, Path(kept.log), kept.gpus, process, ready_after=kept.ready_after)


def description(config: ServerConfig) -> dict[str, JsonValue]:
    """All that servers depend on but the weights: settings, and every small file of the model by its hash."""
    settings = {
        k: v for k, v in asdict(config).items() if k not in ("model_path", "log_dir", "start_timeout", "kept_by")
    }
    found: dict[str, JsonValue] = {f"--{name}": value for name, value in json.loads(json.dumps(settings)).items()}
    for path in sorted(config.model_path.iterdir()):
        if (
            not path.is_file()
            or path.suffix not in (".json", ".txt", ".model", ".jinja")
            or path.name.endswith(".index.json")
        ):
            continue
        if path.name == "config.json":
            fields = read_json(path)
            if not isinstance(fields, dict):
                raise BadInput(f"{path}: not a JSON object; copy the model again")
            found[path.name] = sha256_json({k: v for k, v in fields.items() if k not in INCIDENTAL})
        else:
            found[path.name] = sha256_file(path)
    return found


# ------------------------------------------------------------------------------------------------------ one server
def wait_idle(url: str) -> None:
    """Wait until a server has no request; those of an evaluation that was stopped end when it notices.

    Raises:
        NotProved: it goes on.
    """
    deadline = time.monotonic() + IDLE_WAIT
    while any(float(line.rpartition(" ")[2]) for line in read_metrics(url) if line.startswith(AT_WORK)):
        if time.monotonic() > deadline:
            raise NotProved(f"{url} is at work for somebody else")
        time.sleep(0.2)


def load_weights(url: str, timeout: float) -> None:
    """Have a server read its model's files again, and forget the prompts that the old weights have read."""
    ask(url + "/collective_rpc", {"method": "take_weights"}, timeout)
    if ask(url + "/reset_prefix_cache", {}).get("success") is False:
        raise NotProved(f"{url} keeps what the old weights made of earlier prompts")


def prove_weights(url: str, model: Path, timeout: float) -> None:
    """Have the workers compare what they hold with the model's files, within `timeout` seconds.

    Raises:
        NotProved: a weight differs, or one cannot be compared.
    """
    question: dict[str, JsonValue] = {"method": "differing_weights", "args": [str(model.resolve())]}
    results = ask(url + "/collective_rpc", question, timeout).get("results")
    if not isinstance(results, list) or not results:
        raise NotProved(f"{url} does not tell which weights it holds")
    for result in results:
        differ = result.get("differ") if isinstance(result, dict) else None
        if not isinstance(result, dict) or not isinstance(differ, list) or not result.get("compared"):
            raise NotProved(f"{url} does not tell which weights it holds")
        if differ:
            raise NotProved(f"{url} holds other weights than {model} in {len(differ)} parameters, first {differ[0]}")
        if unknown := result.get("unknown"):
            raise NotProved(f"{url} holds {unknown[0]} in a form that cannot be compared")


def ask_question(url: str, model: Path) -> list[float]:
    """The log-probabilities of a server's answer to one fixed question."""
    answer = ask(url + "/v1/completions", {"model": str(model), **QUESTION})
    try:
        found = answer["choices"][0]["logprobs"]["token_logprobs"]
        return [float(value) for value in found]
    except (TypeError, LookupError, ValueError):
        raise NotProved(f"{url} tells no log-probabilities") from None
