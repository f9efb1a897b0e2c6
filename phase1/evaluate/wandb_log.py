"""An evaluation in Weights & Biases. W&B may be absent or unreachable: an evaluation never fails on its account."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from phase1.files import read_jsonl

INIT_TIMEOUT = 20  # seconds
QA_COLUMNS = (
    "problem_id",
    "error_type",
    "accepted",
    "pass_ratio",
    "finish_reason",
    "gen_tokens",
    "prompt",
    "response",
    "first_failed_case",
)


@dataclass(frozen=True)
class WandbRun:
    """Where to log. `mode`: online, offline or disabled."""

    project: str
    name: str
    mode: str = "offline"


def log_evaluation(
    where: WandbRun, step: int | None, datasets: Mapping[str, Mapping[str, JsonValue]], output_dir: Path
) -> None:
    """Log `eval/{dataset}/{metric}` at the checkpoint's step (contract 7), and each QA sample as `eval/{dataset}/qa`.

    A failure is one line on stderr. Without a login the run is logged offline; a line says where and how to send it.

    Args:
        datasets: the entries of summary.json, by data set.
        output_dir: the evaluation's folder, which holds the QA samples; offline runs are written there.
    """
    if where.mode == "disabled":
        return
    try:
        import wandb

        mode = where.mode
        if mode == "online" and not os.environ.get("WANDB_API_KEY") and not wandb.login(prompt=False):
            mode = "offline"  # else wandb.init would ask at the terminal, all night
        settings = wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT)
        run = wandb.init(project=where.project, name=where.name, mode=mode, dir=str(output_dir), settings=settings)
        values: dict[str, object] = {}
        for dataset, metrics in datasets.items():
            for metric, value in metrics.items():
                if isinstance(value, int | float):
                    values[f"eval/{dataset}/{metric}"] = value
            rows = qa_rows(output_dir / "qa_logs" / f"{dataset}_qa.jsonl")
            values[f"eval/{dataset}/qa"] = wandb.Table(columns=list(QA_COLUMNS), data=rows)
        run.log(values, step=step or 0)
        folder = Path(run.dir).parent
        run.finish()
        if mode == "offline":
            told = f"logged offline in {folder}; send it later: wandb sync {shlex.quote(str(folder))}"
            if where.mode == "online":
                print(f"warning: no login to W&B here (wandb login, or WANDB_API_KEY): {told}", file=sys.stderr)
            else:
                print(f"W&B: {told}")
    except Exception as e:  # whatever wandb raises, from a missing login to a broken service: the results are on disk
        print(f"warning: W&B was not reached ({type(e).__name__}: {e}); metrics are in {output_dir}", file=sys.stderr)


def qa_rows(path: Path) -> list[list[JsonValue]]:
    """The lines of a QA log as rows of QA_COLUMNS; none where there is no log."""
    if not path.exists():
        return []
    rows = []
    for _, line in read_jsonl(path):
        values = [{**line, **line["extra"]}.get(column) for column in QA_COLUMNS]
        rows.append([json.dumps(value) if isinstance(value, dict) else value for value in values])
    return rows
