"""What the tests of run_sft.sh up to the trainer's start share: a verl to look at, a job that passes every check, a GPU
to believe in."""

import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from phase1.train.job import Job, read_job
from phase1.train.record import record_start, run_shape
from tests.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = [{"role": r, "content": r} for r in ("system", "user", "assistant")]


def write_rows(path: Path, rows: int) -> Path:
    pd.DataFrame({"messages": [MESSAGES] * rows}).to_parquet(path)
    return path


def patch(site: Path, *args: str) -> None:
    subprocess.run(
        [sys.executable, ROOT / "patches" / "apply_verl_patch.py", *args, "--verl_dir", site / "verl"], check=True
    )


def copied_verl(site: Path, version: str | None = None) -> Path:
    """A folder for PYTHONPATH: the trainer's file of the installed verl 0.7.0, patched, or the files of a later version
    by which it is known; verl and torch themselves refuse to load."""
    spec = importlib.util.find_spec("verl")
    if spec is None:
        pytest.skip("verl is not installed")
    installed = Path(next(iter(spec.submodule_search_locations)))
    (site / "verl" / "trainer").mkdir(parents=True)
    shutil.copytree(installed / "version", site / "verl" / "version")
    for name in ("verl", "torch"):
        (site / name).mkdir(exist_ok=True)
        (site / name / "__init__.py").write_text(f"raise SystemExit('{name} was imported')")
    if version is None:
        shutil.copy(installed / "trainer" / "fsdp_sft_trainer.py", site / "verl" / "trainer")
        patch(site)
        copy_settings(installed, site)
    else:
        (site / "verl" / "version" / "version").write_text(version)
        (site / "verl" / "trainer" / "sft_trainer.py").touch()
        (site / "verl" / "plugin" / "platform").mkdir(parents=True)
        for latest in (ROOT / ".venv-latest").glob("lib/python3*/site-packages/verl"):
            copy_settings(latest, site)
    return site


def copy_settings(installed: Path, site: Path) -> None:
    """What the preflight reads of an installed verl beside its trainers: its configuration and its loggers."""
    shutil.copytree(installed / "trainer" / "config", site / "verl" / "trainer" / "config", dirs_exist_ok=True)
    (site / "verl" / "utils").mkdir(exist_ok=True)
    shutil.copy(installed / "utils" / "tracking.py", site / "verl" / "utils")


def job_variables(tmp_path: Path, site: Path) -> dict[str, str]:
    """Variables of a run that passes every check: 64 rows, a model folder with the smallest model, no GPU."""
    model = tmp_path / "model"
    model.mkdir()
    write_tiny_model(model)
    (model / "tokenizer.json").write_text(
        '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}, '
        '"pre_tokenizer": {"type": "Whitespace"}}'
    )
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    return {
        **{k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ},
        "PYTHON": sys.executable,
        "PYTHONPATH": str(site),
        "TRAIN_FILE": str(write_rows(tmp_path / "train.parquet", 64)),
        "VAL_FILE": str(write_rows(tmp_path / "val.parquet", 8)),
        "MODEL_PATH": str(model),
        "CKPT_DIR": str(tmp_path / "ckpt"),
        "OUTPUT_DIR": str(tmp_path / "outputs"),
        "NPROC": "2",
        "TRAIN_BATCH_SIZE": "8",
        "MICRO_BATCH_SIZE": "2",
        "LOGGER": "console",
        "DEVICE": "cpu",
    }


def run_sft(env: dict[str, str], *args: str) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "run_sft.sh", *args], env=env, capture_output=True, text=True)


def words(env: dict[str, str], *args: str) -> list[str]:
    done = run_sft(env, "--dry_run", *args)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def job_of(env: dict[str, str], *trailing: str) -> Job:
    """The job that run_sft.sh would describe: its own block of defaults, read by bash."""
    block = f"HERE={ROOT}; source <(sed -n '/^# ---- data/,/^export PYTHONPATH/p' {ROOT}/run_sft.sh); env -0"
    listed = subprocess.run(["bash", "-c", block], env=env, capture_output=True, text=True, check=True).stdout
    return read_job(dict(line.split("=", 1) for line in listed.split("\0") if line), list(trailing))


def pretend_gpus(folder: Path, count: int = 8, name: str = "NVIDIA H100 80GB HBM3", used_mib: int = 500) -> str:
    """A PATH whose nvidia-smi lists so many GPUs of 80 GiB."""
    (folder / "bin").mkdir(exist_ok=True)
    script = folder / "bin" / "nvidia-smi"
    script.write_text(f"""#!/bin/sh
for i in $(seq 0 {count - 1}); do
  case "$1" in
    -L) echo "GPU $i: {name}" || exit 1; sleep 0.02 ;;
    *) echo "$i, {name}, 81559, {used_mib}" ;;
  esac
done
""")
    script.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


# ------------------------------------------------------------------------------------------- checkpoints and records
def make_checkpoint(ckpt_dir: str, step: int, world_size: int = 2) -> Path:
    """A folder with whole (empty) shards, as verl names them."""
    folder = Path(ckpt_dir) / f"global_step_{step}"
    folder.mkdir(parents=True)
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world_size}))
    kinds = ("model", "optim", "extra_state")
    shards = [f"{kind}_world_size_{world_size}_rank_{rank}.pt" for kind in kinds for rank in range(world_size)]
    for name in [*shards, "data.pt"]:
        with zipfile.ZipFile(folder / name, "w") as z:
            z.writestr("data.pkl", "x" * 2000)
    return folder


SHARD = "optim_world_size_2_rank_1.pt"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "torn shard": lambda last: (last / SHARD).write_bytes((last / SHARD).read_bytes()[:1000]),
    "missing shard": lambda last: (last / SHARD).unlink(),
    "no data.pt": lambda last: (last / "data.pt").unlink(),
    "no fsdp_config.json": lambda last: (last / "fsdp_config.json").unlink(),
    "torn fsdp_config.json": lambda last: (last / "fsdp_config.json").write_text('{"FSDP_version": 2, "world'),
    "folder removed": shutil.rmtree,
}


def tracker(env: dict[str, str]) -> Path:
    return Path(env["CKPT_DIR"]) / "latest_checkpointed_iteration.txt"


def begin(env: dict[str, str]) -> None:
    """Record the start of a first run, as run_sft.sh does before torchrun."""
    job = job_of(env)
    record_start(job, run_shape(job), ["torchrun"], step=0, total=16)


# --------------------------------------------------------------------------------------------- runs of the real trainer
def addition(rng: random.Random) -> list[dict[str, str]]:
    """A row whose length differs from the next one's, so that padding and trimming are at work."""
    a, b = rng.randrange(10**9), rng.randrange(10 ** rng.randrange(1, 9))
    turns = {"system": "Write Python.", "user": f"Add {a} and {b}.", "assistant": f"<code>\nprint({a} + {b})\n</code>"}
    return [{"role": role, "content": content} for role, content in turns.items()]


class Run:
    """One call of run_sft.sh and what its console log says."""

    def __init__(self, env: dict[str, str], ckpt_dir: Path, *args: str, outputs: str = "outputs"):
        self.ckpt_dir, self.output_dir = ckpt_dir, ckpt_dir.with_name(outputs)
        self.env = env | {"CKPT_DIR": str(ckpt_dir), "OUTPUT_DIR": str(self.output_dir)}
        self.screen = ckpt_dir.with_name(f"screen_{time.time_ns()}.txt")
        with open(self.screen, "wb") as screen:
            self.process = subprocess.Popen(
                [ROOT / "run_sft.sh", *args], env=self.env, start_new_session=True, stdout=screen, stderr=screen
            )

    def wait(self) -> "Run":
        self.process.wait(timeout=600)
        return self

    def outlived_by(self, seconds: float) -> list[str]:
        """Command lines of this run's processes that are alive `seconds` after it ended; they are killed then."""
        deadline = time.monotonic() + seconds
        while (left := members(self.ckpt_dir)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return list(left.values())

    @property
    def output(self) -> str:
        return self.screen.read_text(errors="replace")

    def log(self) -> str:
        path = self.output_dir / "logs" / "latest"
        return path.read_text(errors="replace") if path.exists() else ""

    def steps(self) -> dict[int, dict[str, str]]:
        """The logged metrics of each step, as text; the time a step took is left out."""
        found = {}
        for number, line in re.findall(r"step:(\d+) - (train/loss.*)", self.log()):
            found[int(number)] = {
                k: v for k, v in (pair.rsplit(":", 1) for pair in line.split(" - ")) if k != "train/time(s)"
            }
        return found


def interrupted_after(step: int, ckpt_dir: Path, copy: Path) -> Path:
    """A copy of a run's checkpoints as they were when `step` was saved last."""
    shutil.copytree(ckpt_dir, copy)
    for folder in copy.glob("global_step_*"):
        if int(folder.name.removeprefix("global_step_")) > step:
            shutil.rmtree(folder)
    (copy / "latest_checkpointed_iteration.txt").write_text(str(step))
    return copy


def wait_until(true: Callable[[], object], seconds: float = 200) -> None:
    """Look ten times a second whether it is so; the test fails where it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stopping_copier(folder: Path, when: str = "event == 'open' and '.incoming/' in str(args[0])") -> str:
    """A folder for PYTHONPATH: the process that copies a checkpoint stops (SIGSTOP) once, at an event of Python's
    audit; by default as it opens its first file."""
    (folder / "stops").mkdir(exist_ok=True)
    (folder / "stops" / "sitecustomize.py").write_text(f"""
import os, signal, sys
def stop(event, args, told=[]):
    if not told and {when}:
        told.append(1)
        os.kill(os.getpid(), signal.SIGSTOP)
if "phase1.train.copy_save" in sys.orig_argv:
    sys.addaudithook(stop)
""")
    return str(folder / "stops")


def members(ckpt_dir: Path) -> dict[int, str]:
    """The live processes of the run that writes there: pid -> command line. By what they were told, since torchrun
    gives each of its workers a session of its own."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = stat.with_name("environ").read_bytes().decode(errors="replace").split("\0")
            if f"CKPT_DIR={ckpt_dir}" in told and stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                found[int(stat.parent.name)] = stat.with_name("cmdline").read_text().replace("\0", " ")
        except OSError:  # it ended meanwhile
            continue
    return found
