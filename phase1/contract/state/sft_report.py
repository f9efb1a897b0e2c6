"""data/sft_report.json: what became of every training record. Written by prepare_sft_data.py."""

from __future__ import annotations

from pydantic import JsonValue

from phase1.contract.state.base import Stamp, StateFile

NAME = "sft_report.json"


class SftReport(StateFile):
    """sft_report.json; the keys of contract 2, and what was checked.

    `dropped`: records by reason. `tokens`: percentiles of a row's length, None without --model. `evaluation_sets`:
    problems of each set that the records were held against, None where its manifest was missing.
    """

    input_file: str | list[str] | None = None
    input_total: int | None = None
    train_samples: int | None = None
    val_samples: int | None = None
    dropped: dict[str, int] = {}
    tokens: dict[str, float] | None = None
    max_length: int | None = None
    padding_share_at_max_length: float | None = None
    evaluation_sets: dict[str, JsonValue] = {}
    stamp: Stamp = Stamp()
