"""What the tests of run_sft.sh up to the trainer's start share: a verl to look at, a job that passes every check, a GPU to believe in."""

import importlib.util
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from phase1.sft_job import Job, read_job

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = [{"role": r, "content": r} for r in ("system", "user", "assistant")]


def write_rows(path: Path, rows: int) -> Path:
    pd.DataFrame({"messages": [MESSAGES] * rows}).to_parquet(path)
    return path


def patch(site: Path, *args: str) -> None:
    subprocess.run([sys.executable, ROOT / "patches" / "apply_verl_patch.py", *args, "--verl_dir", site / "verl"], check=True)


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
    else:
        (site / "verl" / "version" / "version").write_text(version)
        (site / "verl" / "trainer" / "sft_trainer.py").touch()
        (site / "verl" / "plugin" / "platform").mkdir(parents=True)
    return site


def job_variables(tmp_path: Path, site: Path) -> dict[str, str]:
    """Variables of a run that passes every check: 64 rows, a model folder with an empty tensor or two, no GPU."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    (model / "tokenizer.json").write_text("{}")
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    header = json.dumps({"w": {"dtype": "F32", "shape": [250, 4], "data_offsets": [0, 4000]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4000))
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


def job_of(env: dict[str, str]) -> Job:
    """The job that run_sft.sh would describe: its own block of defaults, read by bash."""
    block = f"HERE={ROOT}; source <(sed -n '/^# ---- data/,/^export PYTHONPATH/p' {ROOT}/run_sft.sh); env -0"
    listed = subprocess.run(["bash", "-c", block], env=env, capture_output=True, text=True, check=True).stdout
    return read_job(dict(line.split("=", 1) for line in listed.split("\0") if line), [])


def pretend_gpus(folder: Path, count: int = 8, name: str = "NVIDIA H100 80GB HBM3", used_mib: int = 500) -> str:
    """A PATH whose nvidia-smi lists so many GPUs of 80 GiB."""
    (folder / "bin").mkdir(exist_ok=True)
    script = folder / "bin" / "nvidia-smi"
    script.write_text(f"""#!/bin/sh
for i in $(seq 0 {count - 1}); do
  case "$1" in -L) echo "GPU $i: {name}" || exit 1; sleep 0.02 ;; *) echo "{name}, 81559, {used_mib}" ;; esac
done
""")
    script.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"
