"""The rows that stay: without repeats, without solutions that fail, as many of a problem as wanted; and their split."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from phase1.data.duplicates import surplus
from phase1.data.filters import Examined
from phase1.data.kept_records import Drop, Place, Survivors, without
from phase1.data.progress import counted
from phase1.data.report import Rejects, lengths


def sort_out(records: Generator[Examined, None, None], survivors: Survivors, rejects: Rejects) -> int:
    """Put each examined record among the survivors or the rejects, closing `records`; returns how many there were."""
    total = 0
    with closing(records):
        for record in counted(records, "records"):
            total += 1
            if record.reason:
                rejects.add(Place(record.file, record.line), record.name, record.reason, record.detail)
            else:
                survivors.add(record)
    return total


class Selection:
    """Rows of `survivors` by number, in input order; what is dropped is written to `rejects`."""

    def __init__(self, survivors: Survivors, rejects: Rejects) -> None:
        self.survivors, self.rejects = survivors, rejects
        self.rows: np.ndarray = np.arange(len(survivors))

    def __len__(self) -> int:
        return len(self.rows)

    def drop(self, drops: Iterable[Drop]) -> None:
        """Take rows out; `drops` is in row order."""
        gone = []
        for row, reason, detail in drops:
            gone.append(row)
            self.rejects.add(self.survivors.place(row), self.survivors.texts(row).name, reason, detail)
        self.rows = without(self.rows, gone)

    def drop_exact_repeats(self) -> None:
        self.drop(self.survivors.exact_repeats())

    def drop_near_repeats(self, threshold: float) -> None:
        """Drop what is alike to an earlier row by `threshold` (estimated Jaccard) in both statement and solution."""
        self.drop(self.survivors.near_repeats(self.rows, threshold))

    def drop_surplus(self, keep: str) -> None:
        """Drop solutions of a problem beyond `keep`: "all", "shortest", "first", or a number N for the N shortest."""
        problems = [self.survivors.problem[row] for row in self.rows]
        lengths = [self.survivors.solution_chars[row] for row in self.rows]
        chosen = sorted(surplus(problems, lengths, keep))
        self.drop([Drop(int(self.rows[at]), "surplus_solution", f"--keep {keep}") for at in chosen])

    def validation(self, ratio: float, seed: int) -> np.ndarray:
        """Which of the rows validate, (rows,) bool: a random `ratio` of them, at least one on each side."""
        count = len(self.rows)
        size = min(max(1, round(count * ratio)), count - 1)
        validates = np.zeros(count, bool)
        validates[random.Random(seed).sample(range(count), size)] = True
        return validates


def counts_and_lengths(
    inputs: Sequence[Path], total: int, chosen: Selection, val_samples: int, *, max_length: int
) -> dict[str, JsonValue]:
    """The fields of sft_report.json on what became of the `total` records of `inputs`, and on the length of rows."""
    dropped = chosen.rejects.counts
    names: list[JsonValue] = [str(path) for path in inputs]
    return {
        "input_file": names[0] if len(names) == 1 else names,
        "input_total": total,
        "parse_errors": dropped["parse_errors"],
        "empty_solution_dropped": dropped["empty_solution"],
        "dropped": {reason: dropped[reason] for reason in sorted(+dropped)},
        "final_total": len(chosen),
        "train_samples": len(chosen) - val_samples,
        "val_samples": val_samples,
        **asdict(lengths(chosen.survivors, chosen.rows, max_length)),
    }
