"""Checkpoints as verl writes them, saved once a test session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, made_once

LATEST = Path(os.environ.get("VENV_LATEST", ROOT / ".venv-latest")) / "bin/python"  # verl 0.9.1 and transformers 5
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs checkpoints of the real verl is slow: they take half a minute."""
    for item in items:
        if {"saved", "saved_latest"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def saved(base_model, tmp_path_factory) -> Path:
    """Checkpoints of verl 0.7.0's FSDPCheckpointManager and the merges of its FSDPModelMerger."""
    return checkpoints(sys.executable, base_model, tmp_path_factory, "saved")


@pytest.fixture(scope="session")
def saved_latest(base_model, tmp_path_factory) -> Path:
    """The same of verl 0.9.1 under transformers 5."""
    if not LATEST.exists():
        pytest.skip(
            f"{LATEST} is not there: REQUIREMENTS=requirements-latest-cpu.txt VENV=$PWD/.venv-latest bash setup_cpu.sh"
        )
    return checkpoints(LATEST, base_model, tmp_path_factory, "saved_latest")


def checkpoints(python: str | Path, base: Path, factory: pytest.TempPathFactory, name: str) -> Path:
    def save(folder: Path) -> None:
        done = subprocess.run(
            [python, ROOT / "tests/model/make_fsdp_checkpoints.py", base, folder],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return made_once(factory, name, save, factory.mktemp(name) / "checkpoints")
