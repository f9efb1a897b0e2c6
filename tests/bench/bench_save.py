"""How long does a save stop training: verl's own, the same through pinned memory, and BACKGROUND_SAVE=1?

    .venv-latest/bin/python tests/bench/bench_save.py --folder DIR            # 2 minutes, 5 GB in /dev/shm and in DIR
    python -m torch.distributed.run --nproc_per_node 4 tests/bench/bench_save.py --layers 28 --hidden 3584 --folder DIR

verl's CheckpointHandler and FSDPCheckpointManager on an FSDP2 model of Qwen2's form with Adam's moments, in turn: one
save as verl does it, one directly as every run of TRAINER=engine does it (torch's own pinned memory for copies from the
GPU; no difference on a CPU), one through memory. Training stands still until `save_checkpoint` returns. A checkpoint
is whole once its files are synced to the disk and the tracker names it; the first two ways are synced by this
benchmark, which verl itself does not do, and which is not counted as standstill. Written checkpoints are removed at
once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "patches")]
os.environ["VERL_USE_EXTERNAL_MODULES"] = "phase1_engine_hook"  # a CPU platform where there is no GPU
for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("MASTER_PORT", "29511")

import torch  # noqa: E402
import torch.utils.serialization  # noqa: E402
import verl  # noqa: E402, F401
from phase1_background_save import save_in_background  # noqa: E402
from phase1_resume import ResumableDataLoader  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402
from verl.utils.checkpoint.checkpoint_handler import CheckpointHandler  # noqa: E402
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager  # noqa: E402

from phase1.train.saving import failure_of, open_lock, staging_folder, take_lock  # noqa: E402

WAYS = ("verl's own", "directly", "through memory")
CONTENTS = ["model", "optimizer", "extra", "hf_model"]


class Engine:
    """What CheckpointHandler asks of verl's engine, around a model with Adam's moments."""

    def __init__(self, layers: int, hidden: int) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        config = Qwen2Config(
            vocab_size=152064 if hidden >= 3584 else 32000,
            hidden_size=hidden,
            intermediate_size=hidden * 37 // 7,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 128,
            num_key_value_heads=max(hidden // 896, 1),
            tie_word_embeddings=False,
        )
        config.architectures = ["Qwen2ForCausalLM"]
        with torch.device("meta"):
            self.module = Qwen2ForCausalLM(config)
        for layer in self.module.model.layers:
            fully_shard(layer)
        fully_shard(self.module)
        self.module.to_empty(device=device)
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-5)
        for p in self.module.parameters():
            torch.nn.init.normal_(p, std=0.02)
            p.grad = torch.zeros_like(p)
        optimizer.step()  # makes the moments
        optimizer.zero_grad()
        self.parameters = sum(p.numel() for p in self.module.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        self.checkpoint_manager = FSDPCheckpointManager(
            self.module, optimizer, scheduler, checkpoint_config={"save_contents": CONTENTS}
        )

    def save_checkpoint(self, local_path: str, global_step: int, max_ckpt_to_keep: int | None) -> None:
        self.checkpoint_manager.save_checkpoint(local_path, None, global_step, max_ckpt_to_keep)
        torch.distributed.barrier()

    def is_mp_src_rank_with_outputs(self) -> bool:
        return True

    def get_data_parallel_rank(self) -> int:
        return torch.distributed.get_rank()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="on the disk to measure; ckpt/ in it is removed")
    parser.add_argument("--rounds", type=int, default=3, help="saves of each kind")
    parser.add_argument("--layers", type=int, default=12, help="decoder layers (7B: 28)")
    parser.add_argument("--hidden", type=int, default=1024, help="width (7B: 3584)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="which to time (default: all)")
    args = parser.parse_args()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    first = torch.distributed.get_rank() == 0
    ckpt_dir = args.folder / "ckpt"
    if first:
        shutil.rmtree(ckpt_dir, ignore_errors=True)
        ckpt_dir.mkdir(parents=True)
    engine = Engine(args.layers, args.hidden)
    handler = CheckpointHandler(engine, ResumableDataLoader(range(8)), default_local_dir=str(ckpt_dir))
    directly = CheckpointHandler.save_checkpoint
    save_in_background(staging_folder(ckpt_dir))
    in_background = CheckpointHandler.save_checkpoint
    ways = dict(zip(WAYS, [(directly, False), (directly, True), (in_background, True)], strict=True))
    rows: list[tuple[str, float, float]] = []
    size = 0
    for _ in range(args.rounds):
        for name in args.ways:
            save, pinned = ways[name]
            torch.utils.serialization.config.save.use_pinned_memory_for_d2h = pinned
            step = len(rows) + 1
            began = time.perf_counter()
            save(handler, step)
            stood = time.perf_counter() - began
            if first:
                if save is directly:
                    os.sync()
                else:
                    lock = open_lock(ckpt_dir)
                    take_lock(lock, 3600)
                    os.close(lock)
                    assert not failure_of(staging_folder(ckpt_dir)), failure_of(staging_folder(ckpt_dir))
                whole = time.perf_counter() - began
                saved = ckpt_dir / f"global_step_{step}"
                size = sum(p.stat().st_size for p in saved.rglob("*") if p.is_file())
                rows.append((name, stood, whole))
                shutil.rmtree(saved)
                print(f"{name}: training stood still {stood:.1f} s, whole on the disk after {whole:.1f} s", flush=True)
            else:
                rows.append((name, 0.0, 0.0))
            torch.distributed.barrier()
    if first:
        ranks = torch.distributed.get_world_size()
        print(f"\n{engine.parameters / 1e6:,.0f} M parameters, {size / 1e9:.2f} GB a checkpoint, {ranks} process(es)\n")
        print("| save | training stands still, s | whole on the disk after, s |\n|---|---|---|")
        for name in args.ways:
            stood, whole = ([row[i] for row in rows if row[0] == name] for i in (1, 2))
            print(f"| {name} | {min(stood):.1f} to {max(stood):.1f} | {min(whole):.1f} to {max(whole):.1f} |")
        shutil.rmtree(ckpt_dir)
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
