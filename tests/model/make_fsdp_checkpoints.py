"""Write checkpoints as verl writes them, and verl's own merge of each; run by tests/model/conftest.py, not a test
itself.

    python tests/model/make_fsdp_checkpoints.py BASE_MODEL OUTPUT_DIR

Runs under verl 0.7.0 and 0.9.1 alike. Real FSDP2, and FSDP1 once, over gloo: OUTPUT/{name}/global_step_5 from
FSDPCheckpointManager.save_checkpoint, OUTPUT/{name}/merged from FSDPModelMerger. The ranks are forked from one parent,
since importing verl takes longer than all the rest.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from omegaconf import OmegaConf
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.utils.fsdp_utils import apply_fsdp2, get_shard_placement_fn

# world size -> variants: (name, tied, mesh, how: rows are sharded, or the first dimension that divides, or FSDP1)
VARIANTS = {
    1: [("w1_tied", True, (1,), "rows")],
    2: [("w2_tied", True, (2,), "rows"), ("w2_untied", False, (2,), "rows"), ("w2_fsdp1", False, (2,), "fsdp1")],
    4: [
        ("w4_tied", True, (4,), "rows"),
        ("w4_untied", False, (4,), "rows"),
        ("w4_columns", False, (4,), "columns"),
        ("w4_hsdp", True, (2, 2), "rows"),
    ],
    8: [("w8_tied", True, (8,), "rows")],
}


def save(rank: int, world_size: int, base: str, output: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{output}/rendezvous_{world_size}", rank=rank, world_size=world_size
    )
    try:
        for name, tied, shape, how in VARIANTS[world_size]:
            mesh = init_device_mesh("cpu", shape, mesh_dim_names=("ddp", "fsdp")[-len(shape) :])
            torch.manual_seed(7)
            config = AutoConfig.from_pretrained(base)
            config.update(
                {
                    "tie_word_embeddings": tied,
                    "hidden_size": 48,
                    "intermediate_size": 80,
                    "num_hidden_layers": 2,
                    "vocab_size": 1031,
                    "layer_types": ["full_attention"] * 2,
                }
            )
            config.architectures = ["Qwen2ForCausalLM"]  # 1031 rows are prime: pieces of unequal size
            model = Qwen2ForCausalLM(config)
            for p in model.parameters():  # fresh norms and biases are constant: a mixed-up order would not show
                torch.nn.init.normal_(p, std=0.02)
            kwargs = {"mesh": mesh, "reshard_after_forward": True}
            if how == "columns":
                kwargs["shard_placement_fn"] = get_shard_placement_fn(fsdp_size=shape[-1])
            if how == "fsdp1":
                model = FSDP(model, device_mesh=mesh, use_orig_params=False, device_id=torch.device("cpu"))
            else:
                apply_fsdp2(model, kwargs, OmegaConf.create({}))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
            schedule.last_epoch = 5
            whole = ["hf_model"] * (
                how != "fsdp1"
            )  # gathering an FSDP1 model fails on a CPU (torch: storage of size 0)
            contents = OmegaConf.create({"save_contents": ["model", "extra", *whole], "load_contents": ["model"]})
            manager = FSDPCheckpointManager(
                model,
                optimizer,
                schedule,
                processing_class=AutoTokenizer.from_pretrained(base),
                checkpoint_config=contents,
            )
            manager.save_checkpoint(f"{output}/{name}/global_step_5", global_step=5)
    except BaseException:
        __import__("traceback").print_exc()
        os._exit(1)  # the others wait in a barrier for this rank
    dist.destroy_process_group()


def main() -> None:
    base, output = sys.argv[1:]
    Path(output).mkdir(parents=True, exist_ok=True)
    for world_size in VARIANTS:
        mp.start_processes(save, args=(world_size, base, output), nprocs=world_size, start_method="fork")
    for variants in VARIANTS.values():  # after all forks: they must not find torch's threads in their parent
        for name, *_ in variants:
            step = f"{output}/{name}/global_step_5"
            merger = FSDPModelMerger(
                ModelMergerConfig(
                    operation="merge",
                    backend="fsdp",
                    local_dir=step,
                    target_dir=f"{output}/{name}/merged",
                    hf_model_config_path=f"{step}/huggingface",
                )
            )
            merger.merge_and_save()


if __name__ == "__main__":
    main()
