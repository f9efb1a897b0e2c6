"""Turn a checkpoint's FSDP shards into a Hugging Face directory, where `huggingface/` is missing or broken.

    python convert_fsdp_to_hf.py --ckpt_dir checkpoints/…/global_step_500 --output_dir outputs/model_500 --verify
    torchrun --nproc_per_node=8 convert_fsdp_to_hf.py --ckpt_dir … --output_dir …     (rank 0 works, the others leave)
    python convert_fsdp_to_hf.py --slim checkpoints/…/global_step_500/huggingface     (fp32 -> bf16, half the size)

One process, no GPU, any world size. Weights are streamed, so memory does not grow with the model. The output directory
appears whole or not at all. Exit codes: 0 done, 1 --verify found a difference, 2 bad input.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from phase1.files import BadInput, read_json, replacing, run_script, run_stamp, write_json
from phase1.model.shapes import model_shapes
from phase1.model.tokenizer import TOKENIZER_FILES

SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")
READ_AHEAD = 2 << 30  # bytes of the shards that a disk can read while torch is being imported


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # what to convert: shards, or an HF directory to make smaller
    p.add_argument("--ckpt_dir", help="checkpoint folder, global_step_N, with model_world_size_W_rank_R.pt")
    p.add_argument("--slim", metavar="HF_DIR", help="rewrite this HF directory in --dtype, in place or to --output_dir")
    p.add_argument("--output_dir", help="HF directory to write (needed with --ckpt_dir)")
    p.add_argument("--overwrite", action="store_true", help="replace an --output_dir that exists")
    p.add_argument(
        "--base_model",
        help="HF directory or hub id: gives the config, tokenizer, chat template and "
        "generation_config that the checkpoint's huggingface/ lacks",
    )
    # how to write it
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"], help="default: bfloat16")
    p.add_argument("--max_shard_size", default="5GB", help="of a safetensors file (default: 5GB)")
    # checks
    p.add_argument(
        "--verify",
        action="store_true",
        help="before publishing, compare the written weights bit by bit with "
        "the shards, and with the checkpoint's huggingface/ if it holds weights",
    )
    p.add_argument(
        "--allow_step_mismatch", action="store_true", help="accept shards whose training states name different steps"
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
    if args.ckpt_dir:
        InBackground(lambda: read_ahead(list(Path(args.ckpt_dir).glob("model_world_size_*.pt"))))
    import torch

    from phase1.model import shards
    from phase1.model import tensors as weights

    torch.set_num_threads(1)  # phase1.weights has threads of its own
    output = Path(args.output_dir or args.slim)
    origin = Path(args.slim) if args.slim else Path(args.ckpt_dir) / "huggingface"
    paths = [] if args.slim else shards.find_shards(Path(args.ckpt_dir))
    if output.exists() and any(output.iterdir()) and not args.overwrite and args.output_dir:
        raise BadInput(f"{output}: exists; remove it or give --overwrite")
    if args.slim and not (sources := weights.read_safetensors(origin)):
        raise BadInput(f"{origin}: holds no model.safetensors; --slim needs an HF directory with weights")
    small = companion_files(origin, args.base_model)
    config = export_config(small["config.json"], args.dtype)
    shapes = InBackground(lambda: model_shapes(config, small["config.json"]))
    if paths:
        check_steps(paths, args.allow_step_mismatch)
        sources = shards.read_shards(paths, shapes.result)
    kept = kept_tensors(sources, config)
    checks = [
        InBackground(lambda: check_tied(sources, config, small["config.json"])),
        InBackground(lambda: expect_shapes(kept, shapes.result(), small["config.json"])),
    ]
    written, differences = write_model(args, output, kept, sources, small, config, origin, paths, checks)
    for line in differences:
        print(f"FAIL {line}")
    if differences:
        print(f"not published: {output}")
        return 1
    seconds = time.monotonic() - started
    print(
        f"written: {output} ({written / 1e9:.2f} GB of weights, {len(kept)} tensors, {args.dtype}"
        f"{', verified' if args.verify else ''}) in {seconds:.1f} s, {written / 1e9 / seconds:.2f} GB/s"
    )
    return 0


class InBackground:
    """A check that runs beside the writing. What it raises comes out of `result()`, or of `raise_if_failed()` once it
    is known."""

    def __init__(self, work: Callable[[], Any]):
        self._future: Future = Future()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as e:
            self._future.set_exception(e)

    def result(self) -> Any:
        return self._future.result()

    def raise_if_failed(self) -> None:
        if self._future.done():
            self._future.result()


def read_ahead(files: list[Path]) -> None:
    """Have the disk read the start of every file into the page cache; a hint, whose failure means nothing."""
    for path in files:
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, READ_AHEAD // len(files), os.POSIX_FADV_WILLNEED)


# ------------------------------------------------------------------------------------------------ what goes beside it
def companion_files(origin: Path, base_model: str | None) -> dict[str, Path]:
    """The small files of the HF directory by name: those of `origin`, the missing ones from the base model."""
    found: dict[str, Path] = {}
    for folder in filter(None, (resolve_base(base_model) if base_model else None, origin if origin.is_dir() else None)):
        own = {p.name: p for p in folder.iterdir() if p.is_file() and not any(p.match(w) for w in WEIGHTS)}
        own = {
            n: p for n, p in own.items() if p.suffix != ".json" or p.stat().st_size
        }  # an emptied file is a missing one
        if "tokenizer_config.json" in own and "chat_template" in read_object(own["tokenizer_config.json"]):
            found.pop("chat_template.jinja", None)  # the base model's file would win over the checkpoint's own template
        found |= own
    for need in ("config.json", "tokenizer_config.json"):
        if need not in found:
            raise BadInput(f"{origin / need}: no such file; give --base_model, the model the training started from")
    if not any(n in found for n in TOKENIZER_FILES):
        raise BadInput(
            f"{origin / 'tokenizer.json'}: no such file; give --base_model, the model the training started from"
        )
    if "generation_config.json" not in found:
        print(
            f"warning: {origin / 'generation_config.json'}: no such file, so readers take the end-of-text id from "
            "config.json alone; --base_model would supply it",
            file=sys.stderr,
        )
    return found


def resolve_base(base_model: str) -> Path:
    """A local directory, or the small files of a hub model."""
    if Path(base_model).is_dir():
        return Path(base_model)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(base_model, allow_patterns=["*.json", "*.jinja", "*.txt", "*.model"]))
    except Exception as e:  # no network, no such repository, no access: huggingface_hub has a class for each
        raise BadInput(
            f"{base_model}: neither a directory nor a hub model that can be loaded ({type(e).__name__})"
        ) from None


def export_config(path: Path, dtype: str) -> dict:
    """config.json with the dtype that is written, under both names, and the rope settings in both forms.

    transformers 5 writes `rope_parameters` and no `rope_theta`; a 4.x reader then takes 10000 for 1e6 without a word.
    """
    config = read_object(path)
    config["torch_dtype"] = config["dtype"] = dtype
    parameters = config.get("rope_parameters") or {}
    theta, inner = config.get("rope_theta"), parameters.get("rope_theta")
    if theta is not None and inner is not None and theta != inner:
        raise BadInput(
            f"{path}: rope_theta {theta} but rope_parameters.rope_theta {inner}; keep the one that was trained"
        )
    if (theta := inner if theta is None else theta) is not None:
        config["rope_theta"] = theta
        scaling = config.get("rope_scaling") or {k: v for k, v in parameters.items() if k != "rope_theta"}
        config["rope_parameters"] = {"rope_type": scaling.get("type", "default"), **scaling, "rope_theta": theta}
        config["rope_scaling"] = (
            scaling if scaling.get("rope_type", scaling.get("type", "default")) != "default" else None
        )
    return config


def read_object(path: Path) -> dict:
    """The JSON object in `path`."""
    if not isinstance(value := read_json(path), dict):
        raise BadInput(f"{path}: a JSON {type(value).__name__}, not an object; copy it from the base model")
    return value


def tied_head(sources: dict, config: dict) -> bool:
    """Whether a second copy of the embedding is there as `lm_head.weight`, which verl 0.7.0 saves for a tied model."""
    return bool(config.get("tie_word_embeddings") and {"lm_head.weight", "model.embed_tokens.weight"} <= set(sources))


def kept_tensors(sources: dict, config: dict) -> list:
    """The tensors to write: all but that second copy, which readers must not find."""
    tied = tied_head(sources, config)
    return [s for s in sources.values() if not (tied and s.name == "lm_head.weight")]


def check_tied(sources: dict, config: dict, path: Path) -> None:
    """BadInput when what `kept_tensors` leaves out is not the copy that config.json says it is."""
    from phase1.model.tensors import first_difference

    if not tied_head(sources, config):
        return
    head, embedding = sources["lm_head.weight"], sources["model.embed_tokens.weight"]
    if difference := first_difference(head, embedding, head.dtype):
        raise BadInput(
            f"{path}: tie_word_embeddings is true, but lm_head.weight and the embedding were trained apart "
            f"({difference}); set it to false to keep both"
        )


def expect_shapes(kept: list, want: dict[str, tuple[int, ...]], path: Path) -> None:
    """Names and shapes must be those of the model that config.json describes; BadInput names the first that is not."""
    have = {s.name: s for s in kept}
    for name, source in have.items():
        if name not in want:
            raise BadInput(
                f"{source.where}: holds {name}, which the model of {path} has not; the shards are of another model"
            )
        if source.shape != want[name]:
            raise BadInput(
                f"{source.where}: {name} is {source.shape}, {path} says {want[name]}; the shards are of another model"
            )
    if missing := sorted(set(want) - set(have)):
        raise BadInput(
            f"{kept[0].where}: lacks {missing[0]}, which the model of {path} needs; the shards are of another model"
        )


def check_steps(paths: list[Path], allow: bool) -> None:
    """Shards of different steps cannot be told by their weights, but each rank saves its schedule's step beside
    them."""
    import numpy as np
    import torch

    steps: dict[int, Path] = {}
    rebuild = np.empty(0).__reduce__()[0]  # the state of numpy's generator; numpy 1 and 2 name its function otherwise
    allowed = [
        *((rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.uint32)),
    ]
    for path in paths:
        extra = path.with_name(path.name.replace("model_world", "extra_state_world"))
        try:
            with torch.serialization.safe_globals(allowed):
                step = torch.load(extra, map_location="cpu", weights_only=True)["lr_scheduler"]["last_epoch"]
        except Exception:  # not saved (save_contents without extra), or of a form unknown here: nothing to compare
            continue
        steps.setdefault(int(step), extra)
    named = re.search(r"global_step_(\d+)$", str(paths[0].parent.resolve()))
    if len(steps) > 1 and not allow:
        (a, _), (b, second) = sorted(steps.items())[:2]
        raise BadInput(
            f"{second}: of step {b}, others are of step {a}; copy all ranks from one save (or --allow_step_mismatch)"
        )
    if len(steps) == 1 and named and int(named[1]) not in steps and not allow:
        ((step, extra),) = steps.items()
        raise BadInput(
            f"{extra}: of step {step} in a folder named {named[0]}; copy all ranks from one save (or "
            "--allow_step_mismatch)"
        )


# --------------------------------------------------------------------------------------------------------- the work
def write_model(
    args: argparse.Namespace,
    output: Path,
    kept: list,
    sources: dict,
    small: dict[str, Path],
    config: dict,
    origin: Path,
    paths: list[Path],
    checks: list[InBackground],
) -> tuple[int, list[str]]:
    """Write, verify and publish; (bytes of weights, differences found). With differences, or a failed check, nothing is
    published."""
    import torch
    from tqdm import tqdm

    from phase1.model import tensors as weights

    dtype = getattr(torch, args.dtype)
    size = sum(s.numel * weights.cast(s.dtype, dtype).itemsize for s in kept)
    output.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(output.parent).free) < size * 1.01 + (64 << 20):
        raise BadInput(
            f"{output.parent}: {free / 1e9:.1f} GB free, the model needs {size / 1e9:.1f} GB; free some space"
        )
    try:
        with replacing(output) as temp:
            temp.mkdir()
            for name, path in small.items():
                shutil.copyfile(path, temp / name)
            write_json(temp / "config.json", config)
            with tqdm(total=size, unit="B", unit_scale=True, desc="weights", disable=None) as bar:

                def progress(n: int) -> None:  # from the writing threads
                    bar.update(n)
                    for check in checks:
                        check.raise_if_failed()

                weights.write_safetensors(temp, kept, dtype, shard_bytes(args.max_shard_size), progress)
            for check in checks:
                check.result()
            write_json(
                temp / "conversion.json",
                {
                    "status": "complete",
                    "from": [str(p) for p in paths] or [str(origin)],
                    "tensors": len(kept),
                    "bytes": size,
                    "dtype": args.dtype,
                    "verified": args.verify,
                    "stamp": run_stamp(vars(args)),
                },
            )
            if args.verify and (differences := verify(weights.read_safetensors(temp), kept, sources, origin, dtype)):
                raise _Different(differences)
    except _Different as e:
        return size, e.args[0]
    return size, []


class _Different(Exception):
    """Leaves `replacing` without publishing."""


def verify(written: dict, kept: list, sources: dict, origin: Path, dtype) -> list[str]:
    """Lines for every tensor that differs from its source or from the checkpoint's own huggingface/ cast to `dtype`."""
    from tqdm import tqdm

    from phase1.model import tensors as weights

    try:
        saved = weights.read_safetensors(origin) if origin.is_dir() else {}
    except BadInput as e:  # broken, which may be why the shards are converted
        print(f"warning: compared with the shards alone, since {e}", file=sys.stderr)
        saved = {}
    found = [f"{name}: not written" for name in sorted({s.name for s in kept} - set(written))]
    for name, mine in tqdm(written.items(), unit=" tensors", desc="verify", disable=None):
        against = [("the shards", sources.get(name)), ("huggingface/", saved.get(name))]
        for label, other in ((label, other) for label, other in against if other):
            if difference := weights.first_difference(mine, other, dtype):
                found.append(f"{difference} from {label}")
    if saved:
        found += [f"{name}: huggingface/ holds it, the shards do not" for name in sorted(set(saved) - set(sources))]
    return found


def shard_bytes(text: str) -> int:
    """`5GB` -> 5 * 10^9, as transformers reads it; `512MiB` -> 512 * 2^20."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B)?", text.strip().upper())
    if not match or not float(match[1]):
        raise BadInput(f"--max_shard_size {text}: not a size; write 5GB or 512MiB")
    return int(float(match[1]) * SIZES[match[2] or ""])


if __name__ == "__main__":
    run_script(main)
