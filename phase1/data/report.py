"""What prepare_sft_data.py tells of a run: why each record was dropped, how long the rows are, and their histogram."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from phase1.contract.state.sft_report import SftReport
from phase1.data.kept_records import Place, Survivors
from phase1.files import replacing

PERCENTILES = (0, 1, 5, 25, 50, 75, 90, 95, 99, 100)


class Rejects:
    """sft_rejects.jsonl: a line for each dropped record, and how many there are of each reason."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._file = open(path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed by `close`

    def add(self, place: Place, name: str, reason: str, detail: JsonValue) -> None:
        """Write down that the record `name` was dropped, and why."""
        self.counts[reason] += 1
        row = {"file": place.file, "line": place.line, "name": name, "reason": reason, "detail": detail}
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()

    def keep(self, directory: Path) -> Path:
        """Close, and put sft_rejects.jsonl in its place, where the run is refused: it says why. Returns its path."""
        self.close()
        path = directory / "sft_rejects.jsonl"
        with replacing(path) as temp:
            os.replace(self.path, temp)
        return path

    def contaminated(self) -> list[dict[str, JsonValue]]:
        """The lines of the records that are evaluation problems: which problem, by which rule, with what score."""
        with open(self.path, encoding="utf-8") as f:
            return [json.loads(line) for line in f if '"reason": "contaminated"' in line]


@dataclass(frozen=True)
class Lengths:
    """The fields of sft_report.json on the length of rows.

    `padding_share_at_max_length`: verl 0.7.0 pads every row to max_length (multiturn_sft_dataset.py, pad_mode right),
    so that is the share of a batch that is spent for nothing.
    """

    avg_prompt_length_chars: float
    max_prompt_length_chars: int
    avg_response_length_chars: float
    max_response_length_chars: int
    tokens: dict[str, int | float] | None
    trained_tokens: dict[str, int | float] | None
    max_length: int
    padding_share_at_max_length: float | None


def lengths(survivors: Survivors, kept: np.ndarray, max_length: int) -> Lengths:
    """How long the rows in `kept` are; `max_length` is in tokens."""
    user, response, tokens, trained = (
        np.frombuffer(column, np.int64)[kept]
        for column in (survivors.user_chars, survivors.answer_chars, survivors.tokens, survivors.trained_tokens)
    )
    measured = bool(tokens.any())
    return Lengths(
        avg_prompt_length_chars=round(float(user.mean()), 1),
        max_prompt_length_chars=int(user.max()),
        avg_response_length_chars=round(float(response.mean()), 1),
        max_response_length_chars=int(response.max()),
        tokens=_percentiles(tokens) if measured else None,
        trained_tokens=_percentiles(trained) if measured else None,
        max_length=max_length,
        padding_share_at_max_length=round(1 - float(tokens.mean()) / max_length, 4) if measured else None,
    )


def _percentiles(values: np.ndarray) -> dict[str, int | float]:
    return {"mean": round(float(values.mean()), 1)} | {f"p{p}": int(np.percentile(values, p)) for p in PERCENTILES}


def histogram(path: Path, survivors: Survivors, kept: np.ndarray, max_length: int) -> None:
    """Draw the lengths of the rows in `kept` as a PNG: tokens where they were measured, characters elsewhere."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    tokens = np.frombuffer(survivors.tokens, np.int64)[kept]
    measured = bool(tokens.any())
    if measured:
        unit, whole, part = "tokens", tokens, np.frombuffer(survivors.trained_tokens, np.int64)[kept]
    else:
        part = np.frombuffer(survivors.answer_chars, np.int64)[kept]
        unit, whole = "characters", part + np.frombuffer(survivors.user_chars, np.int64)[kept]
    bins = np.linspace(0, max(int(whole.max()), max_length if measured else 0), 81)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.hist(
        whole,
        bins,
        color="#4878a8",
        label=f"whole row: median {np.median(whole):,.0f}, 99% below {np.percentile(whole, 99):,.0f}",
    )
    axes.hist(
        part,
        bins,
        histtype="step",
        color="#b0413e",
        linewidth=1.5,
        label=f"answer (trained): median {np.median(part):,.0f}",
    )
    if measured:
        axes.axvline(max_length, color="black", linestyle="--", linewidth=1, label=f"max_length {max_length:,}")
    axes.set(
        xlabel=f"{unit} a row",
        ylabel="rows (log scale)",
        yscale="log",
        title=f"{len(kept):,} rows of sft_train and sft_val",
    )
    axes.legend()
    with replacing(path) as temp:
        figure.savefig(temp, dpi=120, format="png")


def print_report(report: SftReport, output_dir: Path) -> None:
    """Print what became of the records, in some ten lines."""
    print(
        f"{report.input_total:,} records -> {report.train_samples:,} training and "
        f"{report.val_samples:,} validation rows"
    )
    for reason, count in report.dropped.items():
        print(f"  {reason:<22}{count:>9,}")
    if report.tokens:
        told = " ".join(f"{name} {value:,}" for name, value in report.tokens.items())
        print(
            f"  tokens a row: {told}; padding at max_length {report.max_length:,}: "
            f"{report.padding_share_at_max_length:.1%}"
        )
    else:
        print("  no --model: lengths in tokens were not measured, rows longer than max_length are still in")
    if isinstance(report.verify, dict):
        print("  verified: " + ", ".join(f"{name} {count:,}" for name, count in report.verify["counts"].items()))
        if failed := report.verify["problems_where_every_solution_failed"]:
            print(
                f"  every solution of {len(failed)} problems failed (first {failed[0]}): look whether their "
                "tests are to blame"
            )
    if isinstance(report.verl_check, dict):
        counted = [
            f"{check['compared']:,} of {check['rows']:,} rows in {name}" for name, check in report.verl_check.items()
        ]
        print(f"  verl check: trains on the answers alone in {', '.join(counted)}")
    else:
        print(f"  verl check: {report.verl_check}")
    print(f"{output_dir}: sft_train.parquet, sft_val.parquet, sft_report.json, sft_rejects.jsonl, sft_lengths.png")
