"""Stub vLLM servers: started by a test, or by the evaluation itself through a stub interpreter."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

from phase1.files import read_jsonl
from phase1.generate.vllm_servers import ask
from phase1.machine import free_ports
from tests.conftest import ROOT

RECORDED = ("CUDA_VISIBLE_DEVICES", "VLLM_BATCH_INVARIANT", "VLLM_NO_USAGE_STATS", "HF_HUB_OFFLINE")


class StubServer:
    """A stub in a process of its own."""

    def __init__(self, directory: Path, model: Path | str, *args: object):
        [port] = free_ports(1)
        self.url, self.log = f"http://127.0.0.1:{port}", directory / f"stub_{port}.jsonl"
        named = ["--model", model, "--port", port, "--log", self.log, *args]
        command = [sys.executable, "-m", "tests.generate.stub_vllm", *map(str, named)]
        self.process = subprocess.Popen(command, cwd=ROOT)
        for _ in range(1200):
            with contextlib.suppress(OSError):
                ask(self.url + "/health", timeout=1)
                return
            time.sleep(0.05)
        raise AssertionError("the stub does not start")

    def asked(self) -> list[dict]:
        """The requests that count, with key, time and parameters; the client's probes are left out."""
        return self._lines("asked")

    def answered(self) -> list[dict]:
        """The answers that were sent, those to the client's probes included."""
        return self._lines("answered")

    def _lines(self, event: str) -> list[dict]:
        return [row for _, row in read_jsonl(self.log) if row["event"] == event] if self.log.exists() else []

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


RECORD = """
import json, os, sys
folder, names, words = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
with open(os.path.join(folder, f"started_{os.getpid()}.json"), "w") as f:
    json.dump([words, {name: os.environ.get(name) for name in names}], f)
"""


def stub_interpreter(folder: Path, *, answers: bool = True) -> Path:
    """A program that passes for a Python with vLLM 0.0.0.

    Asked to serve, it writes its arguments and environment into `folder` and becomes a stub server; with `answers`
    false, one that never answers.
    """
    python, script, record = sys.executable, folder / "python_with_vllm", folder / "record.py"
    record.write_text(RECORD)
    serve = f'"{python}" -m tests.generate.stub_vllm "$@"' if answers else "sleep 600"
    script.write_text(
        f"""#!/bin/sh
if [ "$1" = -c ]; then echo 0.0.0; exit; fi
shift 2  # -m vllm.entrypoints.openai.api_server
"{python}" "{record}" "{folder}" {",".join(RECORDED)} "$@"
export PYTHONPATH="{ROOT}"
exec {serve}
"""
    )
    script.chmod(0o755)
    return script


def started(folder: Path) -> list[tuple[dict[str, str], dict[str, str | None]]]:
    """Flags with their values, and environment, of each server that a stub interpreter started, by GPU."""
    found = []
    for path in folder.glob("started_*.json"):
        words, environment = json.loads(path.read_text())
        values = words[1:] + [""]
        flags = {word: value for word, value in zip(words, values, strict=True) if word.startswith("--")}
        found.append((flags, environment))
    return sorted(found, key=lambda server: server[1]["CUDA_VISIBLE_DEVICES"] or "")
