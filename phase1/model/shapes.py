"""Name and shape of every tensor of the model that a config.json describes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, PositiveInt, ValidationError

from phase1.files import BadInput

Shapes = dict[str, tuple[int, ...]]


class Qwen2Sizes(BaseModel):
    """What of a Qwen2 config.json decides the shapes."""

    model_config = ConfigDict(strict=True, frozen=True, protected_namespaces=())

    model_type: Literal["qwen2"]
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt | None = None


def model_shapes(config: dict[str, JsonValue], path: Path) -> Shapes:
    """Shapes by name, without the head of a tied model.

    Those of Qwen2, the family that this phase trains, are written out below: to ask transformers takes 4 s of CPU, as
    long as gigabytes of weights. Every other family is asked of transformers.

    Args:
        config: what config.json holds.
        path: of that file, for the message.

    Raises:
        BadInput: transformers knows no such architecture, or its sizes make no sense.
    """
    try:
        want = qwen2_shapes(Qwen2Sizes.model_validate(config))
    except ValidationError:
        want = shapes_of_transformers(config, path)
    if config.get("tie_word_embeddings"):
        want.pop("lm_head.weight", None)
    return want


def qwen2_shapes(sizes: Qwen2Sizes) -> Shapes:
    """The shapes of transformers' Qwen2ForCausalLM (models/qwen2/modeling_qwen2.py); a test compares both."""
    tokens, hidden, inner = sizes.vocab_size, sizes.hidden_size, sizes.intermediate_size
    heads, kv_heads = sizes.num_attention_heads, sizes.num_key_value_heads
    head = sizes.head_dim or hidden // heads
    layer: Shapes = {
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
    shapes: Shapes = {
        "model.embed_tokens.weight": (tokens, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (tokens, hidden),
    }
    for i in range(sizes.num_hidden_layers):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def shapes_of_transformers(config: dict[str, JsonValue], path: Path) -> Shapes:
    """The shapes of the model that transformers would build, without building it.

    Raises:
        BadInput: it cannot; `path` is named.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    # Without its dtype: transformers would make that torch's default while it builds, for every thread.
    shape_only = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype")}
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape_only))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise BadInput(f"{path}: transformers cannot build this architecture ({reason})") from None
    return {n: tuple(t.shape) for n, t in model.state_dict().items()}
