"""Where the run lies that a hand-off belongs to: its evaluations and report, its data, its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.checkpoints.keep import KeptModel
from phase1.files import read_json
from phase1.handoff.handoff import Handoff


@dataclass(frozen=True)
class RunFolders:
    """outputs/ and data/ of the run, and the folder with its global_step_N/."""

    outputs: Path
    data: Path
    checkpoints: Path

    @property
    def smoke_test(self) -> Path:
        """The checkpoints of the smoke test, which the plan has beside those of the run."""
        return self.checkpoints.parent / "smoke_test"

    @property
    def comparison(self) -> Path:
        """The report's numbers: Phase 1 against Phase 0."""
        return self.outputs / "report" / "comparison_data.json"

    @property
    def final(self) -> Path:
        """The final evaluation."""
        return self.outputs / "eval_final"


def run_folders(h: Handoff, toolkit: Path) -> RunFolders:
    """The folders of the run that made the model.

    Evaluations and report lie beside the checkpoint's evaluation, else in the toolkit's outputs/; data beside them, as
    in the demo, else in the toolkit's data/. The best models are kept elsewhere than trained; kept.json says where.

    Raises:
        BadInput: kept.json is broken.
    """
    outputs = h.evaluation.parent if h.evaluation else toolkit / "outputs"
    beside = outputs / "data"
    data = beside if (beside / "sft_train.parquet").exists() else toolkit / "data"
    kept = h.model.parent / "kept.json"
    trained = Path(KeptModel.read(kept).source) if kept.exists() else h.model
    return RunFolders(outputs, data, trained.parent.parent)


class Comparison(NamedTuple):
    """The report's verdict on Phase 1 against Phase 0, and the file that it stands in, as handoff.json holds them."""

    path: str
    verdict: dict[str, JsonValue] | None


def comparison_verdict(folders: RunFolders) -> Comparison | None:
    """The comparison with Phase 0; None where no report was written."""
    path = folders.comparison
    return Comparison(str(path), read_json(path).get("verdict")) if path.exists() else None
