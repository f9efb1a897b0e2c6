"""Where the run lies that a hand-off belongs to: its evaluations and report, its data, its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.checkpoints.keep import KeptModel
from phase1.contract.state import sft_report, train_run
from phase1.contract.state.base import path_from
from phase1.contract.state.sft_report import SftReport
from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput, read_json, sha256_file
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

    Evaluations and report lie beside the checkpoint's evaluation, else in the toolkit's outputs/. The data lie where
    train_run.json says, else beside the evaluations, as in the demo, else in the toolkit's data/. The best models are
    kept elsewhere than trained; kept.json says where.

    Raises:
        BadInput: kept.json or train_run.json is broken.
    """
    outputs = h.evaluation.parent if h.evaluation else toolkit / "outputs"
    kept = h.model.parent / "kept.json"
    trained = path_from(KeptModel.read(kept).source, kept) if kept.exists() else h.model
    checkpoints = trained.parent.parent
    homes = [outputs / "data", toolkit / "data"]
    record = checkpoints / train_run.NAME
    if record.exists():
        data = trained_on(TrainRun.read(record), homes)
    else:
        data = next((home for home in homes if (home / "sft_train.parquet").exists()), homes[-1])
    return RunFolders(outputs, data, checkpoints)


def trained_on(run: TrainRun, homes: list[Path]) -> Path:
    """The folder of the file that a run was trained on, told by its hash, since a project may have been moved.

    Args:
        homes: where else it may lie than where train_run.json says.

    Returns:
        The folder that train_run.json names where no file with that hash is there.
    """
    hashes = run.shape.get("data.train_files")
    for file in [*run.train_files, *(home / "sft_train.parquet" for home in homes)]:
        if file.exists() and isinstance(hashes, list) and f"sha256 {sha256_file(file)}" in hashes:
            return file.parent
    return run.train_files[0].parent if run.train_files else homes[-1]


def training_report(folders: RunFolders) -> SftReport:
    """prepare_sft_data.py's report of the rows that the run was trained on.

    Raises:
        BadInput: there is none, it is damaged, or it is of other rows: the data were prepared again.
    """
    path, record = folders.data / sft_report.NAME, folders.checkpoints / train_run.NAME
    report: SftReport = SftReport.read(path)
    trained = TrainRun.read(record).shape.get("data.train_files") if record.exists() else None
    made = [f"sha256 {sha256}" for sha256 in report.outputs_sha256.values()]
    if made and isinstance(trained, list) and not set(made) & set(map(str, trained)):
        raise BadInput(f"{path}: is of other rows than {record} was trained on; copy that run's back")
    return report


class Comparison(NamedTuple):
    """The report's verdict on Phase 1 against Phase 0.

    `phase0`, `phase1`: fingerprints of the models that were compared; None where a report or an evaluation of before
    does not say. `mismatches`: how the two sides were measured otherwise, also where --allow_mismatch passed over it.
    `outdated`: metrics.json files that are no longer those that the report read.
    """

    path: str
    verdict: dict[str, JsonValue] | None
    phase0: list[str] | None
    phase1: list[str] | None
    mismatches: list[str]
    outdated: list[Path]

    @property
    def word(self) -> str | None:
        """Its verdict in a word (phase1.report.verdict.WORDS)."""
        word = (self.verdict or {}).get("word")
        return word if isinstance(word, str) else None

    @property
    def line(self) -> str:
        """Its first line."""
        return str((self.verdict or {}).get("line") or "nothing")


def comparison_at(path: Path) -> Comparison | None:
    """The comparison with Phase 0 in comparison_data.json; None where no report was written.

    Raises:
        BadInput: the file is damaged.
    """
    if not path.exists():
        return None
    data = read_json(path)
    models = data.get("models") or {}
    mismatches = [str(f.get("text")) for f in data.get("findings") or [] if f.get("kind") == "mismatch"]
    read = {path_from(named, path): sha256 for named, sha256 in (data.get("read") or {}).items()}
    return Comparison(
        str(path),
        data.get("verdict"),
        models.get("phase0") or None,
        models.get("phase1") or None,
        mismatches,
        [file for file, sha256 in read.items() if file.exists() and sha256_file(file) != sha256],
    )
