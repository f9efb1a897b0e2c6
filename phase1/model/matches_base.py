"""Whether a checkpoint's config.json is still that of the model that training started from, and rope is read alike."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from pydantic import JsonValue

from phase1.model.small_files import rope_theta

AS_THE_BASE = ("model_type", "rms_norm_eps", "hidden_act", "num_attention_heads")  # fields that training never changes


def config_failures(config: Mapping[str, JsonValue], base: Mapping[str, JsonValue]) -> list[str]:
    """Fields that contradict each other, or the base model's.

    Args:
        config: what config.json holds.
        base: the base model's; empty where there is none.
    """
    theta, inner = rope_theta(config)
    failures = []
    if theta is not None and inner is not None and inner != theta:
        failures.append(f"rope_theta {theta:g} but rope_parameters.rope_theta {inner:g}")
    base_theta = rope_theta(base).flat or rope_theta(base).nested
    own_theta = inner if theta is None else theta
    if base_theta is not None and own_theta is not None and own_theta != base_theta:
        failures.append(f"rope_theta {own_theta:g}, the base model's is {base_theta:g}")
    for key in AS_THE_BASE:
        if key in base and config.get(key) != base[key]:
            failures.append(f"{key} {config.get(key)}, the base model's is {base[key]}")
    return failures


def rope_lost(config: Mapping[str, JsonValue]) -> str:
    """What readers before transformers 5 make of a rope_theta that only transformers 5's form holds; empty where both
    read the same."""
    theta, inner = rope_theta(config)
    if theta is not None or inner is None:
        return ""
    return (
        f"no rope_theta: transformers 4 and vLLM read 10000 instead of {inner:g}; convert_fsdp_to_hf.py --slim writes "
        "both forms"
    )


def reads_old_form_alone() -> bool:
    """Whether this Python's transformers is one that knows `rope_theta` alone."""
    return int(version("transformers").partition(".")[0]) < 5
