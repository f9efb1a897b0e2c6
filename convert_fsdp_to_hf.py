"""Turn a checkpoint's FSDP shards into a Hugging Face directory, where `huggingface/` is missing or broken.

    python convert_fsdp_to_hf.py --ckpt_dir checkpoints/…/global_step_500 --output_dir outputs/model_500 --verify
    torchrun --nproc_per_node=8 convert_fsdp_to_hf.py --ckpt_dir … --output_dir …     (rank 0 works, the others leave)
    python convert_fsdp_to_hf.py --slim checkpoints/…/global_step_500/huggingface     (fp32 -> bf16, half the size)

One process, no GPU, any world size. Weights are streamed, so memory does not grow with the model. The output directory
appears whole or not at all. Exit codes: 0 done, 1 --verify found a difference, 2 bad input.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import threading
import time
from pathlib import Path

from phase1.arguments import Parser, output_folder, show_next, words_of_command
from phase1.files import BadInput, run_script, run_stamp
from phase1.model.shapes import expected_tensors
from phase1.model.small_files import export_config, small_files

SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
READ_AHEAD = 2 << 30  # bytes of the shards that a disk can read while torch is being imported


def parse_args() -> argparse.Namespace:
    p = Parser(__doc__)
    what = p.add_argument_group("what to convert: shards, or a Hugging Face directory to make smaller")
    what.add_argument("--ckpt_dir", help="checkpoint folder, global_step_N, with model_world_size_W_rank_R.pt")
    what.add_argument("--slim", metavar="HF_DIR", help="rewrite this directory in --dtype, in place or to --output_dir")
    what.add_argument(
        "--base_model",
        help="directory or Hub name of the model that training started from: gives what the checkpoint's huggingface/ "
        "lacks of config, tokenizer, chat template and generation_config",
    )
    how = p.add_argument_group("how to write it")
    how.add_argument(
        "--output_dir", type=output_folder, help="Hugging Face directory to write (needed with --ckpt_dir)"
    )
    how.add_argument("--overwrite", action="store_true", help="replace an --output_dir that exists")
    how.add_argument(
        "--dtype",
        default="bfloat16",
        choices=["bfloat16", "float16", "float32"],
        help="form of the written weights (default: bfloat16)",
    )
    how.add_argument(
        "--max_shard_size", default="5GB", help="largest size of one safetensors file, as 5GB or 500MB (default: 5GB)"
    )
    how.add_argument(
        "--verify",
        action="store_true",
        help="before it is put in its place, compare the written weights bit by bit with the shards, and with the "
        "checkpoint's huggingface/ where that holds weights",
    )
    args = p.parse_args()
    if bool(args.ckpt_dir) == bool(args.slim) or (args.ckpt_dir and not args.output_dir):
        p.error("give --ckpt_dir with --output_dir, or --slim")
    return args


def main() -> int:
    if int(os.environ.get("RANK", "0")) > 0:
        return 0  # under torchrun: one process is enough, and torch is not imported yet
    args = parse_args()
    started = time.monotonic()
    max_file_bytes = size_in_bytes(args.max_shard_size)
    if args.ckpt_dir:
        threading.Thread(target=read_ahead, args=(Path(args.ckpt_dir),), daemon=True).start()
    import torch

    from phase1.model.conversion import Conversion, Different, InBackground, differences, publish
    from phase1.model.matches_config import check_shapes, check_tied, tensors_to_write
    from phase1.model.shards import check_steps, find_shards, read_shards
    from phase1.model.tensors import read_safetensors
    from phase1.model.writing import stored_bytes

    torch.set_num_threads(1)  # writing has threads of its own
    output = Path(args.output_dir or args.slim)
    origin = Path(args.slim) if args.slim else Path(args.ckpt_dir) / "huggingface"
    shards = [] if args.slim else find_shards(Path(args.ckpt_dir))
    if args.output_dir and output.exists() and any(output.iterdir()) and not args.overwrite:
        raise BadInput(f"{output}: exists; remove it or give --overwrite")
    if args.slim and not (sources := read_safetensors(origin)):
        raise BadInput(f"{origin}: holds no model.safetensors; --slim needs a Hugging Face directory with weights")
    beside = small_files(origin, args.base_model)
    config_path = beside["config.json"]
    config = export_config(config_path, args.dtype)
    expected = InBackground(lambda: expected_tensors(config, config_path))
    if shards:
        check_steps(shards)
        sources = read_shards(shards, lambda: expected.result().needed)
    kept = tensors_to_write(sources, config)
    checks = [
        InBackground(lambda: check_tied(sources, config, config_path)),
        InBackground(lambda: check_shapes(kept, expected.result(), config_path)),
    ]
    dtype = getattr(torch, args.dtype)
    size = stored_bytes(kept, dtype)
    record = {
        "status": "complete",
        "from": [str(p) for p in shards] or [str(origin)],
        "tensors": len(kept),
        "bytes": size,
        "dtype": args.dtype,
        "verified": args.verify,
        "stamp": run_stamp(vars(args)),
    }
    verify = functools.partial(differences, expected=kept, sources=sources, saved_beside=origin, dtype=dtype)
    try:
        publish(
            Conversion(
                output=output,
                tensors=kept,
                dtype=dtype,
                config=config,
                small_files=beside,
                max_file_bytes=max_file_bytes,
                record=record,
            ),
            checks,
            verify if args.verify else None,
        )
    except Different as e:
        print("\n".join(f"FAIL {line}" for line in e.lines))
        print(f"not published: {output}")
        return 1
    seconds = time.monotonic() - started
    print(
        f"written: {output} ({size / 1e9:.2f} GB of weights, {len(kept)} tensors, {args.dtype}"
        f"{', verified' if args.verify else ''}) in {seconds:.1f} s, {size / 1e9 / seconds:.2f} GB/s"
    )
    base = ("--base_model", args.base_model) if args.base_model else ()
    command = words_of_command("python", "verify_handoff.py", "--model_path", output, *base)
    show_next("verify that GRPO can start from it", command)
    return 0


def read_ahead(ckpt_dir: Path) -> None:
    """Have the disk read the start of every shard into the page cache; a hint, whose failure means nothing."""
    files = list(ckpt_dir.glob("model_world_size_*.pt"))
    for path in files:
        try:
            with open(path, "rb") as f:
                os.posix_fadvise(f.fileno(), 0, READ_AHEAD // len(files), os.POSIX_FADV_WILLNEED)
        except OSError:
            return


def size_in_bytes(text: str) -> int:
    """`5GB` -> 5 * 10^9, as transformers reads it; `512MiB` -> 512 * 2^20. BadInput for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B)?", text.strip().upper())
    if not match or not float(match[1]):
        raise BadInput(f"--max_shard_size {text}: not a size; write 5GB or 512MiB")
    return int(float(match[1]) * SIZES[match[2] or ""])


if __name__ == "__main__":
    run_script(main)
