"""Read training records in chunks from .jsonl, .jsonl.gz and .parquet, at any size, without ever failing on one line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from phase1.files import BadInput

CHUNK_RECORDS = 256
CHUNK_BYTES = 1 << 20

# (file, line or row from 1, the undecoded line or the row)
RawRecord = tuple[str, int, "bytes | dict"]


def read_chunks(paths: Iterable[Path]) -> Iterator[list[RawRecord]]:
    """The records of all files, in order, in chunks small enough to hand to a worker; blank lines are no records.

    BadInput for a file that is missing or, as a whole, not what its name says.
    """
    chunk: list[RawRecord] = []
    size = 0
    for path in paths:
        for number, payload in _records(Path(path)):
            chunk.append((str(path), number, payload))
            size += len(payload)
            if len(chunk) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _records(path: Path) -> Iterator[tuple[int, bytes | dict]]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file" if not path.exists() else f"{path}: not a file; name the .jsonl or .parquet in it")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise BadInput(f"{path}:{number + 1}: not a whole gzip file ({e}); copy it again") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(CHUNK_RECORDS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as e:
        raise BadInput(f"{path}: not a whole Parquet file ({str(e).splitlines()[0]}); copy it again") from None
