"""LoRA adapters: how they are told from a whole model, and how they become one. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from phase1.files import BadInput

# PEFT's, and the folder in which verl's merger puts them beside the base model that it calls merged.
ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "lora_adapter/adapter_config.json",
)
# PEFT's names: the two factors of each adapter, the wrapped layer, and what it puts before every name.
_NAME = re.compile(r"(?:^|\.)(?:lora_[A-Za-z_]+|base_layer)(?:\.|$)|^base_model\.model\.")
MERGE = (
    "merge it with PEFT: PeftModel.from_pretrained(base_model, ADAPTER_DIR).merge_and_unload().save_pretrained(DIR), "
    "as in docs/05, 'LoRA'"
)


def refuse_adapter_names(names: Iterable[str], where: str) -> None:
    """Refuse tensors of which one is a LoRA adapter's, or of a model with adapters in it.

    Readers know no such names: they start the layers at random, or take the base model alone.

    Raises:
        BadInput: `where`, the tensor, and how to merge it.
    """
    for name in names:
        if _NAME.search(name):
            raise BadInput(f"{where}: holds LoRA adapters ({name}), not a whole model; {MERGE}")


def refuse_adapter_files(model: Path) -> None:
    """Refuse a model directory with an adapter in it.

    Beside weights transformers would put it onto them. From verl's lora_adapter/ nobody does: those weights are the
    base model's.

    Raises:
        BadInput: names the file, and how to merge the adapter.
    """
    for name in ADAPTER_FILES:
        if (model / name).exists():
            raise BadInput(f"{model / name}: a LoRA adapter that is not merged into the weights; {MERGE}")
