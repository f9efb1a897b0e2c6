"""How long GPUs had nothing to do: what a library that speaks as NVML does says of them."""

import asyncio
import shutil
import subprocess
import time

import pytest

from phase1.evaluate import gpu_idle

# Two GPUs: the first is busy a quarter of the time, the second always.
NVML = """
typedef struct { unsigned gpu, memory; } Used;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { *h = (void *)(0x700000000000UL + i); return i > 1; }
int nvmlDeviceGetHandleByUUID(const char *u, void **h) { *h = (void *)0x700000000001UL; return u[0] != 'G'; }
int nvmlDeviceGetUtilizationRates(void *h, Used *u) {
    u->gpu = h == (void *)0x700000000000UL ? 25 : 100;
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(NVML)
    command = [compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", folder / "nvml.c"]
    subprocess.run(command, check=True)
    return str(folder / "libnvidia-ml.so.1")


async def idle_share() -> float | None:
    """Of half a second."""
    began = time.monotonic()
    async with gpu_idle.watch_gpus() as idle:
        await asyncio.sleep(0.5)
    return None if idle.seconds is None else idle.seconds / (time.monotonic() - began)


@pytest.mark.parametrize(
    ("visible", "share"), [(None, 0.375), ("0", 0.75), ("1", 0.0), ("0,GPU-1f", 0.375), ("0,7", 0.75)]
)
def test_the_idle_time_is_the_mean_over_the_visible_gpus(library, monkeypatch, visible, share):
    monkeypatch.setattr(gpu_idle, "LIBRARY", library)
    monkeypatch.setattr(gpu_idle, "LOOK", 0.02)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert asyncio.run(idle_share()) == pytest.approx(share, abs=0.15)


@pytest.mark.parametrize(("visible", "named"), [(None, "libnone.so"), ("7", None), ("", None)])
def test_nothing_is_said_without_nvml_or_a_gpu(library, monkeypatch, visible, named):
    monkeypatch.setattr(gpu_idle, "LIBRARY", named or library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert asyncio.run(idle_share()) is None
