"""Name and shape of every tensor of the model that a config.json describes. Needs no torch for Qwen2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, PositiveInt, ValidationError

from phase1.files import BadInput

Shapes = dict[str, tuple[int, ...]]
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"  # most families' names


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


@dataclass(frozen=True)
class Expected:
    """The tensors that readers of a model take from its files.

    Attributes:
        needed: shape by name; readers start what is missing at random.
        optional: those that may lie in the files beside: copies that a tied model does not need.
        ignored: patterns of names that readers skip on purpose.
        prefix: of all names but the head's; readers add it where files lack it.
        unknown: why names and shapes in the files say nothing; empty where they do.
    """

    needed: Shapes
    optional: Shapes
    ignored: tuple[str, ...] = ()
    prefix: str = ""
    unknown: str = ""

    def name_of(self, stored: str) -> str:
        """The model's own name of a stored tensor: with the prefix, where only that is lacking."""
        full = f"{self.prefix}.{stored}"
        return full if self.prefix and full in self.needed | self.optional else stored

    def shape_of(self, stored: str) -> tuple[int, ...] | None:
        """The shape that a stored tensor must have; None where the model has no such tensor."""
        name = self.name_of(stored)
        return self.needed.get(name, self.optional.get(name))

    def skips(self, stored: str) -> bool:
        """Whether readers pass over a stored tensor that the model does not have."""
        return any(re.search(pattern, stored) for pattern in self.ignored)


INV_FREQ = r"rotary_emb\.inv_freq$"  # a buffer that old files hold; transformers ignores it


def expected_tensors(config: dict[str, JsonValue], path: Path) -> Expected:
    """The tensors of the model that a config describes.

    Those of Qwen2, the family that this phase trains, are written out below: to ask transformers takes 4 s of CPU, as
    long as gigabytes of weights. Every other family is asked of transformers.

    Args:
        config: what config.json holds.
        path: of that file, for the message.

    Raises:
        BadInput: transformers knows no such architecture, or its sizes make no sense.
    """
    if config.get("quantization_config"):
        return Expected({}, {}, unknown="its weights are quantised")
    try:
        shapes = qwen2_shapes(Qwen2Sizes.model_validate(config))
    except ValidationError:
        if not config.get("model_type"):
            raise BadInput(f"{path}: names no model_type; copy it from the base model") from None
        if config.get("auto_map"):
            return Expected({}, {}, unknown="it brings code of its own (auto_map)")
        return expected_by_transformers(config, path)
    tied = {HEAD: shapes.pop(HEAD)} if config.get("tie_word_embeddings") else {}
    return Expected(needed=shapes, optional=tied, ignored=(INV_FREQ,))


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
        EMBEDDING: (tokens, hidden),
        "model.norm.weight": (hidden,),
        HEAD: (tokens, hidden),
    }
    for i in range(sizes.num_hidden_layers):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def expected_by_transformers(config: dict[str, JsonValue], path: Path) -> Expected:
    """The tensors of the model that transformers would build, without building it.

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
        reason = (str(e).splitlines() or [type(e).__name__])[0][:120]  # it lists every family that it knows
        raise BadInput(
            f"{path}: transformers cannot build this architecture ({reason}); "
            "is config.json the base model's, and transformers new enough for it?"
        ) from None
    needed = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    optional = {n: needed.pop(n) for n in _copies(model) if n in needed} if model.config.tie_word_embeddings else {}
    return Expected(
        needed=needed,
        optional=optional,
        ignored=(INV_FREQ, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())),
        prefix=str(model.base_model_prefix),
        unknown="transformers renames this family's tensors while it loads them" if _renames(model) else "",
    )


def _copies(model: Any) -> list[str]:
    """The names of a model's second names of tied tensors: transformers 4 lists them, 5 maps each to its original."""
    return list(getattr(model, "_tied_weights_keys", None) or ())


def _renames(model: Any) -> bool:
    """Whether transformers loads this family's files under other names than the model's own."""
    if getattr(model, "_checkpoint_conversion_mapping", None):  # transformers 4
        return True
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    except ImportError:
        return False
    return bool(get_checkpoint_conversion_mapping(model.config.model_type))
