"""The check by a vLLM server: against one that answers as it is told, and one that is real."""

import contextlib
import http.server
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from phase1.contract.state.handoff import CheckResult
from phase1.generate.vllm_servers import Server
from phase1.handoff import check_vllm as module
from phase1.handoff.ask_model import Generation, Question
from phase1.handoff.check_vllm import agreement, check_vllm
from phase1.handoff.handoff import Handoff, Settings
from tests.conftest import ROOT
from tests.handoff.handoff_damage import damaged, edit_json

VLLM = Path(os.environ.get("VENV_VLLM", ROOT / ".venv-vllm")) / "bin/python"  # setup_vllm_cpu.sh makes it


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.exists(), reason=f"{VLLM} is not there: bash setup_vllm_cpu.sh")
def test_a_model_that_vllm_cannot_load_fails_with_the_last_lines_of_its_log(run, tmp_path):
    model = damaged(run, tmp_path)
    edit_json(model / "config.json", architectures=["NoSuchModel"], model_type="no_such_model")
    settings = Settings(8, dtype="float32", vllm_python=str(VLLM), log_dir=tmp_path / "logs")
    handoff = Handoff(model, settings=settings)
    handoff.generation = Generation([], "not asked: transformers cannot load it either")
    result = check_vllm(handoff)
    assert result.status == "fail" and "ended with code" in result.evidence and "vllm_0.log" in result.evidence, result


@pytest.fixture
def served(run, tmp_path, monkeypatch):
    """check_vllm against a server that says `reply` to every chat request; None: it hangs up."""

    def check(reply: str | None, transformers: str) -> CheckResult:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send({"data": [{"id": "m"}]})

            def do_POST(self):
                if reply is not None:
                    self.send({"choices": [{"message": {"content": reply}}]})

            def send(self, value):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(value).encode())

            def log_message(self, *_):
                pass

        @contextlib.contextmanager
        def servers(config):
            with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
                threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
                yield [
                    Server(f"http://127.0.0.1:{server.server_port}", tmp_path / "log", "the CPU", None, ready_after=1.0)
                ]
                server.shutdown()

        monkeypatch.setattr(module, "vllm_servers", servers)
        monkeypatch.setattr(module, "vllm_version", lambda python: "0")
        handoff = Handoff(run.parent / "checkpoints/global_step_5/huggingface", settings=Settings(8, log_dir=tmp_path))
        handoff.generation = Generation([Question("q")], texts=[transformers], ended=[True])
        return check_vllm(handoff)

    return check


@pytest.mark.parametrize(
    ("reply", "transformers", "status", "words"),
    [
        ("print(1)", "print(1)", "pass", "1 of 1 greedy answers"),
        ("print(2)", "print(1)", "warn", "0 of 1 greedy answers"),
        ("something else", "print(1)", "fail", "computes another model"),
        (" ", "print(1)", "fail", "every answer of the server is empty"),
        (None, "print(1)", "fail", "does not answer"),
    ],
    ids=["equal", "differs late", "another model", "empty", "hangs up"],
)
def test_a_server_that_answers_otherwise_than_transformers_is_judged_by_how_far(
    served, reply, transformers, status, words
):
    result = served(reply, transformers)
    assert result.status == status and words in result.evidence, result


def test_without_vllm_the_check_says_so_and_how_to_name_it(run, tmp_path):
    result = check_vllm(Handoff(damaged(run, tmp_path), settings=Settings(vllm_python=sys.executable)))
    assert result.status == "warn" and "--vllm_python" in result.evidence


@pytest.mark.parametrize(
    ("a", "b", "share"), [("", "", 1.0), ("abc", "abc", 1.0), ("abcd", "ab", 0.5), ("x", "y", 0.0), ("", "y", 0.0)]
)
def test_agreement_is_the_common_start(a, b, share):
    assert agreement(a, b) == share
