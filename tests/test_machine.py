"""The machine's GPUs, by an nvidia-smi that is pretended."""

import pytest

from phase1.machine import chosen_gpus, count_gpus
from tests.train.sft_runs import pretend_gpus


@pytest.mark.parametrize(
    ("named", "chosen", "count"),
    [
        (None, [0, 1, 2, 3], 4),
        ("2, 1", [2, 1], 2),
        ("GPU-5a1c", [0, 1, 2, 3], 1),
        ("", [0, 1, 2, 3], 0),
        ("3,-1", [3], 1),
    ],
)
def test_cuda_visible_devices_chooses_among_the_gpus(tmp_path, monkeypatch, named, chosen, count):
    monkeypatch.setenv("PATH", pretend_gpus(tmp_path, 4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [gpu.index for gpu in chosen_gpus()] == chosen and count_gpus() == count
