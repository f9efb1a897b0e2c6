"""phase1_eval.py in the test's own process, where torch and transformers are imported once for all tests."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import phase1_eval
from phase1.files import run_script
from tests.conftest import ROOT, SAMPLES

MANIFESTS = SAMPLES / "manifests"


@dataclass(frozen=True)
class Done:
    """How a command ended, as subprocess.CompletedProcess says it."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr

    @property
    def errors(self) -> list[str]:
        """The lines of stderr but for warnings: the embedded sets warn that they are smaller than the public ones."""
        return [line for line in self.stderr.splitlines() if not line.startswith("warning: ")]


def run_eval(*args: object) -> Done:
    """Run phase1_eval.py with these arguments, and the embedded data sets unless they name others."""
    import transformers  # noqa: F401  # with torch, which the tests after this one need (phase1.model.tokenizer)

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, eval_command(*args)[1:]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_script(phase1_eval.main)
    except SystemExit as e:
        code = e.code
    finally:
        sys.argv = before
    return Done(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())


def eval_command(*args: object) -> list[str]:
    """The same as a command, for a process of its own that can be killed."""
    words = [str(arg) for arg in args]
    data = [] if "--manifest_dir" in words else ["--manifest_dir", str(MANIFESTS)]
    return [sys.executable, str(ROOT / "phase1_eval.py"), *data, *words]


def rows(output_dir: Path, kind: str) -> list[dict]:
    """The whole lines of the folder's completions or results, which may be growing or cut off by a kill."""
    return [
        json.loads(line)
        for path in sorted((output_dir / kind).glob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def write_train_run(checkpoint_dir: Path, base: Path) -> None:
    """The train_run.json of a run that started from `base`, with the fields that it must have."""
    run = {
        "status": "complete",
        "expected_steps": 7,
        "world_size": 1,
        "shape": {},
        "sessions": [{"started": "2026-01-01T00:00:00+00:00", "from_step": 0}],
        "command": [f"model.partial_pretrain='{base}'"],
        "stamp": {"arguments": {"model.partial_pretrain": str(base)}},
    }
    (checkpoint_dir / "train_run.json").write_text(json.dumps(run))
