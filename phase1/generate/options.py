"""The flags of sampling and of what generates, and the settings that they make."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
from pathlib import Path

from phase1.files import BadInput
from phase1.generate.generate import Backend
from phase1.generate.requests import Sampling, context_limit
from phase1.generate.vllm_client import VllmSettings
from phase1.generate.vllm_servers import ServerConfig, vllm_version
from phase1.machine import usable_gpus


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def positive_seconds(text: str) -> float:
    """A finite number above 0, for argparse."""
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of EVAL@1; the defaults are its values."""
    group = parser.add_argument_group(
        "sampling", "EVAL@1 is the default, whatever the model's generation_config.json says"
    )
    group.add_argument("--temperature", type=float, default=0.0)
    group.add_argument("--top_p", type=float, default=1.0)
    group.add_argument("--top_k", type=int, default=-1, help="-1: all tokens (default)")
    group.add_argument("--repetition_penalty", type=float, default=1.0)
    group.add_argument("--max_new_tokens", type=positive, default=2048, help="tokens an answer (default: 2048)")
    group.add_argument(
        "--max_model_len", type=positive, default=6144, help="tokens of prompt and answer together (default: 6144)"
    )
    group.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    group.add_argument(
        "--n_samples",
        type=positive,
        default=1,
        help="answers a problem, for pass@k; more than 1 needs --temperature (default: 1)",
    )
    group.add_argument("--seed", type=int, default=0, help="of sampled answers (default: 0)")


def add_generator_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what generates: transformers, running vLLM servers, or vLLM servers of our own."""
    group = parser.add_argument_group("generation", "what generates the answers")
    group.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "vllm", "transformers"],
        help="auto: vllm where it and a GPU, --vllm_url or --vllm_python are there, else transformers",
    )
    group.add_argument(
        "--batch_size", type=positive, default=16, help="prompts at a time with transformers (default: 16)"
    )
    group.add_argument(
        "--vllm_url",
        action="append",
        default=[],
        metavar="URL",
        help="a running vLLM server, on any host; repeatable. VLLM_API_KEY is sent where set",
    )
    group.add_argument(
        "--served_model_name",
        metavar="NAME",
        help="the name --vllm_url servers serve the model under, where it is not its path",
    )
    group.add_argument(
        "--max_concurrent",
        type=positive,
        default=256,
        help="requests at a time on each server (default: 256; 255 with --batch_invariant)",
    )
    group.add_argument(
        "--request_timeout",
        type=positive_seconds,
        default=600,
        help="seconds for one answer, then it is tried again (default: 600)",
    )
    group.add_argument(
        "--stall_timeout",
        type=positive_seconds,
        default=180,
        help="seconds without a token after which a server is given up (default: 180)",
    )
    group = parser.add_argument_group(
        "vLLM servers of our own", "started where vLLM generates and no --vllm_url is given"
    )
    group.add_argument(
        "--num_servers",
        type=positive,
        default=0,
        help="default: one a visible GPU (or tensor-parallel group); one on a CPU",
    )
    group.add_argument(
        "--tensor_parallel_size", type=positive, default=1, help="GPUs a server; a 7B needs one (default: 1)"
    )
    group.add_argument(
        "--gpu_memory_utilization", type=float, default=0.9, help="share of each GPU's memory (default: 0.9)"
    )
    group.add_argument(
        "--batch_invariant",
        action="store_true",
        help=(
            "vLLM's batch-invariant kernels: the same answers at any load, slower (--vllm_url servers: start them "
            "with VLLM_BATCH_INVARIANT=1)"
        ),
    )
    group.add_argument(
        "--start_timeout",
        type=positive_seconds,
        default=900,
        help="seconds until the servers must answer (default: 900)",
    )
    group.add_argument("--vllm_python", metavar="EXE", help="the interpreter that has vLLM (default: this one)")
    group.add_argument(
        "--vllm_args",
        default="",
        metavar="ARGS",
        help="more arguments for the server, as one word: --vllm_args='--enforce-eager'",
    )


def sampling_from(args: argparse.Namespace) -> Sampling:
    """The Sampling of parsed `add_sampling_arguments`. Raises BadInput for values that make no distribution."""
    if args.n_samples > 1 and args.temperature == 0:
        raise BadInput(
            f"--n_samples {args.n_samples} with --temperature {args.temperature:g}: greedy answers are all the "
            "same; give a temperature above 0, 0.8 for example"
        )
    if not (
        0 <= args.temperature < math.inf
        and 0 < args.top_p <= 1
        and (args.top_k == -1 or args.top_k > 0)
        and 0 < args.repetition_penalty < math.inf
    ):
        raise BadInput(
            f"--temperature {args.temperature:g} --top_p {args.top_p:g} --top_k {args.top_k} "
            f"--repetition_penalty {args.repetition_penalty:g}: "
            "expected temperature from 0, top_p above 0 and at most 1, top_k -1 or from 1, a penalty above 0"
        )
    return Sampling(
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        repetition_penalty=args.repetition_penalty,
        max_new_tokens=args.max_new_tokens,
        max_model_len=args.max_model_len,
        dtype=args.dtype,
        n_samples=args.n_samples,
        seed=args.seed,
    )


def backend_from(args: argparse.Namespace, model_path: Path, log_dir: Path, base_model: Path | None) -> Backend:
    """The backend of --backend, or what is there: running servers, vLLM with a GPU, a named vLLM, else transformers."""
    python = os.path.abspath(shutil.which(args.vllm_python) or args.vllm_python) if args.vllm_python else sys.executable
    wanted = args.backend
    if wanted == "auto":
        possible = args.vllm_url or ((args.vllm_python or usable_gpus()) and vllm_version(python))
        wanted = "vllm" if possible else "transformers"
    if args.batch_invariant and wanted == "transformers":
        raise BadInput("--batch_invariant is a mode of vLLM's; it needs --backend vllm")
    if wanted == "transformers":
        return Backend(batch_size=args.batch_size, base_model=base_model)
    concurrent = min(args.max_concurrent, 255) if args.batch_invariant else args.max_concurrent
    try:
        more_args = tuple(shlex.split(args.vllm_args))
    except ValueError as e:
        raise BadInput(f"--vllm_args {args.vllm_args}: {e}") from None
    servers = None
    if not args.vllm_url:
        if vllm_version(python) is None:
            raise BadInput(
                f"--backend vllm: {python} has no vLLM; name an interpreter that has with --vllm_python, "
                "running servers with --vllm_url, or --backend transformers"
            )
        servers = ServerConfig(
            model_path=model_path,
            log_dir=log_dir.resolve(),
            num_servers=args.num_servers,
            tensor_parallel_size=args.tensor_parallel_size,
            dtype=args.dtype,
            max_model_len=context_limit(model_path, args.max_model_len),
            max_num_seqs=concurrent,
            gpu_memory_utilization=args.gpu_memory_utilization,
            batch_invariant=args.batch_invariant,
            start_timeout=args.start_timeout,
            python=python,
            more_args=more_args,
        )
    settings = VllmSettings(
        urls=tuple(args.vllm_url),
        servers=servers,
        served_model_name=args.served_model_name,
        max_concurrent=concurrent,
        request_timeout=args.request_timeout,
        stall_timeout=args.stall_timeout,
        batch_invariant=args.batch_invariant,
    )
    return Backend(vllm=settings, batch_size=args.batch_size, base_model=base_model)
