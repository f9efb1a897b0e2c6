"""See training rows as verl will: through its own MultiTurnSFTDataset, with its loss mask (verl 0.7.0 and later)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from phase1.data.without_images import NAME, stand_in_for_qwen_vl_utils
from phase1.files import BadInput

if TYPE_CHECKING:
    import torch


class Decoder(Protocol):
    """The part of a tokenizer that reading trained tokens needs."""

    eos_token: str

    def decode(self, token_ids: list[int]) -> str: ...


class SftDataset(Protocol):
    """The part of verl's MultiTurnSFTDataset that is looked at. A row holds tensors by name: input_ids, loss_mask, …"""

    tokenizer: Decoder
    messages: list[list[dict[str, str]]]

    def __getitem__(self, index: int) -> dict[str, object]: ...


class Stretch(NamedTuple):
    """Tokens of a row that stand together and are all trained, or all not."""

    trained: bool
    ids: list[int]


class TrainedTokens(NamedTuple):
    """Token ids of a row before the first trained one, and the trained ones."""

    before: list[int]
    trained: list[int]


def check_rows(parquet: Path, model: Path, max_length: int, count: int) -> dict[str, int] | str:
    """Compare the trained tokens of `count` rows, spread over the file, with their answers; 0 = of every row.

    Returns:
        How many rows there are and were compared, or why it was skipped.

    Raises:
        BadInput: a row has no trained token or is longer than `max_length` tokens, or verl would train on anything but
            the answer and its end.
    """
    total = pq.ParquetFile(parquet).metadata.num_rows
    rows = spread(total, count)
    dataset = load_some(parquet, rows, model, max_length)
    if dataset is None:
        return "skipped: verl is not installed"
    tokenizer = dataset.tokenizer
    for index, row in enumerate(rows):
        try:
            trained = prompt_and_loss(dataset, index).trained
        except ValueError as e:  # verl's word for a row over max_length; only where the length filter was left out
            raise BadInput(f"{parquet}: row {row}: {e}; leave the length filter on, or raise --max_length") from None
        wanted = dataset.messages[index][-1]["content"] + tokenizer.eos_token
        if not trained:
            raise BadInput(f"{parquet}: row {row} has no trained token; its template or its length is wrong")
        if tokenizer.decode(trained).rstrip("\n") != wanted:
            raise BadInput(
                f"{parquet}: row {row}: verl would train on {tokenizer.decode(trained)[:80]!r}, not on its answer and "
                f"then {tokenizer.eos_token!r}: the chat template of {model} does not write so; give an instruct model"
            )
    return {"rows": total, "compared": len(rows)}


def preview(parquet: Path, model: Path, max_length: int, count: int, console: Console) -> None:
    """Print `count` rows, spread over the file, as the trainer gets them.

    What is trained is green and bold or, where the output has no colours, stands between ⟦ and ⟧. Where verl is not
    installed, nothing is printed.
    """
    rows = spread(pq.ParquetFile(parquet).metadata.num_rows, count)
    dataset = load_some(parquet, rows, model, max_length)
    if dataset is None:
        return
    for index, row in enumerate(rows):
        parts = stretches(dataset, index)
        tokens = sum(len(part.ids) for part in parts)
        trained = sum(len(part.ids) for part in parts if part.trained)
        title = (
            f"{parquet.name} row {row}: {tokens} tokens, {trained} trained, {max_length - tokens} of padding to "
            f"{max_length}"
        )
        console.rule(Text(title), align="left", characters="-")
        for part in parts:
            text = dataset.tokenizer.decode(part.ids)
            if part.trained and not console.is_terminal:
                text = f"⟦{text}⟧"
            console.print(Text(text, style="bold green" if part.trained else ""), end="", soft_wrap=True)
        console.print()


def verl_is_installed() -> bool:
    return importlib.util.find_spec("verl") is not None


def spread(total: int, count: int) -> list[int]:
    """`count` row numbers at even distances, the first among them; all where there are no more or `count` is 0."""
    return list(range(total)) if not count or count >= total else [i * total // count for i in range(count)]


def load_dataset(parquet: Path, model: Path, max_length: int) -> SftDataset | None:
    """verl's data set over a Parquet file, set as the training command sets it; None where verl is not installed."""
    if not verl_is_installed():
        return None
    with images_unwanted():
        from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
    from transformers import AutoTokenizer

    config = {"max_length": max_length, "truncation": "error", "messages_key": "messages"}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its length
        dataset = MultiTurnSFTDataset(str(parquet), AutoTokenizer.from_pretrained(str(model)), config)
    return cast(SftDataset, dataset)


def load_some(parquet: Path, rows: Sequence[int], model: Path, max_length: int) -> SftDataset | None:
    """`load_dataset` over some rows: verl reads a file whole, so they are copied to a file of their own first."""
    if not verl_is_installed():
        return None
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
    """Let verl be imported without qwen_vl_utils for as long as rows are looked at."""
    placed = stand_in_for_qwen_vl_utils()
    try:
        yield
    finally:
        if placed:
            del sys.modules[NAME]


def stretches(dataset: SftDataset, index: int) -> list[Stretch]:
    """A row's token ids in stretches that are trained and stretches that are not; padding is left out."""
    row = cast("dict[str, torch.Tensor]", dataset[index])
    real = row["attention_mask"].bool()
    pairs = zip(row["loss_mask"][real].tolist(), row["input_ids"][real].tolist(), strict=True)
    return [
        Stretch(bool(trained), [token for _, token in group])
        for trained, group in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


def prompt_and_loss(dataset: SftDataset, index: int) -> TrainedTokens:
    """The tokens of a row by whether they are trained; padding is left out."""
    parts = stretches(dataset, index)
    before = parts[0].ids if parts and not parts[0].trained else []
    return TrainedTokens(before, [token for part in parts if part.trained for token in part.ids])
