"""The machine's GPUs, by an nvidia-smi that is pretended."""

import os

import pytest

from phase1.machine import chosen_gpus, count_gpus, usable_cores
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


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "6400000 100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu.max": ""}, 16),
        ({}, 16),
    ],
)
def test_a_container_s_share_of_cpu_time_bounds_its_cores(files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores
