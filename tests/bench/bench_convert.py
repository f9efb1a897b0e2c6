"""Memory and time of convert_fsdp_to_hf.py beside verl's own merger and a plain copy of the same bytes.

    python tests/bench/bench_convert.py --base_model BASE --work_dir /tmp/bench            (1.5B, 8 ranks: 25 GB of disk)
    python tests/bench/bench_convert.py --base_model BASE --work_dir /tmp/bench --layers 4 (a small one)

BASE gives tokenizer files only (data/samples/build_model.py makes one). Writes synthetic fp32 shards of a Qwen2.5-1.5B
shape as verl 0.7.0 does (DTensors, a second lm_head for the tied model), then runs each contender in a process of its own.
Peak memory is the kernel's ru_maxrss of that process, mapped pages included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base_model", required=True, help="HF directory that gives the tokenizer")
    p.add_argument("--work_dir", required=True, help="scratch folder; its contents are removed at the end")
    p.add_argument("--layers", type=int, default=28, help="default: 28, the 1.5B model")
    p.add_argument("--hidden", type=int, default=1536, help="default: 1536")
    p.add_argument("--ranks", type=int, default=8, help="default: 8")
    p.add_argument("--write_shards", metavar="STEP_DIR", help=argparse.SUPPRESS)
    return p.parse_args()


def main() -> None:
    args = parse_args()
    step = Path(args.work_dir) / "global_step_1"
    if args.write_shards:
        write_shards(args, Path(args.write_shards))
        return
    again = [sys.executable, __file__, *sys.argv[1:], "--write_shards", str(step)]
    subprocess.run(again, check=True)
    size = sum(p.stat().st_size for p in step.glob("*.pt"))
    out = Path(args.work_dir)
    runs = {
        "cp of the shards, synced": ["sh", "-c", f"mkdir {out}/copy && cp {step}/*.pt {out}/copy && sync {out}/copy/*"],
        "convert_fsdp_to_hf.py": [sys.executable, str(ROOT / "convert_fsdp_to_hf.py"), "--ckpt_dir", str(step), "--output_dir", str(out / "ours")],
        "verl.model_merger": [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(step),
                              "--target_dir", str(out / "verl")],
    }  # fmt: skip
    print(f"{args.ranks} ranks, {size / 1e9:.2f} GB of fp32 shards")
    print(f"{'':28}{'seconds':>9}{'GB/s':>7}{'peak MiB':>10}")
    for name, command in runs.items():
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        error = child.stderr.read().decode()[-400:]
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        failed = f"  failed: {error}" if status else ""
        print(f"{name:28}{seconds:9.1f}{size / 1e9 / seconds:7.2f}{usage.ru_maxrss / 1024:10.0f}{failed}", flush=True)
    print("bit-equal:", equal(out / "ours", out / "verl"))
    for folder in ("copy", "ours", "verl", "global_step_1"):
        shutil.rmtree(out / folder, ignore_errors=True)


def write_shards(args: argparse.Namespace, step: Path) -> None:
    """The shards, one rank after the other in forked processes, under a process group that only pretends."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import Qwen2Config, Qwen2ForCausalLM

    (step / "huggingface").mkdir(parents=True)
    config = Qwen2Config(vocab_size=151936, hidden_size=args.hidden, intermediate_size=8960 * args.hidden // 1536, num_hidden_layers=args.layers,
                         num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True, rope_theta=1e6,
                         architectures=["Qwen2ForCausalLM"], dtype="bfloat16")  # fmt: skip
    for path in Path(args.base_model).iterdir():
        if path.name != "config.json" and not path.name.endswith(".safetensors"):
            shutil.copy(path, step / "huggingface")
    config.save_pretrained(step / "huggingface")
    (step / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": args.ranks}))
    with torch.device("meta"):
        shapes = {n: t.shape for n, t in Qwen2ForCausalLM(config).state_dict().items()}
    for rank in range(args.ranks):
        if (pid := os.fork()) == 0:
            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=args.ranks)
            mesh = init_device_mesh("cpu", (args.ranks,), mesh_dim_names=("fsdp",))
            torch.manual_seed(rank)
            state = {}
            for name, shape in shapes.items():
                rows = -(-shape[0] // args.ranks)
                local = torch.empty(max(0, min(rows, shape[0] - rank * rows)), *shape[1:]).normal_(std=0.02)
                state[name] = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape,
                                                 stride=torch.empty(shape, device="meta").stride())  # fmt: skip
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
            state = {n: t if n != "lm_head.weight" else DTensor.from_local(t.to_local().clone(), mesh, [Shard(0)], run_check=False, shape=t.shape,
                                                                           stride=t.stride()) for n, t in state.items()}  # fmt: skip
            torch.save(state, step / f"model_world_size_{args.ranks}_rank_{rank}.pt")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def equal(ours: Path, theirs: Path) -> bool:
    """Whether both hold the same tensors, bit for bit; the tied head that the merger may write is not compared."""
    sys.path.insert(0, str(ROOT))
    import torch

    from phase1.shards import first_difference, read_safetensors

    a, b = read_safetensors(ours), read_safetensors(theirs)
    b.pop("lm_head.weight", None)
    return set(a) == set(b) and all(first_difference(a[n], b[n], torch.bfloat16) is None for n in a)


if __name__ == "__main__":
    main()
