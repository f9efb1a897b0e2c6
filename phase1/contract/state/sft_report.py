"""data/sft_report.json: what became of every training record. Written by prepare_sft_data.py."""

from __future__ import annotations

from pydantic import JsonValue

from phase1.contract.state.base import Stamp, StateFile

NAME = "sft_report.json"


class SftReport(StateFile):
    """sft_report.json; the keys of contract 2, and what was checked.

    Lengths in characters are of the user turn ("prompt") and of the answer ("response"). `dropped`: records by reason.
    `tokens` and `trained_tokens`: mean and percentiles of a row's length and of its trained part, None without --model.
    `contamination`: each record that is an evaluation problem, with the rule that says so. `evaluation_sets`: problems
    of each set that the records were held against, or in words why their statements were not. `verify` and
    `verl_check` are a line of text where the check was left out.
    """

    input_file: str | list[str] | None = None
    input_total: int | None = None
    parse_errors: int | None = None
    empty_solution_dropped: int | None = None
    dropped: dict[str, int] = {}
    final_total: int | None = None
    train_samples: int | None = None
    val_samples: int | None = None
    avg_prompt_length_chars: float | None = None
    max_prompt_length_chars: int | None = None
    avg_response_length_chars: float | None = None
    max_response_length_chars: int | None = None
    tokens: dict[str, int | float] | None = None
    trained_tokens: dict[str, int | float] | None = None
    max_length: int | None = None
    padding_share_at_max_length: float | None = None
    contamination: list[dict[str, JsonValue]] = []
    prompts_sha256: str | None = None
    input_sha256: dict[str, str] = {}
    stamp: Stamp = Stamp()
    verify: dict[str, JsonValue] | str | None = None
    evaluation_sets: dict[str, JsonValue] = {}
    verl_check: dict[str, JsonValue] | str | None = None
    outputs_sha256: dict[str, str] = {}
