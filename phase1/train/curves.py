"""Loss, gradient norm, learning rate and throughput of a training run, from outputs/train_metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from phase1.files import replacing
from phase1.train.health import metric_rows

PANELS = (
    ("train/loss", "loss"),
    ("train/grad_norm", "gradient norm"),
    ("train/lr", "learning rate"),
    ("tokens_per_s", "tokens / s"),
)


def plot(metrics_file: Path, run: str, output: Path) -> None:
    """One panel a quantity over steps, validation loss beside the training loss; nothing where no step was logged."""
    rows = list(metric_rows(metrics_file, run))
    if not rows:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), sharex=True)
    for axis, (key, label) in zip(axes.flat, PANELS, strict=True):
        points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
        axis.plot(*zip(*points, strict=True) if points else ((), ()), linewidth=1)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    checks = [(r["step"], r["val/loss"]) for r in rows if r.get("val/loss") is not None]
    if checks:
        axes.flat[0].plot(*zip(*checks, strict=True), "o-", markersize=3, label="val/loss")
        axes.flat[0].legend()
    for axis in axes[1]:
        axis.set_xlabel("step")
    figure.suptitle(run)
    figure.tight_layout()
    with replacing(output) as temp:
        figure.savefig(temp, format="png", dpi=110)
    pyplot.close(figure)
