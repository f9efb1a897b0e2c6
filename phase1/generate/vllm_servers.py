"""vLLM servers of our own: one a GPU (or a tensor-parallel group), started in parallel, stopped without a trace.

    with vllm_servers(ServerConfig(model_path, log_dir=out / "logs")) as servers:     # ready to answer here
        servers[0].url                                                               # http://127.0.0.1:PORT

Each runs under a keeper (phase1/generate/vllm_keeper.py) in a session of its own, with its own port, log file and GPUs.
Eight servers and one queue rather than one server with data parallelism: `LLM(data_parallel_size)` raises, and offline
data parallelism hangs when one rank ends early (vllm#16588, vllm#22575).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from pydantic import JsonValue

from phase1.files import BadInput
from phase1.machine import free_ports, usable_gpus

KEEPER = Path(__file__).with_name("vllm_keeper.py")
INSIDE = Path(__file__).with_name("inside")  # what a kept server's processes load of us
WORKER_CLASS = "phase1_weights.Weights"
GRACE = 20.0  # seconds a server has to end after SIGTERM; one took 0.6 s on an H100
TAIL = 12  # log lines shown of a server that failed
TALK = 15.0  # seconds between two lines about servers that are loading
NO_PROXY = urllib.request.ProxyHandler({})  # a cluster's http_proxy cannot reach our 127.0.0.1
DIRECT = urllib.request.build_opener(NO_PROXY)


class ServerFailed(BadInput):
    """No server could be started. The message ends with the last lines of a log."""


@dataclass(frozen=True)
class ServerConfig:
    """How to serve one model.

    Attributes:
        num_servers: 0 for as many as the visible GPUs allow, one where there are none.
        tensor_parallel_size: GPUs a server.
        max_model_len: tokens of prompt and answer together.
        max_num_seqs: requests that a server works on at a time.
        gpu_memory_utilization: share of each GPU's memory, 0 to 1.
        start_timeout: seconds until all must answer; a 7B from a cold disk takes minutes.
        python: the interpreter that has vLLM, possibly of another environment.
        more_args: further arguments of vLLM's server.
        kept_by: the pipe, as a file descriptor, at whose end the servers end: they outlive this process, and can be
            given other weights (phase1/generate/kept_servers.py). None: they end with this process.
    """

    model_path: Path
    log_dir: Path
    num_servers: int = 0
    tensor_parallel_size: int = 1
    dtype: str = "bfloat16"
    max_model_len: int = 6144
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.90
    batch_invariant: bool = False
    start_timeout: float = 900.0
    python: str = sys.executable
    more_args: tuple[str, ...] = ()
    kept_by: int | None = None


class Process(Protocol):
    """The keeper of a server: a child of ours, or another process that is known by its id (as subprocess.Popen)."""

    pid: int

    @property
    def stdin(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


@dataclass
class Server:
    """One running server. `ready_after`: seconds from its start until it answered /health, None before."""

    url: str
    log: Path
    gpus: str
    process: Process = field(repr=False)
    started: float = field(default_factory=time.monotonic)
    ready_after: float | None = None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None

    def last_lines(self, n: int = TAIL) -> list[str]:
        """The last lines of its log that are not empty."""
        with contextlib.suppress(OSError), open(self.log, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 16384))
            return [line for line in f.read().decode(errors="replace").splitlines() if line.strip()][-n:]
        return []


@contextlib.contextmanager
def vllm_servers(config: ServerConfig, say: Callable[[str], None] = print) -> Iterator[list[Server]]:
    """Start servers, wait until they answer, and stop them on leaving.

    Raises:
        BadInput: there are fewer GPUs than `config` needs.
        ServerFailed: none could be started.
    """
    servers = start_servers(config)
    try:
        yield wait_ready(servers, config.start_timeout, say)
    finally:
        stop_servers(servers)


# -------------------------------------------------------------------------------------------------------- start, stop
def start_servers(config: ServerConfig) -> list[Server]:
    """Start every server of `config` and return at once; each is loading, `wait_ready` waits.

    Raises:
        BadInput: there are fewer GPUs than `config` needs.
    """
    groups = gpu_groups(usable_gpus(), config)
    config.log_dir.mkdir(parents=True, exist_ok=True)
    servers: list[Server] = []
    try:
        for gpus, port in zip(groups, free_ports(len(groups)), strict=True):
            log = config.log_dir / f"vllm_{len(servers)}.log"
            command = [sys.executable, "-I", "-S", str(KEEPER), str(GRACE), *server_command(config, port)]
            with open(log, "wb") as out:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if config.kept_by is None else config.kept_by,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=config.log_dir,
                    env=environment(config, gpus, len(groups)),
                    start_new_session=True,
                )
            servers.append(Server(f"http://127.0.0.1:{port}", log, gpus, process))
    except BaseException:
        stop_servers(servers)
        raise
    return servers


def wait_ready(servers: list[Server], timeout: float, say: Callable[[str], None] = print) -> list[Server]:
    """Wait until every server answers /health or has failed; say every 15 s how far they are.

    A server that failed is left out with a warning: seven of a night's eight GPUs are better than none.

    Args:
        timeout: seconds.

    Returns:
        The servers that answer.

    Raises:
        ServerFailed: none answers.
    """
    deadline, spoke = time.monotonic() + timeout, time.monotonic()
    while (loading := _loading(servers)) and time.monotonic() <= deadline:
        for server in loading:
            with contextlib.suppress(OSError):
                ask(server.url + "/health", timeout=5)
                server.ready_after = time.monotonic() - server.started
                say(f"vLLM: {server.url} on {server.gpus} answers after {server.ready_after:.0f} s")
        if (loading := _loading(servers)) and time.monotonic() - spoke > TALK:
            spoke = time.monotonic()
            answering = sum(server.ready_after is not None for server in servers)
            last = (loading[0].last_lines(1) or ["nothing yet"])[0]
            say(f"vLLM: {answering} of {len(servers)} ready; {loading[0].log.name}: {last[-150:]}")
        time.sleep(0.25 if loading else 0)
    ready = [server for server in servers if server.alive and server.ready_after is not None]
    failures = [why_failed(server, timeout) for server in servers if server not in ready]
    if not ready:
        raise ServerFailed(failures[0])
    for failure in failures:
        say(f"warning: going on without one server: {failure}")
    return ready


def _loading(servers: list[Server]) -> list[Server]:
    """The servers that run and have not answered yet."""
    return [server for server in servers if server.alive and server.ready_after is None]


def stop_servers(servers: list[Server]) -> None:
    """Stop all of them together; returns when no process of theirs is left."""
    for s in servers:
        with contextlib.suppress(OSError):
            if s.process.stdin:
                s.process.stdin.close()
            else:  # its keeper listens to somebody else
                s.process.terminate()
    for s in servers:
        try:
            s.process.wait(GRACE + 15)
        except subprocess.TimeoutExpired:  # its keeper hangs: the kernel's death signal stops the server
            s.process.kill()
            s.process.wait()


def why_failed(server: Server, timeout: float) -> str:
    """One line for what happened, then the last lines of the log."""
    code = server.process.poll()
    what = f"did not answer within {timeout:.0f} s" if code is None else f"ended with code {code} before it answered"
    first = f"{server.log}: the vLLM server on {server.gpus} {what}; its last lines:"
    return "\n    ".join([first, *server.last_lines()])


# ------------------------------------------------------------------------------------------- command, environment, GPUs
def server_command(config: ServerConfig, port: int) -> list[str]:
    """The command of vLLM's OpenAI server.

    It is started as a module: the `vllm` console command looks for a distribution of that very name.
    """
    options = {
        "--model": config.model_path,
        "--host": "127.0.0.1",
        "--port": port,
        "--dtype": config.dtype,
        "--max-model-len": config.max_model_len,
        "--max-num-seqs": config.max_num_seqs,
        "--tensor-parallel-size": config.tensor_parallel_size,
        "--gpu-memory-utilization": config.gpu_memory_utilization,
        # Without this the model's own generation_config.json gives the defaults: Qwen's has a penalty of 1.1.
        "--generation-config": "vllm",
    }
    words = [word for name, value in options.items() for word in (name, str(value))]
    # Cached prefixes make an answer's arithmetic depend on what was asked before it.
    switches = ["--no-enable-prefix-caching", "--disable-uvicorn-access-log"]
    if config.kept_by is not None:
        switches += ["--worker-extension-cls", WORKER_CLASS]
    return [config.python, "-m", "vllm.entrypoints.openai.api_server", *words, *switches, *config.more_args]


def environment(config: ServerConfig, gpus: str, servers: int) -> dict[str, str]:
    """The environment of one of `servers` servers, on its GPUs; what the user has set already stays."""
    env = dict(os.environ)
    if config.python != sys.executable:  # another environment: our own paths would shadow its packages
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            env.pop(name, None)
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",  # the model is a directory
        "VLLM_USE_FLASHINFER_SAMPLER": "0",  # where flashinfer is absent vLLM 0.26 dies on it; greedy needs no sampler
        "VLLM_LOGGING_COLOR": "0",
        "PYTHONUNBUFFERED": "1",
    }
    if gpus == "the CPU":
        # Left to itself each server binds its threads to the same cores as the others.
        defaults |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // servers)),
        }
    else:
        env["CUDA_VISIBLE_DEVICES"] = gpus.removeprefix("GPU ")
    if config.batch_invariant:
        env["VLLM_BATCH_INVARIANT"] = "1"
    if config.kept_by is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(INSIDE), *filter(None, [env.get("PYTHONPATH")])])
        env["VLLM_SERVER_DEV_MODE"] = "1"  # /collective_rpc and /reset_prefix_cache, on 127.0.0.1 alone
    return defaults | env


# Prints the version of vLLM without importing it: of the distribution that holds the package, which may be vllm-cpu.
# importlib.metadata reads the files of every package to say which, 24 s from a cold disk, and is asked last: of a vLLM
# that is installed from its sources.
ASK_VERSION = """
import importlib.metadata, importlib.util, pathlib
spec = importlib.util.find_spec("vllm")
beside = pathlib.Path(spec.origin).parent.parent.glob("vllm*.dist-info") if spec and spec.origin else ()
for folder in beside:
    if "\\nvllm/__init__.py," in "\\n" + (folder / "RECORD").read_text(encoding="utf-8"):
        print(folder.name.removesuffix(".dist-info").rpartition("-")[2])
        break
else:
    found = spec and importlib.metadata.packages_distributions().get("vllm", [])
    names = [name for name in found or [] if name.startswith("vllm")]
    print(importlib.metadata.version(names[0]) if names else "")
"""


def vllm_version(python: str) -> str | None:
    """The version of vLLM that this interpreter has; None where it has none.

    Raises:
        BadInput: it is no working interpreter.
    """
    env = {k: v for k, v in os.environ.items() if python == sys.executable or k != "PYTHONPATH"}
    command = [python, "-c", ASK_VERSION]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        raise BadInput(
            f"--vllm_python {python}: not a working interpreter ({e}); name the Python that has vLLM"
        ) from None
    return answer.stdout.strip() or None


def gpu_groups(gpus: list[str], config: ServerConfig) -> list[str]:
    """The GPUs of each server, "GPU 0" or "GPU 2,3"; "the CPU" where there are none.

    Raises:
        BadInput: there are fewer GPUs than `config` needs.
    """
    size, wanted = config.tensor_parallel_size, config.num_servers
    if not gpus:
        return ["the CPU"] * (wanted or 1)
    count = wanted or len(gpus) // size
    if count < 1 or count * size > len(gpus):
        raise BadInput(
            f"--num_servers {wanted or 'auto'} with --tensor_parallel_size {size} needs {max(1, count) * size} "
            f"GPUs, {len(gpus)} are visible; set one of the two lower, or show more with CUDA_VISIBLE_DEVICES"
        )
    return ["GPU " + ",".join(gpus[i * size : (i + 1) * size]) for i in range(count)]


def authorization() -> dict[str, str]:
    """The header for servers that were started with VLLM_API_KEY; those we start inherit the variable."""
    return {"Authorization": f"Bearer {key}"} if (key := os.environ.get("VLLM_API_KEY")) else {}


def ask(url: str, body: dict[str, JsonValue] | None = None, timeout: float = 300.0) -> dict[str, JsonValue]:
    """The JSON object that one blocking request is answered with; {} for an empty answer.

    Args:
        body: sent by POST; without it the request is a GET.
        timeout: seconds.

    Raises:
        OSError: there is no answer (urllib's errors are OSErrors).
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **authorization()})
    with DIRECT.open(request, timeout=timeout) as response:
        answer: dict[str, JsonValue] = json.loads(response.read() or b"{}")
    return answer


def read_metrics(url: str) -> list[str]:
    """The lines of a server's /metrics. Raises OSError where there is no answer."""
    with DIRECT.open(urllib.request.Request(url + "/metrics", headers=authorization()), timeout=10) as response:
        text: bytes = response.read()
    return text.decode(errors="replace").splitlines()
