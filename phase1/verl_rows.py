"""See training rows as verl will: through its own MultiTurnSFTDataset, with its loss mask (verl 0.7.0 and later)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from phase1.files import BadInput

SAMPLES = 64


def load_dataset(parquet: Path, model: Path, max_length: int):
    """verl's data set over a Parquet file, configured as the training command does; None where verl is not installed."""
    if importlib.util.find_spec("verl") is None:
        return None
    with images_unwanted():
        from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
    from transformers import AutoTokenizer

    config = {"max_length": max_length, "truncation": "error", "messages_key": "messages"}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its length
        return MultiTurnSFTDataset(str(parquet), AutoTokenizer.from_pretrained(str(model)), config)


@contextlib.contextmanager
def images_unwanted() -> Iterator[None]:
    """Let verl 0.7.0 be imported where qwen_vl_utils is not installed: it imports it for images, at module top (verl#4958)."""
    name = "qwen_vl_utils"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        yield
        return
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].fetch_image = sys.modules[name].fetch_video = None
    try:
        yield
    finally:
        del sys.modules[name]


def prompt_and_loss(dataset, index: int) -> tuple[list[int], list[int]]:
    """Token ids of a row before its first trained token, and the trained token ids; padding is left out."""
    row = dataset[index]
    real = row["attention_mask"].bool()
    ids, mask = row["input_ids"][real].tolist(), row["loss_mask"][real].tolist()
    start = mask.index(1) if 1 in mask else len(ids)
    return ids[:start], [token for token, trained in zip(ids, mask, strict=True) if trained]


def check_rows(parquet: Path, model: Path, max_length: int) -> dict | str:
    """Compare the trained tokens of rows with their answers: all of up to SAMPLES rows, spread over the file.

    BadInput for a row without trained tokens, or where verl would train on anything but the answer and its end.
    """
    dataset = load_dataset(parquet, model, max_length)
    if dataset is None:
        return "skipped: verl is not installed"
    tokenizer = dataset.tokenizer
    rows = range(0, len(dataset), max(1, len(dataset) // SAMPLES))
    for index in rows:
        try:
            _, trained = prompt_and_loss(dataset, index)
        except ValueError as e:  # verl's word for a row over max_length; only where the length filter was left out
            raise BadInput(f"{parquet}: row {index}: {e}; leave the length filter on, or raise --max_length") from None
        wanted = dataset.messages[index][-1]["content"] + tokenizer.eos_token
        if not trained:
            raise BadInput(f"{parquet}: row {index} has no trained token; its template or its length is wrong")
        if tokenizer.decode(trained).rstrip("\n") != wanted:
            raise BadInput(f"{parquet}: row {index}: verl would train on {tokenizer.decode(trained)[:80]!r}, not on its answer; "
                           f"the chat template of {model} is not ChatML")  # fmt: skip
    return {"rows": len(dataset), "compared": len(rows)}
