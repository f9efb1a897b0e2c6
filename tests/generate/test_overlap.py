"""Two evaluations of a pass at once: the next checkpoint generates while the last one's tests still run.

Real passes over two checkpoints with the real judge; a stub stands in for vLLM and says which weights gave an answer.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase1.contract.problems import load_problems
from phase1.files import read_json, read_jsonl
from phase1.model.tokenizer import chat_ids, load_chat_tokenizer
from tests.bench.bench_warm import make_checkpoints
from tests.conftest import ROOT
from tests.evaluate.running import MANIFESTS, rows
from tests.generate.stub_servers import stub_interpreter
from tests.generate.stub_vllm import key, weights_of

SETS = ("codecontests_valid", "mbpp_reg")
LIMIT = 2
SLOW = 1.0  # seconds that the program for one problem sleeps in each of its seven tests: the tail of an evaluation


@pytest.fixture(scope="module")
def models(base_model, tmp_path_factory) -> dict[int, Path]:
    home = tmp_path_factory.mktemp("checkpoints")
    made = make_checkpoints(base_model, home)
    (home / "latest_checkpointed_iteration.txt").write_text("2")
    return dict(enumerate(made[:2], 1))


class Pass:
    """A pass that runs, in a group of its own."""

    def __init__(self, models: dict[int, Path], outputs: Path):
        self.outputs = outputs
        problem = load_problems(MANIFESTS, SETS[0])[0]
        answers = outputs / "answers.json"
        ids = chat_ids(load_chat_tokenizer(models[1]), problem.user)
        answers.write_text(json.dumps({key(ids): f"<code>\nimport time\ntime.sleep({SLOW})\n</code>"}))
        env = os.environ | {"CKPT_DIR": str(models[1].parents[1]), "OUTPUT_DIR": str(outputs)}
        env |= {"PYTHON": sys.executable, "MANIFEST_DIR": str(MANIFESTS)}
        stub = f"--log {outputs / 'asked.jsonl'} --mark --seconds 0.2 --answers {answers}"
        flags = [
            "--settle",
            "0",
            "--steps",
            "1",
            "2",
            "--tier2_every",
            "1000000",
            "--limit",
            str(LIMIT),
            "--num_servers",
            "1",
        ]
        flags += [
            "--num_servers",
            "1",
            "--backend",
            "vllm",
            "--vllm_python",
            str(stub_interpreter(outputs)),
            f"--vllm_args={stub}",
        ]
        with open(outputs / "pass.log", "ab") as log:
            command = ["bash", str(ROOT / "run_eval_checkpoints.sh"), *flags]
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def asked(self, model: Path) -> list[dict]:
        """The requests that a model's weights answered."""
        log, weights = self.outputs / "asked.jsonl", weights_of(str(model))
        lines = [row for _, row in read_jsonl(log)] if log.exists() else []
        return [row for row in lines if row["event"] == "asked" and row["weights"] == weights]

    def wait(self) -> None:
        assert self.process.wait(240) == 0, (self.outputs / "pass.log").read_text()


def check_nothing_is_mixed(models: dict[int, Path], outputs: Path) -> None:
    """Each step's answers are of its own weights, each once, all judged."""
    for step, model in models.items():
        folder = outputs / f"eval_step_{step}"
        assert read_json(folder / "run.json")["status"] == "complete"
        for kind in ("completions", "results"):
            found = rows(folder, kind)
            assert len({(r["dataset"], r["problem_id"]) for r in found}) == len(found) == len(SETS) * LIMIT
            texts = [r["completion"] for r in found]
            assert all(text.endswith(f"by {weights_of(str(model))}") for text in texts), "of another checkpoint"


@pytest.mark.slow
def test_the_next_generates_while_tests_of_the_last_run_and_a_kill_then_loses_only_what_was_in_flight(models, tmp_path):
    running = Pass(models, tmp_path)
    deadline = time.monotonic() + 120
    while not running.asked(models[2]) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # some of its answers are there now, and the first checkpoint's slow program still runs
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
    on_disk = {
        step: {(r["dataset"], r["problem_id"]) for r in rows(tmp_path / f"eval_step_{step}", "completions")}
        for step in (1, 2)
    }
    results = len(rows(tmp_path / "eval_step_1", "results"))
    assert len(on_disk[1]) == len(SETS) * LIMIT > results and on_disk[2], "they did not overlap"
    killed = time.time()
    time.sleep(1)
    Pass(models, tmp_path).wait()
    check_nothing_is_mixed(models, tmp_path)
    tokenizer = load_chat_tokenizer(models[1])
    keys = {(d, p.problem_id): key(chat_ids(tokenizer, p.user)) for d in SETS for p in load_problems(MANIFESTS, d)}
    for step in (1, 2):
        again = {row["key"] for row in running.asked(models[step]) if row["time"] > killed}
        assert not again & {keys[answer] for answer in on_disk[step]}, "asked again"
    verdicts = [
        {(r["dataset"], r["problem_id"]): (r["error_type"], r["pass_ratio"], r["test_verdicts"]) for r in found}
        for found in (rows(tmp_path / f"eval_step_{step}", "results") for step in models)
    ]
    assert verdicts[0] == verdicts[1], "a verdict depends on what else is judged"
