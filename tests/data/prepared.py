"""What tests of prepare_sft_data.py share: a clean record, and a run on records."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

import prepare_sft_data

STATEMENT = (
    "Polycarp keeps a row of n glass jars on the shelf of his grandmother and counts the pickled plums in each "
    "of them.\n"
    "He moves one plum a minute from the fullest jar into the emptiest until no two jars differ by more than one.\n\n"
    "Input\n\nThe only line has n and then the numbers of plums.\n\nOutput\n\nPrint the number of minutes.\n\n"
    "Examples\n\nInput\n\n3 1 2 6\n\n\nOutput\n\n3"
)


def record(i: int, solution: str = "print({i})", fence: str = "```python3", statement: str = "", **more) -> dict:
    """A clean BEE record whose statement no other shares."""
    words = " ".join(
        f"{w}{i}"
        for w in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
    return {
        "name": f"{2000 + i}_A. Title",
        "source": 2,
        "difficulty": 7,
        "language": "PYTHON3",
        "text": "### Prompt\n\nIn Python3, your task is to solve the following problem: "
        f"{statement or words}\n\n### Response\n\n{fence}\n{solution.format(i=i)}\n```",
    } | more


def prepare(tmp_path: Path, records: list, *flags: str, monkeypatch) -> dict:
    """Run the script on records (dicts, or raw lines) and give its report, its rows and its rejects."""
    source = tmp_path / "bee.jsonl"
    source.write_bytes(b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in records))
    return run(tmp_path / "out", [source], *flags, monkeypatch=monkeypatch)


def run(out: Path, sources: list[Path], *flags: str, monkeypatch) -> dict:
    argv = [
        "prepare_sft_data.py",
        "--input_jsonl",
        *map(str, sources),
        "--output_dir",
        str(out),
        "--workers",
        "2",
        "--no_verl_check",
    ]
    if "--manifest_dir" not in flags:
        flags = (*flags, "--manifest_dir", str(out / "none"), "--allow_missing_manifests")
    monkeypatch.setattr(sys, "argv", [*argv, *flags])
    assert prepare_sft_data.main() == 0
    rows = {
        side: [row["messages"] for row in pq.read_table(out / f"sft_{side}.parquet").to_pylist()]
        for side in ("train", "val")
    }
    return {
        "report": json.loads((out / "sft_report.json").read_text()),
        **rows,
        "rejects": [json.loads(line) for line in (out / "sft_rejects.jsonl").read_text().splitlines()],
    }
