"""Let verl 0.7.0 be imported without qwen_vl_utils, which it imports for images alone (verl#4958)."""

from __future__ import annotations

import importlib.util
import sys
import types

NAME = "qwen_vl_utils"


def stand_in_for_qwen_vl_utils() -> bool:
    """Put an empty qwen_vl_utils in place where the real one is missing.

    Source: verl/utils/dataset/vision_utils.py imports it at its top; an image in the data then says what to install.

    Returns:
        Whether a stand-in was put into sys.modules.
    """
    if NAME in sys.modules or importlib.util.find_spec(NAME) is not None:
        return False
    module = types.ModuleType(NAME)
    module.__dict__.update(fetch_image=_absent, fetch_video=_absent, process_vision_info=_absent)
    sys.modules[NAME] = module
    return True


def _absent(*args: object, **kwargs: object) -> None:
    raise ImportError("images in the training data need qwen_vl_utils: pip install qwen-vl-utils")
