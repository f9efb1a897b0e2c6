"""See training rows as verl will: through its own MultiTurnSFTDataset, with its loss mask (verl 0.7.0 and later)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from phase1.files import BadInput


def check_rows(parquet: Path, model: Path, max_length: int, count: int) -> dict | str:
    """Compare the trained tokens of `count` rows, spread over the file, with their answers; 0 = of every row.

    BadInput for a row without trained tokens, or where verl would train on anything but the answer and its end.
    """
    if not verl_is_installed():
        return "skipped: verl is not installed"
    total = pq.ParquetFile(parquet).metadata.num_rows
    rows = spread(total, count)
    dataset = load_some(parquet, rows, model, max_length)
    tokenizer = dataset.tokenizer
    for index, row in enumerate(rows):
        try:
            _, trained = prompt_and_loss(dataset, index)
        except ValueError as e:  # verl's word for a row over max_length; only where the length filter was left out
            raise BadInput(f"{parquet}: row {row}: {e}; leave the length filter on, or raise --max_length") from None
        wanted = dataset.messages[index][-1]["content"] + tokenizer.eos_token
        if not trained:
            raise BadInput(f"{parquet}: row {row} has no trained token; its template or its length is wrong")
        if tokenizer.decode(trained).rstrip("\n") != wanted:
            raise BadInput(
                f"{parquet}: row {row}: verl would train on {tokenizer.decode(trained)[:80]!r}, not on its answer; "
                f"the chat template of {model} is not ChatML"
            )
    return {"rows": total, "compared": len(rows)}


def preview(parquet: Path, model: Path, max_length: int, count: int, console: Console) -> None:
    """Print `count` rows, spread over the file, as the trainer gets them; what is trained is green and bold, or, where
    the output has no colours, stands between ⟦ and ⟧."""
    rows = spread(pq.ParquetFile(parquet).metadata.num_rows, count)
    dataset = load_some(parquet, rows, model, max_length)
    for index, row in enumerate(rows):
        parts = runs(dataset, index)
        tokens, trained = sum(len(ids) for _, ids in parts), sum(len(ids) for is_trained, ids in parts if is_trained)
        title = (
            f"{parquet.name} row {row}: {tokens} tokens, {trained} trained, {max_length - tokens} of padding to "
            f"{max_length}"
        )
        console.rule(Text(title), align="left", characters="-")
        for is_trained, ids in parts:
            text = dataset.tokenizer.decode(ids)
            if is_trained and not console.is_terminal:
                text = f"⟦{text}⟧"
            console.print(Text(text, style="bold green" if is_trained else ""), end="", soft_wrap=True)
        console.print()


def verl_is_installed() -> bool:
    return importlib.util.find_spec("verl") is not None


def spread(total: int, count: int) -> list[int]:
    """`count` row numbers at even distances, the first among them; all where there are no more or `count` is 0."""
    return list(range(total)) if not count or count >= total else [i * total // count for i in range(count)]


def load_dataset(parquet: Path, model: Path, max_length: int):
    """verl's data set over a Parquet file, configured as the training command does; None where verl is not
    installed."""
    if not verl_is_installed():
        return None
    with images_unwanted():
        from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
    from transformers import AutoTokenizer

    config = {"max_length": max_length, "truncation": "error", "messages_key": "messages"}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its length
        return MultiTurnSFTDataset(str(parquet), AutoTokenizer.from_pretrained(str(model)), config)


def load_some(parquet: Path, rows: Sequence[int], model: Path, max_length: int):
    """`load_dataset` over some rows: verl reads a file whole, so they are copied to a file of their own first."""
    if len(rows) == pq.ParquetFile(parquet).metadata.num_rows:
        return load_dataset(parquet, model, max_length)
    with tempfile.TemporaryDirectory(prefix="rows.") as temp:
        pq.write_table(_take(parquet, rows), Path(temp) / parquet.name)
        return load_dataset(Path(temp) / parquet.name, model, max_length)


def _take(parquet: Path, rows: Sequence[int]) -> pa.Table:
    """Some rows of a file, in order, one row group in memory at a time."""
    parts, start = [], 0
    with pq.ParquetFile(parquet) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if wanted := [r - start for r in rows if start <= r < end]:
                parts.append(file.read_row_group(group).take(wanted))
            start = end
    return pa.concat_tables(parts)


@contextlib.contextmanager
def images_unwanted() -> Iterator[None]:
    """Let verl 0.7.0 be imported where qwen_vl_utils is not installed: it imports it for images, at module top
    (verl#4958)."""
    name = "qwen_vl_utils"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        yield
        return
    stand_in = types.ModuleType(name)
    stand_in.__dict__.update(fetch_image=None, fetch_video=None)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


def runs(dataset, index: int) -> list[tuple[bool, list[int]]]:
    """A row's token ids in stretches that are trained and stretches that are not; padding is left out."""
    row = dataset[index]
    real = row["attention_mask"].bool()
    pairs = zip(row["loss_mask"][real].tolist(), row["input_ids"][real].tolist(), strict=True)
    return [
        (bool(trained), [token for _, token in group])
        for trained, group in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


def prompt_and_loss(dataset, index: int) -> tuple[list[int], list[int]]:
    """Token ids of a row before its first trained token, and the trained token ids; padding is left out."""
    parts = runs(dataset, index)
    before = parts[0][1] if parts and not parts[0][0] else []
    return before, [token for trained, ids in parts if trained for token in ids]
