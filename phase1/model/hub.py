"""A model's directory by its name: a path, or a model of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from phase1.files import BadInput

SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]  # everything but the weights


def local_model(name: str, *, download_small_files: bool = False) -> Path:
    """The directory `name`, or where the local cache holds the Hub's model of that name.

    Args:
        name: a path, or `owner/model`.
        download_small_files: get config and tokenizer from the Hub where they are not cached; never the weights.

    Raises:
        BadInput: it is neither a directory nor a model that the cache (or the Hub) has.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download

        if download_small_files:
            return Path(snapshot_download(name, allow_patterns=SMALL_FILES))
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as e:  # not cached, no network, no such model, no access: huggingface_hub has a class for each
        fix = "check name and network" if download_small_files else "download it first"
        raise BadInput(
            f"{name}: neither a directory nor a Hub model that is here ({type(e).__name__}); {fix}"
        ) from None
