"""Name and shape of every tensor of the model that a config.json describes."""

from __future__ import annotations

from pathlib import Path

from phase1.files import BadInput

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


def model_shapes(config: dict, path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name, without the head of a tied model. BadInput names `path` when there is no such architecture.

    Qwen2, the family that this phase trains, is written out below: to ask transformers takes 4 s of CPU, as long as
    gigabytes of weights. Every other family is asked of transformers.
    """
    written_out = config.get("model_type") == "qwen2" and all(
        type(config.get(k)) is int and config[k] > 0 for k in _SIZES
    )
    want = qwen2_shapes(config) if written_out else shapes_of_transformers(config, path)
    if config.get("tie_word_embeddings"):
        want.pop("lm_head.weight", None)
    return want


def qwen2_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """transformers' Qwen2ForCausalLM, models/qwen2/modeling_qwen2.py; a test holds both against each other."""
    tokens, hidden, inner, layers, heads, kv_heads = (config[k] for k in _SIZES)
    head = config.get("head_dim") or hidden // heads
    layer = {
        "self_attn.q_proj.weight": (heads * head, hidden),
        "self_attn.q_proj.bias": (heads * head,),
        "self_attn.k_proj.weight": (kv_heads * head, hidden),
        "self_attn.k_proj.bias": (kv_heads * head,),
        "self_attn.v_proj.weight": (kv_heads * head, hidden),
        "self_attn.v_proj.bias": (kv_heads * head,),
        "self_attn.o_proj.weight": (hidden, heads * head),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    return {
        "model.embed_tokens.weight": (tokens, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (tokens, hidden),
        **{f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()},
    }


def shapes_of_transformers(config: dict, path: Path) -> dict[str, tuple[int, ...]]:
    """What transformers would build, without its memory. BadInput when it cannot."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    # Without its dtype: transformers would make that torch's default while it builds, for every thread.
    shape_only = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype")}
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape_only))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadInput(
            f"{path}: transformers cannot build this architecture ({(str(e).splitlines() or [type(e).__name__])[0]})"
        ) from None
    return {n: tuple(t.shape) for n, t in model.state_dict().items()}
