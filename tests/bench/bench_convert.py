"""Memory and time of convert_fsdp_to_hf.py beside verl's own merger and beside copying the same bytes.

    python tests/bench/bench_convert.py --base_model BASE --work_dir /tmp/bench    (1.5B, 8 ranks: 15 GB of disk)
    python tests/bench/bench_convert.py --base_model BASE --work_dir /tmp/bench --layers 4 (a small one)

BASE gives tokenizer files only (data/samples/build_model.py makes one). Writes synthetic fp32 shards of a Qwen2.5-1.5B
shape as verl 0.7.0 does (DTensors, a second lm_head for the tied model), then runs each contender in a process of its
own.

"The same bytes": a process that reads every byte of the shards, writes as many bytes as the bf16 model has and syncs
them, 8 MiB at a time, with nothing imported; the least that any conversion can do. Cold: the shards are dropped from
the page cache first, as after a night of training; warm: they lie in it. Contenders take turns, the table gives
medians. Peak memory is the kernel's ru_maxrss of that process, mapped pages included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READ_AND_WRITE = """
import os, sys
out, left, shards = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), int(sys.argv[2]), sys.argv[3:]
buffer = memoryview(bytearray(8 << 20))
for shard in shards:
    with open(shard, "rb", buffering=0) as f:
        while n := f.readinto(buffer):
            left -= os.write(out, buffer[: min(n // 2, left)])
while left > 0:
    left -= os.write(out, buffer[: min(len(buffer), left)])
os.fsync(out)
"""
SEVEN_B = 7_615_616_512  # parameters of Qwen2.5-Coder-7B, untied


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base_model", required=True, help="HF directory that gives the tokenizer")
    p.add_argument("--work_dir", required=True, help="scratch folder; shards that are there are used again")
    p.add_argument("--layers", type=int, default=28, help="default: 28, the 1.5B model")
    p.add_argument("--hidden", type=int, default=1536, help="default: 1536")
    p.add_argument("--ranks", type=int, default=8, help="default: 8")
    p.add_argument("--rounds", type=int, default=3, help="default: 3")
    p.add_argument("--keep", action="store_true", help="leave the shards for another run")
    p.add_argument("--write_shards", metavar="STEP_DIR", help=argparse.SUPPRESS)
    return p.parse_args()


def main() -> None:
    args = parse_args()
    out = Path(args.work_dir)
    step = out / "global_step_1"
    if args.write_shards:
        write_shards(args, Path(args.write_shards))
        return
    if not step.exists():
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--write_shards", str(step)], check=True)
    shards = sorted(map(str, step.glob("*.pt")))
    size = sum(os.path.getsize(s) for s in shards)
    ours = [
        sys.executable,
        str(ROOT / "convert_fsdp_to_hf.py"),
        "--ckpt_dir",
        str(step),
        "--output_dir",
        str(out / "ours"),
        "--overwrite",
    ]
    merger = [
        sys.executable,
        "-m",
        "verl.model_merger",
        "merge",
        "--backend",
        "fsdp",
        "--local_dir",
        str(step),
        "--target_dir",
        str(out / "verl"),
    ]
    *_, merged = rows = [measure("verl.model_merger", merger, out)]
    measure("convert_fsdp_to_hf.py", ours, out)  # not counted: the first run of anything here reads libraries from disk
    written = sum(p.stat().st_size for p in (out / "ours").glob("*.safetensors"))
    print("bit-equal:", equal(out / "ours", out / "verl"))
    shutil.rmtree(out / "verl")
    copy = [sys.executable, "-c", READ_AND_WRITE, str(out / "copy"), str(written), *shards]
    rows += [
        measure(f"{name}, {cache}", command, out, shards if cache == "cold" else ())
        for _ in range(args.rounds)
        for cache in ("cold", "warm")
        for name, command in (("the same bytes", copy), ("convert_fsdp_to_hf.py", ours))
    ]
    names = list(dict.fromkeys(r[0] for r in rows))
    median = {n: statistics.median(r[1] for r in rows if r[0] == n) for n in names}
    peak = {n: max(r[2] for r in rows if r[0] == n) for n in names}
    print(
        f"{args.ranks} ranks, {size / 1e9:.2f} GB of fp32 shards read, {written / 1e9:.2f} GB of bf16 written, "
        f"{args.rounds} rounds"
    )
    print(f"{'':28}{'median s':>9}{'all':>20}{'x the bytes':>13}{'peak MiB':>10}")
    for n in names:
        floor = median["the same bytes, cold" if n.endswith("cold") else "the same bytes, warm"]
        every = " ".join(f"{r[1]:.1f}" for r in rows if r[0] == n)
        print(f"{n:28}{median[n]:9.1f}{every:>20}{median[n] / floor:13.2f}{peak[n]:10.0f}")
    # An untied 7B: 4 bytes a parameter read, 2 written; what a run takes before its first byte is counted as growing,
    # too.
    factor = SEVEN_B * 4 / size
    print(
        f"7B, {SEVEN_B * 4 / 1e9:.1f} GB of shards, computed: "
        f"{median['convert_fsdp_to_hf.py, cold'] * factor:.0f} s cold, "
        f"{median['convert_fsdp_to_hf.py, warm'] * factor:.0f} s warm, still about "
        f"{peak['convert_fsdp_to_hf.py, cold']:.0f} MiB; "
        f"the merger {merged[2] * factor / 1024:.0f} GiB"
    )
    shutil.rmtree(out / "ours")
    if not args.keep:
        shutil.rmtree(step)


def measure(name: str, command: list[str], out: Path, drop: tuple | list = ()) -> tuple[str, float, float]:
    """(name, seconds, peak MiB) of one run; with the page cache of the files in `drop` emptied first."""
    for path in drop:
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (out / "copy").unlink(missing_ok=True)
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = child.stderr.read().decode()[-400:]
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{name} failed: {error}")
    (out / "copy").unlink(missing_ok=True)
    print(f"  {name}: {seconds:.1f} s, {usage.ru_maxrss / 1024:.0f} MiB", flush=True)
    return name, seconds, usage.ru_maxrss / 1024


def write_shards(args: argparse.Namespace, step: Path) -> None:
    """The shards, one rank after the other in forked processes, under a process group that only pretends."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import Qwen2Config, Qwen2ForCausalLM

    (step / "huggingface").mkdir(parents=True)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=args.hidden,
        intermediate_size=8960 * args.hidden // 1536,
        num_hidden_layers=args.layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rope_theta=1e6,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )
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
                state[name] = DTensor.from_local(
                    local,
                    mesh,
                    [Shard(0)],
                    run_check=False,
                    shape=shape,
                    stride=torch.empty(shape, device="meta").stride(),
                )
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
            state = {
                n: t
                if n != "lm_head.weight"
                else DTensor.from_local(
                    t.to_local().clone(), mesh, [Shard(0)], run_check=False, shape=t.shape, stride=t.stride()
                )
                for n, t in state.items()
            }
            torch.save(state, step / f"model_world_size_{args.ranks}_rank_{rank}.pt")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def equal(ours: Path, theirs: Path) -> bool:
    """Whether both hold the same tensors, bit for bit; the tied head that the merger may write is not compared."""
    sys.path.insert(0, str(ROOT))
    import torch

    from phase1.model.tensors import first_difference, read_safetensors

    a, b = read_safetensors(ours), read_safetensors(theirs)
    b.pop("lm_head.weight", None)
    return set(a) == set(b) and all(first_difference(a[n], b[n], torch.bfloat16) is None for n in a)


if __name__ == "__main__":
    main()
