"""Weights & Biases, which may be absent or unreachable without harm: a night's evaluation never fails on its account."""

from __future__ import annotations

import sys
from pathlib import Path


def log_evaluation(project: str, run_name: str, mode: str, step: int | None, summary: dict, output_dir: Path) -> None:
    """Log `eval/{dataset}/{metric}` at the checkpoint's step (contract 7); a failure is one line on stderr."""
    if mode == "disabled":
        return
    values = {f"eval/{d}/{k}": v for d, metrics in summary["datasets"].items() for k, v in metrics.items() if isinstance(v, int | float)}
    try:
        import wandb

        run = wandb.init(project=project, name=run_name, mode=mode, dir=str(output_dir), settings=wandb.Settings(silent=True, console="off"))
        run.log(values, step=step or 0)
        run.finish()
    except Exception as e:  # whatever wandb raises, from a missing login to a broken service, the results stand on disk
        print(f"warning: W&B was not reached ({type(e).__name__}: {e}); metrics are in {output_dir}", file=sys.stderr)
