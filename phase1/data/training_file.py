"""A Parquet file of training rows: one column `messages`, a list of turns with role and content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phase1.contract.prompts import chat
from phase1.data.kept_records import Survivors

SCHEMA = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
ROW_GROUP = 1024  # rows


def write_training_file(path: Path, survivors: Survivors, rows: np.ndarray) -> None:
    """Write `rows` of `survivors`, a row group in memory at a time."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(rows), ROW_GROUP):
            texts = [survivors.texts(row) for row in rows[start : start + ROW_GROUP]]
            messages = [chat(each.user, each.answer) for each in texts]
            writer.write_table(pa.table({"messages": messages}, schema=SCHEMA))
