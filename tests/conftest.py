"""What several test files need: where things lie, the small model of the demo, built once a test session."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.sft_runs import copied_verl, job_variables

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "data" / "samples"

# Scripts are run as a user would run them, from any directory, and none may reach for the network.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "offline",
    "OMP_NUM_THREADS": "1",
    # A vLLM server's model in its engine's process, as on one GPU; on a CPU it would have a third, with imports of 9 s.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
sys.path.insert(0, str(ROOT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, the most first, so that no test process has a long one left at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A text that is a program or a sentence names no test: its argument's name does, which pytest numbers."""
    return argname if isinstance(val, str) and (len(val) > 24 or not val.isprintable()) else None


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object], copy: Path) -> Path:
    """A folder that `make` fills once a session, by whichever test process needs it first.

    Each process has a copy of its own: tests look for processes by the paths in their command lines.

    Args:
        name: of the folder, one for each thing that is made.
        make: called with a folder that is not there yet. Where it fails, the next that needs it tries again.
        copy: where this process's copy goes.
    """
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(common / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made := common / f"{name} made once").exists():
            shutil.rmtree(half := common / f"{name} half made", ignore_errors=True)
            make(half)
            half.rename(made)
    return shutil.copytree(made, copy)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory) -> Path:
    """The demo's base model: a Qwen2 of a few layers with random weights, and its ChatML tokenizer."""

    def build(path: Path) -> None:
        subprocess.run([sys.executable, SAMPLES / "build_model.py", "--output_dir", path], check=True, cwd=ROOT)

    return made_once(tmp_path_factory, "base_model", build, tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def patched_verl(tmp_path_factory) -> Path:
    """verl 0.7.0 as the preflight looks at it; neither it nor torch can be imported."""
    return copied_verl(tmp_path_factory.mktemp("verl070"))


@pytest.fixture(scope="session")
def engine_verl(tmp_path_factory) -> Path:
    """verl 0.9.1 as the preflight looks at it."""
    return copied_verl(tmp_path_factory.mktemp("verl091"), "0.9.1")


@pytest.fixture
def env(tmp_path, patched_verl) -> dict[str, str]:
    """Variables for run_sft.sh of a run that passes every check: 64 rows, a folder with the smallest model, no GPU."""
    return job_variables(tmp_path, patched_verl)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """HumanEval, MBPP and CodeContests as published: third-party, so beside the project, never in it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the public data sets (HumanEval.jsonl.gz, mbpp.jsonl.gz, …) are not in ../shared/data")
    return path


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Small inputs on which the toolkit was once wrong; handed over beside the project, never in it."""
    path = ROOT.parent / "shared" / "cases"
    if not path.is_dir():
        pytest.skip("the handed-over cases are not in ../shared/cases")
    return path


def first_problems(folder: Path, count: int) -> Path:
    """A manifest folder with the first `count` problems of each embedded evaluation set, in `folder`."""
    manifests = folder / "manifests"
    manifests.mkdir()
    (folder / "raw").symlink_to(SAMPLES / "raw")
    for path in (SAMPLES / "manifests").glob("*_manifest.jsonl"):
        (manifests / path.name).write_text("".join(path.read_text().splitlines(keepends=True)[:count]))
    return manifests
