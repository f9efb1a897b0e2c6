"""Checkpoints, evaluations and starts of the evaluator that the tests of this package make."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from phase1.checkpoints.__main__ import main
from phase1.contract.problems import manifest_path, read_manifest
from phase1.files import run_script, sha256_file, write_json
from tests.conftest import ROOT, SAMPLES
from tests.tiny_model import write_tiny_model

MANIFESTS = SAMPLES / "manifests"


def make_checkpoint(ckpt_dir: Path, step: int, latest: int | None = None) -> Path:
    """A whole checkpoint with the smallest model, whose directory is returned; verl's tracker names `latest`."""
    model = ckpt_dir / f"global_step_{step}" / "huggingface"
    model.mkdir(parents=True)
    write_tiny_model(model)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    (ckpt_dir / "latest_checkpointed_iteration.txt").write_text(str(step if latest is None else latest))
    return model


def cut(path: Path, n: int = 1) -> None:
    """Take the last bytes away."""
    path.write_bytes(path.read_bytes()[:-n])


def write_eval(
    output_dir: Path,
    step: int,
    rate: float | None,
    accepted: float | None,
    *,
    status: str = "complete",
    sets: tuple[str, ...] = ("codecontests_valid", "mbpp_reg"),
    problems: int | None = None,
    **run: object,
) -> None:
    """What an evaluation of these sets leaves; `problems`: only so many of each, as with --limit."""
    folder = output_dir / f"eval_step_{step}"
    hashes = {
        d: {
            "manifest_sha256": sha256_file(manifest_path(MANIFESTS, d)),
            "problems": problems or len(read_manifest(MANIFESTS, d)),
        }
        for d in sets
    }
    model = {"path": f"ckpt/global_step_{step}/huggingface"}
    write_json(folder / "run.json", {"status": status, "model": model, "datasets": hashes, **run})
    metrics = {"exec_success_rate": rate, "accepted_at_1": accepted, "total_problems": hashes[sets[0]]["problems"]}
    write_json(folder / "summary.json", {"datasets": {"codecontests_valid": metrics}})


# --------------------------------------------------------------------------------------------------------------- starts
@dataclass
class Run:
    """How a start of the evaluator ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Place:
    """A folder for checkpoints and one for outputs, both with a blank in the name, and starts over them."""

    def __init__(self, folder: Path, manifests: Path = MANIFESTS):
        self.checkpoints, self.outputs, self.manifests = folder / "check points", folder / "out puts", manifests
        self.checkpoints.mkdir()
        self.outputs.mkdir()
        self.env = os.environ | {
            "CKPT_DIR": str(self.checkpoints),
            "OUTPUT_DIR": str(self.outputs),
            "MANIFEST_DIR": str(manifests),
            "PYTHON": sys.executable,
        }

    def evaluate(self, *args: object) -> Run:
        """`python -m phase1.checkpoints evaluate` in this process: starting one costs more than its work."""
        return self._start("evaluate", "--manifest_dir", self.manifests, "--settle", 0, *args)

    def status(self, *args: object) -> Run:
        """`python -m phase1.checkpoints status`, likewise."""
        return self._start("status", *args)

    def _start(self, command: str, *args: object) -> Run:
        argv = [command, "--checkpoint_dir", self.checkpoints, "--output_dir", self.outputs, *args]
        out, err, before = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                run_script(lambda: main([str(a) for a in argv]))
        except SystemExit as e:
            return Run(int(e.code or 0), out.getvalue(), err.getvalue())
        finally:
            signal.signal(signal.SIGTERM, before)

    def shell(self, *args: object) -> subprocess.CompletedProcess[str]:
        """`bash run_eval_checkpoints.sh`, in a process of its own."""
        command = ["bash", str(ROOT / "run_eval_checkpoints.sh"), "--settle", "0", *map(str, args)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True)
