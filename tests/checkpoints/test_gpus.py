"""phase1.checkpoints.gpus: an evaluation takes no GPU on which somebody else is."""

import os

import pytest

from phase1.checkpoints.gpus import choose_gpus
from phase1.files import BadInput


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """nvidia-smi's answer of a machine on which training holds GPU 0."""
    program = "#!/bin/sh\necho '0, NVIDIA H100, 81559, 70123'\necho '1, NVIDIA H100, 81559, 4'\n"
    (tmp_path / "nvidia-smi").write_text(program)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("gpus", "used", "force", "passed_on", "visible"),
    [
        ([1], 2000, False, [], {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        ([0, 1], 80000, False, [], {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        ([0, 1], 2000, True, [], {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        (None, 2000, True, [], {}),
        (None, 2000, False, ["--vllm_url", "http://elsewhere:8000/v1"], {}),
    ],
    ids=["a free one", "within the limit", "forced", "all, forced", "servers elsewhere"],
)
def test_gpus_that_are_free_or_forced_are_taken(two_gpus, gpus, used, force, passed_on, visible):
    assert choose_gpus(gpus, used, force, passed_on) == visible


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([0], "GPU 0 holds 70123 MiB, more than --max_gpu_mem_used 2000"),
        (None, "GPU 0 holds 70123 MiB"),
        ([7], "--gpus 7: no such GPU; nvidia-smi lists 0, 1"),
    ],
    ids=["busy", "one of all", "unknown"],
)
def test_busy_and_unknown_gpus_are_refused(two_gpus, gpus, said):
    with pytest.raises(BadInput, match=said):
        choose_gpus(gpus, 2000, False, [])


@pytest.mark.parametrize("visible", ["1", ""], ids=["the free one", "none"])
def test_gpus_that_the_environment_hides_are_not_asked_about(two_gpus, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choose_gpus(None, 2000, False, []) == {}
