"""What a 7B layer costs by how much of it is recomputed: gradient checkpointing against ACTIVATION_MEMORY_BUDGET, one
GPU.

    TORCHINDUCTOR_FORCE_DISABLE_CACHES=1 python tests/bench/bench_recompute.py        # about five minutes, 20 GiB

Six decoder layers of Qwen2.5-7B's width with packed attention, as the engine trainer's hook runs them but without FSDP,
head and optimizer; forward and backward, the mean of three after two. TFLOP/s count 6 for each weight and token:
neither attention nor what is recomputed. Saved: bytes held between forward and backward, of which 4.7 KiB a token and
layer are the decoder's final norm.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch._functorch.config
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "patches"))
from phase1_kernels import transformers_attention

LAYERS, HIDDEN, KEYS, INTERMEDIATE = 6, 3584, 512, 18944
LAYER_WEIGHTS = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * INTERMEDIATE
SETTINGS = [("checkpoint", True, False, 1.0), ("checkpoint, compiled", True, True, 1.0)] + [
    (f"compiled, budget {budget:g}", False, True, budget) for budget in (0, 0.08, 0.15, 0.25, 0.4, 1)
]


def pack(tokens: int, generator: torch.Generator) -> dict:
    """Rows of BEE-like lengths, `tokens` in all, laid end to end."""
    rows: list[int] = []
    while sum(rows) < tokens:
        rows.append(int(torch.empty(1).log_normal_(6.43, 0.62, generator=generator).clamp(60, 4000)))
    rows[-1] -= sum(rows) - tokens
    ends = torch.tensor([0, *rows]).cumsum(0).to("cuda", torch.int32)
    longest = -(-max(rows) // 512) * 512
    positions = torch.cat([torch.arange(n) for n in rows]).cuda()[None]
    return {
        "input_ids": torch.randint(0, 1000, (1, tokens), device="cuda"),
        "position_ids": positions,
        "attention_mask": None,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
        "use_cache": False,
    }


def main() -> None:
    ALL_ATTENTION_FUNCTIONS.register("phase1_packed", transformers_attention)
    torch._dynamo.config.recompile_limit = 64
    torch.set_default_dtype(torch.bfloat16)
    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        use_sliding_window=False,
        attn_implementation="phase1_packed",
    )
    with torch.device("cuda"):
        model = Qwen2ForCausalLM(config).train()
    decoder, generator = model.model, torch.Generator().manual_seed(0)
    plain = [layer.forward for layer in decoder.layers]
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    for name, checkpointing, compiled, budget in SETTINGS:
        torch._dynamo.reset()
        torch._functorch.config.activation_memory_budget = budget
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()
        for layer, forward in zip(decoder.layers, plain, strict=True):
            layer.forward = torch.compile(forward, dynamic=True) if compiled else forward
        print(f"{name:22}", end="", flush=True)
        for tokens in (12288, 12160, 8192):
            inputs, started = pack(tokens, generator), 0.0
            for repeat in range(5):
                if repeat == 2:
                    torch.cuda.synchronize()
                    started = time.time()
                before = torch.cuda.memory_allocated()
                hidden = decoder(**inputs)[0]
                saved = torch.cuda.memory_allocated() - before
                hidden.backward(torch.ones_like(hidden) * 1e-3)
                del hidden
            torch.cuda.synchronize()
            seconds = (time.time() - started) / 3
            rate = 6 * LAYERS * LAYER_WEIGHTS * tokens / seconds / 1e12
            print(
                (
                    f" | {tokens} tokens: {rate:4.0f} TFLOP/s, {saved / LAYERS / tokens / 1024:5.1f} KiB saved a "
                    "token and layer"
                ),
                end="",
                flush=True,
            )
        print(flush=True)


if __name__ == "__main__":
    main()
