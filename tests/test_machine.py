"""The machine's GPUs, by an nvidia-smi that is pretended."""

import os

import pytest

from phase1.machine import chosen_gpus, count_gpus, free_memory, usable_cores
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


OF_TWO = {"memory/memory.limit_in_bytes": "4096000\n", "memory/memory.usage_in_bytes": "3072000\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "4096000", "memory.current": "3072000", "memory.stat": "anon 5\nactive_file 7\n"}, 1024007),
        ({"memory.max": "4096000", "memory.current": "5072000", "memory.stat": ""}, 0),
        ({"memory.max": "max", "memory.current": "3072000", "memory.stat": ""}, 2048000),
        ({"memory.max": "9000000", "memory.current": "1", "memory.stat": ""}, 2048000),
        (OF_TWO | {"memory/memory.stat": "inactive_file 9"}, 1024009),
        ({}, 2048000),
    ],
)
def test_a_container_s_limit_bounds_the_free_memory(files, free, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  2000 kB\nHugePages_Total:  0\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path / "meminfo", tmp_path) == free
