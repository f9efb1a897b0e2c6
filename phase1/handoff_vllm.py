"""The hand-off's vLLM check: a real server with the seed's arguments, asked once, stopped for certain."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from phase1.handoff_checks import MAX_MODEL_LEN, PROMPTS, Check, Handoff, verdict
from phase1.prompts import chat


def check_vllm(h: Handoff, skip: bool, timeout: float) -> Check:
    """Start `vllm.entrypoints.openai.api_server` on the model, list it, ask it one chat question, stop it."""
    if skip:
        return Check("vllm", "warn", "not run: --skip_vllm")
    if importlib.util.find_spec("vllm") is None:
        return Check("vllm", "warn", "not run: vllm is not installed")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    # the seed's arguments; generation_config vllm, or the model's own sampling defaults would apply
    length = min(MAX_MODEL_LEN, h.config.get("max_position_embeddings") or MAX_MODEL_LEN)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(h.model), "--dtype", "bfloat16",
               "--max-model-len", str(length), "--host", "127.0.0.1", "--port", str(port), "--generation-config", "vllm"]  # fmt: skip
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        started = time.monotonic()
        try:
            if (reason := wait_healthy(server, port, timeout)) is not None:
                log.seek(max(0, log.tell() - 4000))
                lines = [x for x in log.read().decode(errors="replace").splitlines() if "Error" in x] or [""]
                return Check("vllm", "fail", f"{reason} {lines[-1][:300]}".strip())
            ready = time.monotonic() - started
            served = [m["id"] for m in request(port, "/v1/models")["data"]]
            body = {"model": served[0], "messages": chat(PROMPTS[0]), "temperature": 0.0, "max_tokens": 64}
            text = request(port, "/v1/chat/completions", body)["choices"][0]["message"]["content"] or ""
        except (OSError, KeyError, IndexError, ValueError) as e:
            return Check("vllm", "fail", f"the server started but does not answer: {type(e).__name__}: {e}")
        finally:
            stop(server)
    failures = [] if text.strip() else ["the server's answer is empty"]
    return verdict("vllm", failures, [], f"ready after {ready:.0f} s, serves {served[0]}, answers {len(text)} characters", answer=text)


def wait_healthy(server: subprocess.Popen, port: int, timeout: float) -> str | None:
    """None once /health answers, else why it never will."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if server.poll() is not None:
            return f"the server ended with code {server.returncode}:"
        with contextlib.suppress(OSError, urllib.error.URLError):
            request(port, "/health")
            return None
        time.sleep(0.5)
    return f"the server did not answer within {timeout:.0f} s:"


def request(port: int, path: str, body: dict | None = None) -> dict:
    """The JSON answer ({} for an empty one). OSError when there is none."""
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=300) as response:
        return json.loads(response.read() or b"{}")


def stop(server: subprocess.Popen) -> None:
    """SIGTERM, then the whole group: a killed server can leave EngineCore holding the GPU (vllm#55510)."""
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
