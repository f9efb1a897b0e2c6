"""What phase1_eval.py prints at its end: a row a data set, and what should make a reader pause (contract 5 and 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from phase1.contract.records import MODEL_ERRORS

FIGURES = "n accepted@1 pass_ratio exec_success silent unread syntax runtime timeout wrong tokens"
COLUMNS = ("data set", *FIGURES.split(), "judge s", "cut off")
MOST_CUT_OFF = 0.05  # share of answers cut off at the token limit, above which contract 5 warns
MOST_TIMEOUTS = 0.10  # share of programs that time out
MOST_SILENT = 0.05  # share of programs that run to their end and print, or read, nothing


class Rates(BaseModel):
    """Rates under one extraction, 0 to 1."""

    model_config = ConfigDict(frozen=True)

    accepted_at_1: float
    exec_success_rate: float


class Extraction(BaseModel):
    """What summary.json says of the two ways to take a program from an answer."""

    model_config = ConfigDict(frozen=True)

    differ: int
    contract: Rates
    reader: Rates


class Summary(BaseModel):
    """A data set's entry of summary.json, as far as it is printed."""

    model_config = ConfigDict(frozen=True)

    total_problems: int
    accepted_at_1: float | None
    pass_ratio_mean: float | None
    exec_success_rate: float | None
    syntax_error_rate: float | None
    runtime_error_rate: float | None
    timeout_rate: float | None
    wrong_answer_rate: float | None
    truncation_rate: float | None
    avg_gen_tokens: float | None
    avg_judge_time: float | None
    wrong_answer_truncated_count: int
    error_counts: dict[str, int]
    silent_rate: float | None = None
    unread_rate: float | None = None
    pass_at_k: dict[str, float] = {}
    extraction: Extraction | None = None

    def row(self) -> list[str]:
        """The figures of COLUMNS, but the data set's name."""
        rates = (
            self.exec_success_rate,
            self.silent_rate,
            self.unread_rate,
            self.syntax_error_rate,
            self.runtime_error_rate,
            self.timeout_rate,
            self.wrong_answer_rate,
        )
        return [
            str(self.total_problems),
            _shown(self.accepted_at_1, ".1%"),
            _shown(self.pass_ratio_mean, ".3f"),
            *(_shown(rate, ".1%") for rate in rates),
            _shown(self.avg_gen_tokens, ".0f"),
            _shown(self.avg_judge_time, ".2f"),
            _shown(self.truncation_rate, ".1%"),
        ]

    def remarks(self, name: str) -> Iterator[str]:
        """Lines about the data set `name` below the table."""
        if self.pass_at_k:
            yield f"{name}: " + ", ".join(f"pass@{k} {rate:.1%}" for k, rate in self.pass_at_k.items())
        if self.extraction and self.extraction.differ:
            named = {"contract": self.extraction.contract, "reader": self.extraction.reader}
            both = [
                f"{key} {rates.accepted_at_1:.1%} accepted, {rates.exec_success_rate:.1%} exec_success"
                for key, rates in named.items()
            ]
            differ = f"a careful reader takes another program from {self.extraction.differ} answers"
            yield f"{name}: {differ}: {', '.join(both)}"
        others = [f"{n} {error}" for error, n in self.error_counts.items() if n and error not in MODEL_ERRORS]
        if others:
            yield f"warning: {name}: {', '.join(others)}: no fault of the model's programs, but counted as not solved"
        if (self.truncation_rate or 0) > MOST_CUT_OFF:
            yield (
                f"warning: {name}: {self.truncation_rate:.1%} of the answers were cut off at the token limit (more "
                f"than {MOST_CUT_OFF:.0%}), {self.wrong_answer_truncated_count} of them wrong answers"
            )
        if (self.silent_rate or 0) > MOST_SILENT:
            yield (
                f"warning: {name}: {self.silent_rate:.1%} of the programs ran to their end and printed nothing (more "
                f"than {MOST_SILENT:.0%}); exec_success counts them"
            )
        if (self.unread_rate or 0) > MOST_SILENT:
            yield (
                f"warning: {name}: {self.unread_rate:.1%} of the programs ran to their end and read nothing of their "
                f"input (more than {MOST_SILENT:.0%})"
            )
        if (self.timeout_rate or 0) > MOST_TIMEOUTS:
            yield f"warning: {name}: {self.timeout_rate:.1%} of the programs timed out (more than {MOST_TIMEOUTS:.0%})"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def show(datasets: Mapping[str, Mapping[str, JsonValue]], model_path: Path) -> None:
    """Print the table.

    Args:
        datasets: the entries of summary.json, by data set.
    """
    print(model_path)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    summaries = {name: Summary.model_validate(entry) for name, entry in datasets.items()}
    for name, summary in summaries.items():
        table.add_row(name, *summary.row())
    wanted = Console(width=1000).measure(table).maximum  # in a narrower table the figures would be dots
    Console(width=max(Console().width, wanted)).print(table)
    for name, summary in summaries.items():
        for line in summary.remarks(name):
            print(line)
