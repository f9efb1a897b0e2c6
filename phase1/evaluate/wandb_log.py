"""Weights & Biases, which may be absent or unreachable without harm: a night's evaluation never fails on its
account."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from phase1.files import read_jsonl

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


def log_evaluation(project: str, run_name: str, mode: str, step: int | None, summary: dict, output_dir: Path) -> None:
    """Log `eval/{dataset}/{metric}` at the checkpoint's step (contract 7), and the QA sample of each data set as the
    table `eval/{dataset}/qa`; a failure is one line on stderr."""
    if mode == "disabled":
        return
    values = {
        f"eval/{d}/{k}": v
        for d, metrics in summary["datasets"].items()
        for k, v in metrics.items()
        if isinstance(v, int | float)
    }
    try:
        import wandb

        if (
            mode == "online" and not os.environ.get("WANDB_API_KEY") and not wandb.login(prompt=False)
        ):  # wandb.init would ask at the terminal, all night
            mode = "offline"
            print(
                (
                    "warning: no login to W&B here (wandb login, or WANDB_API_KEY); logged offline, upload it "
                    "later with `wandb sync`"
                ),
                file=sys.stderr,
            )
        settings = wandb.Settings(silent=True, console="off", init_timeout=20)
        run = wandb.init(project=project, name=run_name, mode=mode, dir=str(output_dir), settings=settings)
        values |= {
            f"eval/{d}/qa": wandb.Table(
                columns=list(QA_COLUMNS), data=qa_rows(output_dir / "qa_logs" / f"{d}_qa.jsonl")
            )
            for d in summary["datasets"]
        }
        run.log(values, step=step or 0)
        run.finish()
    except Exception as e:  # whatever wandb raises, from a missing login to a broken service, the results stand on disk
        print(f"warning: W&B was not reached ({type(e).__name__}: {e}); metrics are in {output_dir}", file=sys.stderr)


def qa_rows(path: Path) -> list[list]:
    """The lines of a QA log as rows of QA_COLUMNS."""
    rows = [row | row["extra"] for _, row in read_jsonl(path)] if path.exists() else []
    return [[json.dumps(v) if isinstance(v := row.get(k), dict) else v for k in QA_COLUMNS] for row in rows]
