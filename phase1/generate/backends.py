"""The backends by name, and which one `--backend auto` takes."""

from __future__ import annotations

from collections.abc import Callable

from phase1.generate import transformers_backend, vllm_backend
from phase1.generate.protocol import Generator
from phase1.generate.settings import BackendSettings

BACKENDS: dict[str, Callable[[BackendSettings], Generator]] = {
    "vllm": vllm_backend.from_settings,
    "transformers": transformers_backend.from_settings,
}


def choose_generator(settings: BackendSettings) -> Generator:
    """The generator that `settings.backend` names; for `auto` vLLM where it can be used, else transformers.

    Raises:
        BadInput: a setting is wrong, or the backend is not installed.
    """
    name = settings.backend
    if name == "auto":
        name = "vllm" if vllm_backend.is_available(settings) else "transformers"
    return BACKENDS[name](settings)
