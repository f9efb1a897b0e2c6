"""Which GPUs an evaluation may take while training runs: those of --gpus, unless somebody is on them."""

from __future__ import annotations

from collections.abc import Sequence

from phase1.files import BadInput
from phase1.machine import has_driver, list_gpus, visible_devices


def choose_gpus(gpus: Sequence[int] | None, max_used_mib: int, force: bool, passed_on: Sequence[str]) -> dict[str, str]:
    """The environment variables that restrict an evaluation to `gpus`.

    Nothing is asked where no NVIDIA driver is installed, or where vLLM servers elsewhere generate (--vllm_url).

    Args:
        gpus: by nvidia-smi's index; None: those that CUDA_VISIBLE_DEVICES names, else all.
        max_used_mib: memory that may be in use on each, in MiB.
        force: take them although more is in use.
        passed_on: the flags for phase1_eval.py.

    Raises:
        BadInput: a GPU does not exist, or more of its memory is in use and `force` is not given.
    """
    if gpus is None and (not has_driver() or any(w.split("=")[0] == "--vllm_url" for w in passed_on)):
        return {}
    if not has_driver():
        raise BadInput("--gpus: nvidia-smi is not installed here; leave --gpus out on a machine without NVIDIA GPUs")
    used = {gpu.index: gpu.used_mib for gpu in list_gpus()}
    visible = visible_devices()
    if gpus is not None:
        wanted = list(gpus)
    elif visible is not None:  # indices, empty: none; a UUID is not looked up, its owner chose it by name
        wanted = [int(device) for device in visible if device.isdecimal()]
    else:
        wanted = list(used)
    if unknown := [g for g in wanted if g not in used]:
        raise BadInput(f"--gpus {unknown[0]}: no such GPU; nvidia-smi lists {', '.join(map(str, used)) or 'none'}")
    busy = [f"GPU {g} holds {used[g]} MiB" for g in wanted if used[g] > max_used_mib]
    if busy and not force:
        raise BadInput(
            f"{', '.join(busy)}, more than --max_gpu_mem_used {max_used_mib}; choose free ones with --gpus, or "
            "say --force"
        )
    if gpus is None:
        return {}
    # nvidia-smi counts by bus id, CUDA by speed unless told otherwise.
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
