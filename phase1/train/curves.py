"""train_curves.png: loss, gradient norm, learning rate and throughput of a training run."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from phase1.files import replacing
from phase1.train.step_log import Point, Series, drawable
from phase1.train.verl_version import GRAD_NORM, LEARNING_RATE, LOSS, VAL_LOSS

PANELS = {LOSS: "loss", GRAD_NORM: "gradient norm", LEARNING_RATE: "learning rate", "tokens_per_s": "tokens / s"}


def plot(series: Series, run: str, output: Path) -> None:
    """Draw one panel a quantity over the steps, the validation loss beside the training loss.

    Args:
        series: of the run; nothing is drawn where it holds no step.
        run: its name, the title.
        output: the PNG to write.
    """
    if not series:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), sharex=True)
    for axis, (key, label) in zip(axes.flat, PANELS.items(), strict=True):
        axis.plot(*_columns(drawable(series, key)), linewidth=1)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    if checks := drawable(series, VAL_LOSS):
        axes.flat[0].plot(*_columns(checks), "o-", markersize=3, label=VAL_LOSS)
        axes.flat[0].legend()
    for axis in axes[1]:
        axis.set_xlabel("step")
    figure.suptitle(run)
    figure.tight_layout()
    with replacing(output) as temp:
        figure.savefig(temp, format="png", dpi=110)
    pyplot.close(figure)


def _columns(points: list[Point]) -> list[list[float]]:
    """Steps and values, as matplotlib takes them."""
    return [[p.step for p in points], [p.value for p in points]]
