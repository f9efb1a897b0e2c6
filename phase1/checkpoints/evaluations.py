"""Whether a finished evaluation of a checkpoint is all that is asked for, and what the user hears of damaged ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from phase1.contract.problems import manifest_path, read_manifest
from phase1.evaluate.finished import FinishedEvaluation
from phase1.files import sha256_file


def covers(evaluation: FinishedEvaluation, datasets: Sequence[str], manifest_dir: Path) -> bool:
    """Whether an evaluation holds every one of these data sets, over all problems of the present manifests.

    Raises:
        BadInput: a manifest is missing or damaged.
    """
    for name in datasets:
        done = evaluation.run.datasets.get(name)
        if (
            done is None
            or done.manifest_sha256 != sha256_file(manifest_path(manifest_dir, name))
            or done.problems != len(read_manifest(manifest_dir, name))
        ):
            return False
    return True


def warn_of_damaged(damaged: Iterable[str]) -> None:
    """Say on stderr which evaluations are left out because their files are damaged.

    Args:
        damaged: a line for each, as `finished_evaluations` gives them.
    """
    for line in damaged:
        print(f"warning: left out, not a whole evaluation: {line}", file=sys.stderr)
