"""Preflight: what is in the Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phase1.contract.prompts import SYSTEM_PROMPT
from phase1.files import BadInput
from phase1.model.tokenizer import load_fast_tokenizer
from phase1.train.job import Job
from phase1.train.preflight.outcome import Outcome, passes, warns
from phase1.train.schedule import row_lengths, used_rows
from phase1.train.verl_version import PROMPT_COLUMNS

Turn = dict[str, object]  # role and content, as the Parquet file holds them
CHATML_TOKENS = 5  # that ChatML puts around a turn, about
TURN_MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")  # of ChatML; tokenizers read them in a text too
TOO_MANY_CUT = 0.9  # share of rows without an answer token at which a run is refused


def train_data(job: Job) -> Outcome:
    """How many training rows there are, and whether the longest fits.

    A row that is too long silently loses the end of its answer, or all of it, and then trains nothing. The lengths are
    prepare_sft_data.py's, where its report is beside the file, or else counted.
    """
    rows = f"{used_rows(job, 'train')} rows in {', '.join(map(str, job.files('data.train_files')))}"
    lengths, most = row_lengths(job), job.number("data.max_length")
    if lengths and lengths.longest <= most:
        return passes(f"{rows}, the longest of {lengths.longest} tokens")
    cut = cut_rows(job, most)
    if cut is None:
        return warns(
            f"{rows}; whether they fit into {most} tokens is not known: the model's tokenizer.json is not on "
            "this machine"
        )
    if cut.without_answer >= TOO_MANY_CUT * used_rows(job, "train"):
        raise BadInput(
            f"{rows}; {cut.without_answer} of them are cut at {most} tokens before the answer begins and train "
            "nothing; set MAX_LENGTH higher"
        )
    if cut.rows:
        lost = f", {cut.without_answer} of them before the answer begins, which train nothing"
        return warns(
            f"{rows}; {cut.rows} have more than {most} tokens and lose their end{lost if cut.without_answer else ''}; "
            f"set MAX_LENGTH higher, or prepare with --max_length {most}"
        )
    return passes(f"{rows}, none of more than {most} tokens")


@dataclass
class CutRows:
    """How many rows are too long, and how many of them lose all of their answer."""

    rows: int = 0
    without_answer: int = 0


def cut_rows(job: Job, most: int) -> CutRows | None:
    """Count the rows of more than `most` tokens; None where the model's tokenizer is not here.

    A text has no more tokens than bytes, so few rows need to be tokenised, and those on all cores.
    """
    cut, tokenizer, folder = CutRows(), None, job.model_folder
    for batch in _batches(job, "data.train_files"):
        texts = [[str((turn or {}).get("content")) for turn in row] for row in batch.rows]
        long = [row for row in texts if sum(len(text.encode()) + CHATML_TOKENS for text in row) > most]
        if not long:
            continue
        if tokenizer is None:
            if folder is None or not (folder / "tokenizer.json").is_file():
                return None
            tokenizer = load_fast_tokenizer(folder)
        encoded = iter(tokenizer.encode_batch_fast([text for row in long for text in row], add_special_tokens=False))
        for row in long:
            sizes = [len(next(encoded)) + CHATML_TOKENS for _ in row]
            cut.rows += sum(sizes) > most
            cut.without_answer += sum(sizes[:-1]) + 3 >= most
    return cut


def val_data(job: Job) -> Outcome:
    """Whether the validation rows are enough for one batch on each process.

    Otherwise the fsdp trainer, which validates by micro batches, fails at its last step, before the last save, and the
    engine trainer, which validates by whole batches, logs NaN as val/loss.
    """
    rows = used_rows(job, "val")
    if job.trainer == "engine":
        need, what, variable = job.number("data.train_batch_size"), "one batch", "TRAIN_BATCH_SIZE"
    else:
        need = job.data_ranks * job.number("data.micro_batch_size_per_gpu")
        what, variable = "one micro batch a process", "MICRO_BATCH_SIZE"
    path = job.files("data.val_files")[0]
    if rows < need:
        raise BadInput(
            f"{path}: {rows} rows, but validation needs {need} ({what}); prepare with a larger --val_ratio or "
            f"set {variable} lower"
        )
    used = rows // job.data_ranks // (need // job.data_ranks) * need
    return passes(f"{rows} rows in {path}, {used} of them used")


def messages(job: Job) -> Outcome:
    """Whether a row trains nothing or the wrong thing, and whether the prompts are those of the evaluation."""
    used_rows(job, "train")  # refuses what is no such file
    for key in ("data.train_files", "data.val_files"):
        refuse_prompt_columns(job, key)
    counted = foreign = bare = 0
    for batch in _batches(job, "data.train_files"):
        for number, row in enumerate(batch.rows, batch.first):
            refuse_unusable(row, f"{batch.path}, row {number}")
            counted += 1
            foreign += row[0] != {"role": "system", "content": SYSTEM_PROMPT}
            bare += not str(row[-1]["content"]).lstrip().startswith("<code>")
    if foreign or bare:
        return warns(
            f"{foreign} of {counted} rows without the evaluation's system prompt, {bare} answers without "
            "<code>: the evaluation asks for another form"
        )
    return passes(f"{counted} rows with the evaluation's system prompt and answer form")


def refuse_prompt_columns(job: Job, key: str) -> None:
    """Refuse files with columns beside the messages that verl puts into the prompt, which the evaluation does not.

    Raises:
        BadInput: names the file, the row and the column.
    """
    import pyarrow.parquet as pq

    for path in job.files(key):
        if not path.is_file():  # the check of the rows says so
            continue
        file = pq.ParquetFile(path)
        names = [name for name in PROMPT_COLUMNS if name in file.schema_arrow.names]
        for name in names:
            values = file.read(columns=[name]).column(0).to_pylist()
            row = next((n for n, value in enumerate(values, 1) if value is not None and value not in ([], "")), None)
            if row:
                raise BadInput(
                    f"{path}, row {row}: verl puts the column {name} into the prompt, which the evaluation never sees; "
                    "write the file without it"
                )


def refuse_unusable(row: list[Turn], where: str) -> None:
    """Refuse a row on which verl fails, or from which it learns nothing or the question.

    Raises:
        BadInput: `where` and what is wrong.
    """
    if not all(turn and isinstance(turn["role"], str) for turn in row):
        raise BadInput(
            f"{where}: a turn or its role is null, on which verl fails; drop the row, or prepare the data again"
        )
    roles = [turn["role"] for turn in row]
    if not roles or roles[0] == "assistant" or roles[-1] != "assistant":
        raise BadInput(
            f"{where}: turns {roles}; verl would train on another turn than the answer; start with system or user, "
            "end with assistant"
        )
    if not all(isinstance(turn["content"], str) for turn in row):
        raise BadInput(
            f"{where}: a turn's content is not text, on which verl fails with a TypeError; prepare the data again"
        )
    if any(turn.get("tool_calls") for turn in row):
        raise BadInput(
            f"{where}: a turn has tool_calls, which the chat template writes into it and the evaluation never does; "
            "drop the row"
        )
    if marks := [mark for mark in TURN_MARKS if any(mark in str(turn["content"]) for turn in row)]:
        raise BadInput(f"{where}: {marks[0]} in a turn's content would end the turn there; drop the row")
    if not str(row[-1]["content"]).strip():
        raise BadInput(f"{where}: an empty answer, nothing to learn; drop the row")


@dataclass(frozen=True)
class _Batch:
    """Some rows of a file; `first` is the number of the first one, from 1. A row that is null has no turns."""

    path: Path
    first: int
    rows: list[list[Turn]]


def _batches(job: Job, key: str) -> Iterator[_Batch]:
    import pyarrow.parquet as pq

    for path in job.files(key):
        first = 1
        for batch in pq.ParquetFile(path).iter_batches(columns=["messages"]):
            rows = [row or [] for row in batch.column(0).to_pylist()]
            yield _Batch(path, first, rows)
            first += len(rows)
