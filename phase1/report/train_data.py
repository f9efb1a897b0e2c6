"""What the training rows look like, on a sample: do they compile, have they the form that evaluation asks for?"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from phase1.contract.compile_apart import compile_apart
from phase1.contract.extraction import extract_code
from phase1.contract.prompts import SYSTEM_PROMPT, TAG
from phase1.files import BadInput

SOURCE = "give the sft_train.parquet that prepare_sft_data.py wrote"


@dataclass(frozen=True)
class TrainData:
    """What was seen of the training rows.

    Attributes:
        path: the file.
        rows: in the file.
        sampled: rows that were looked at.
        compiled: rows of these that the compiler answered on: all, unless one ended it.
        not_compiling: rows whose program does not compile.
        other_system_prompt: rows with another system prompt than evaluation sends.
        without_code_tag: rows whose answer has no `<code>`.
        first_error: the compiler's first message.
        compiler_died: which row ended Python's compiler, and what to do about it.
    """

    path: str
    rows: int
    sampled: int
    compiled: int
    not_compiling: int
    other_system_prompt: int
    without_code_tag: int
    first_error: str | None
    compiler_died: str | None


def check_train_data(path: Path, sample: int = 2000, seed: int = 42) -> TrainData:
    """Look at a seeded sample of the rows in `path`; their programs are compiled and never run.

    Raises:
        BadInput: `path` is no Parquet file with a column `messages`, or a row holds no list of role and content texts.
    """
    import pyarrow
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(path, columns=["messages"])["messages"]
    except (OSError, KeyError, pyarrow.ArrowException) as e:
        raise BadInput(f"{path}: {str(e).splitlines()[0]}; {SOURCE}") from None
    picked = sorted(random.Random(seed).sample(range(len(column)), min(sample, len(column))))
    counts: Counter[str] = Counter()
    programs = []
    for i in picked:
        try:
            turns = reversed(column[i].as_py())
            said = {turn["role"]: turn["content"] for turn in turns}  # of two turns of a role the first counts
            reply = said.get("assistant", "")
            counts["other_system_prompt"] += said.get("system") != SYSTEM_PROMPT
            counts["without_code_tag"] += TAG not in reply.lower()
            programs.append(extract_code(reply))
        except (TypeError, KeyError, AttributeError):
            raise BadInput(f"{path}: row {i + 1}: messages is no list of role and content texts; {SOURCE}") from None
    errors, death = compile_apart(programs, name="row")
    if death and len(errors) < len(picked):
        row, left = picked[len(errors)] + 1, len(picked) - len(errors) - 1
        death = (
            f"{path}: training row {row} ended Python's compiler ({death}): look at it and drop it; the {left} "
            "sampled rows after it were not compiled"
        )
    found = [e for e in errors if e]
    return TrainData(
        path=str(path),
        rows=len(column),
        sampled=len(picked),
        compiled=len(errors),
        not_compiling=len(found),
        other_system_prompt=counts["other_system_prompt"],
        without_code_tag=counts["without_code_tag"],
        first_error=found[0] if found else None,
        compiler_died=death,
    )
