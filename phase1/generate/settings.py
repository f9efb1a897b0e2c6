"""What a user may choose about generation, as phase1_eval.py's flags of the same names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BackendSettings:
    """The backend and its settings. Each backend takes those that concern it; --help explains them.

    Attributes:
        log_dir: where servers that are started here write their logs.
        num_servers: 0 for one a visible GPU or tensor-parallel group.
        request_timeout, stall_timeout, start_timeout: seconds.
        vllm_python: the interpreter that has vLLM; None for this one.
        vllm_args: more arguments for a server, as one shell word each.
    """

    model_path: Path
    log_dir: Path
    backend: str = "auto"
    dtype: str = "bfloat16"
    max_model_len: int = 6144
    batch_size: int = 16
    vllm_url: tuple[str, ...] = ()
    served_model_name: str | None = None
    max_concurrent: int = 256
    request_timeout: float = 600.0
    stall_timeout: float = 180.0
    num_servers: int = 0
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    batch_invariant: bool = False
    start_timeout: float = 900.0
    vllm_python: str | None = None
    vllm_args: str = ""
