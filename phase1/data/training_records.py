"""Read training records in chunks from .jsonl, .jsonl.gz and .parquet, of any size; a bad line never ends the run."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from phase1.data.record_forms import BadRecord
from phase1.files import BadInput

CHUNK_RECORDS = 256
CHUNK_BYTES = 1 << 20
RECORD_BYTES = 4 << 20  # the longest record that is read; the longest statements and solutions have some 100 kB

Payload = bytes | dict[str, JsonValue] | BadRecord  # an undecoded line, a row, or why it is neither


class RawRecord(NamedTuple):
    """A record as it was read, and its place: the line or row of a file, from 1."""

    file: str
    line: int
    payload: Payload


class _Sized(NamedTuple):
    """A payload, its line or row, and its length in bytes; the payload of one that is too long is cut."""

    line: int
    payload: Payload
    length: int


def read_chunks(paths: Iterable[Path]) -> Iterator[list[RawRecord]]:
    """The records of all files, in order, in chunks small enough to hand to a worker; blank lines are no records.

    Raises:
        BadInput: a file is missing, or is not what its name says.
    """
    chunk: list[RawRecord] = []
    size = 0
    paths = [Path(p) for p in paths]
    for path in paths:  # all of them before the first record: a wrong name is told at once
        if not path.exists():
            raise BadInput(f"{path}: no such file")
        if not path.is_file():
            raise BadInput(f"{path}: not a file; name the .jsonl or .parquet in it")
    for path in paths:
        for number, payload, length in _records(path):
            kept = payload if length <= RECORD_BYTES else _too_large(length)
            chunk.append(RawRecord(str(path), number, kept))
            size += min(length, RECORD_BYTES)
            if len(chunk) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def other_form(path: Path) -> str:
    """What to do with a file whose records were not found because it has another form, "" where it has none."""
    if path.suffix in (".gz", ".parquet"):
        return ""
    with open(path, "rb") as f:
        start = f.read(CHUNK_RECORDS).lstrip()
    if start.startswith(b"["):
        return f" (the file is one JSON list; a record a line is needed: jq -c '.[]' {path} >records.jsonl)"
    if path.suffix in (".csv", ".tsv", ".xlsx"):
        return " (.jsonl, .jsonl.gz and .parquet are read; in Python: pandas.read_csv(…).to_parquet(…))"
    return ""


def _too_large(length: int) -> BadRecord:
    return BadRecord(f"{length:,} bytes; no record has more than {RECORD_BYTES:,}")


def _records(path: Path) -> Iterator[_Sized]:
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    number = 0
    try:
        with cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else open(path, "rb") as f:
            while line := f.readline(RECORD_BYTES + 1):
                number += 1
                length = len(line) if line.endswith(b"\n") else len(line) + _rest_of_line(f)
                if line.strip():
                    yield _Sized(number, line, length)
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise BadInput(f"{path}:{number + 1}: not a whole gzip file ({e}); copy it again") from None


def _rest_of_line(f: IO[bytes]) -> int:
    """Skip to the end of the line, in bounded memory; the number of bytes skipped."""
    skipped = 0
    while part := f.readline(RECORD_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _decoded(batch: pa.RecordBatch) -> list[dict[str, JsonValue] | BadRecord]:
    """The rows of a batch; where its writer did not check its strings, a row that is no UTF-8 is a BadRecord."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as e:
        if batch.num_rows == 1:
            return [BadRecord(str(e))]
    return [row for i in range(batch.num_rows) for row in _decoded(batch.slice(i, 1))]


@contextlib.contextmanager
def whole_parquet(path: str | Path) -> Iterator[None]:
    """Turn what pyarrow raises while a Parquet file is read into one line.

    Raises:
        BadInput: the file is missing, torn, or damaged in its pages (pyarrow's OSError without an errno).
    """
    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as e:
        if getattr(e, "errno", None):
            raise
        raise BadInput(f"{path}: not a whole Parquet file ({str(e).splitlines()[0]}); copy it again") from None


def _parquet_rows(path: Path) -> Iterator[_Sized]:
    number = 0
    with whole_parquet(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(CHUNK_RECORDS):
            for row in _decoded(batch):
                number += 1
                texts = row.values() if isinstance(row, dict) else ()
                yield _Sized(number, row, sum(len(text) for text in texts if isinstance(text, str)))
