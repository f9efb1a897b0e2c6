"""Evaluations to compare: a small base, a better, a worse and an equal model; the golden report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.report.fake_evaluations import IMPROVED, PHASE0, WORSE, Fake, write_evaluation, write_original_phase0
from tests.report.running import GOLDEN, SMALL, generate


@pytest.fixture(scope="session")
def evaluations(tmp_path_factory) -> dict[str, Path]:
    """metrics.json of a small base, a better, a worse and an equal SFT model, and of the original project's Phase 0."""
    root = tmp_path_factory.mktemp("evaluations")
    for name, rates, seed in (("base", PHASE0, 0), ("better", IMPROVED, 1), ("worse", WORSE, 1), ("equal", PHASE0, 0)):
        write_evaluation(root / name, Fake(rates, sizes=SMALL, seed=seed))
    write_original_phase0(root / "original")
    return {p.name: p / "metrics.json" for p in root.iterdir()}


@pytest.fixture
def sides(evaluations, tmp_path):
    """Copies of base and better that a test may damage."""
    for name in ("base", "better"):
        shutil.copytree(evaluations[name].parent, tmp_path / name)
    return tmp_path / "base", tmp_path / "better"


@pytest.fixture(scope="session")
def golden(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("golden")
    done = generate(
        "--phase0_metrics",
        "phase0/metrics.json",
        "--phase1_metrics",
        "phase1/metrics.json",
        "--output_dir",
        out,
        "--checkpoints",
        "phase1",
        plots=True,
        cwd=GOLDEN,
    )
    assert done.returncode == 0, done.stderr
    return out
