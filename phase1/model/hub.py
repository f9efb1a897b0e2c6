"""A model's directory by its name: a path, or a model of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from phase1.files import BadInput

SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]  # everything but the weights


def how_to_get(name: str) -> str:
    """What to do where no model `name` is on this machine, as the end of a message."""
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return f"fetch it: hf download {name} --local-dir {name.split('/')[1]}, and name that folder"
    return "name a Hugging Face directory (hf download NAME --local-dir DIR fetches one)"


def cached_model(name: str) -> Path | None:
    """The directory `name`, or the snapshot of the Hub's model of that name in the local cache; None without either."""
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith(("/", ".")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def refuse_no_download(name: str) -> None:
    """Ask the Hub once, for 10 s at most, whether it would give a model; what loads one asks for minutes.

    Raises:
        BadInput: it cannot be reached, has no model `name`, or does not give it to this user.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=10)
    except Exception as e:  # as below
        status = getattr(getattr(e, "response", None), "status_code", None)
        if status is None:
            why = f"the Hugging Face Hub does not answer ({type(e).__name__}); check the network, or"
        elif status in (401, 403, 404):
            why = f"the Hugging Face Hub does not give it ({status}); check its name and `hf auth login`, or"
        else:
            return  # the Hub is there; it may answer the next time
        raise BadInput(f"{name} is not on this machine, and {why} {how_to_get(name)}") from None


def local_model(name: str, *, download_small_files: bool = False) -> Path:
    """The directory `name`, or where the local cache holds the Hub's model of that name.

    Args:
        name: a path, or `owner/model`.
        download_small_files: get config and tokenizer from the Hub where they are not cached; never the weights.

    Raises:
        BadInput: it is neither a directory nor a model that the cache (or the Hub) has.
    """
    found = cached_model(name)
    if found and (Path(name).is_dir() or not download_small_files):
        return found
    if not download_small_files:
        raise BadInput(f"{name}: neither a directory nor a Hub model that is here; {how_to_get(name)}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=SMALL_FILES))
    except Exception as e:  # no network, no such model, no access: huggingface_hub has a class for each
        raise BadInput(
            f"{name}: neither a directory nor a Hub model that is here ({type(e).__name__}); check name and network, "
            f"or {how_to_get(name)}"
        ) from None
