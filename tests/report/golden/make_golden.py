"""Write the golden inputs anew, and from them the golden table: python tests/report/golden/make_golden.py

The table is read by eye before it is committed; tests/report/test_tables.py counts every number of it from the records
again.
"""

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.report.fake_evaluations import Fake, write_evaluation

HERE = Path(__file__).resolve().parent
# Small enough to store, mixed enough that no row is trivial: both phases solve at least 10 of the valid set.
BEFORE = {
    "codecontests_valid": (0.3, 0.3, 0.15, 0.2, 0.05),
    "codecontests_test": (0.1, 0.5, 0.1, 0.2, 0.1),
    "humaneval": (0.8, 0.1, 0.0, 0.1, 0.0),
    "mbpp_reg": (0.6, 0.3, 0.0, 0.1, 0.0),
}
AFTER = {
    "codecontests_valid": (0.45, 0.4, 0.05, 0.08, 0.02),
    "codecontests_valid_big": (0.4, 0.4, 0.05, 0.1, 0.05),
    "codecontests_test": (0.2, 0.6, 0.1, 0.1, 0.0),
    "humaneval": (0.7, 0.1, 0.0, 0.2, 0.0),
    "mbpp_reg": (0.65, 0.3, 0.0, 0.05, 0.0),
}
SIZES = {
    "codecontests_valid": 48,
    "codecontests_valid_big": 16,
    "codecontests_test": 20,
    "humaneval": 24,
    "mbpp_reg": 20,
}

for name, rates, seed in (("phase0", BEFORE, 5), ("phase1", AFTER, 6)):
    shutil.rmtree(HERE / name, ignore_errors=True)
    write_evaluation(HERE / name, Fake(rates, sizes={d: SIZES[d] for d in rates}, seed=seed, noise=0.2))
    shutil.rmtree(HERE / name / "qa_logs")
subprocess.run(
    [
        sys.executable,
        HERE.parents[2] / "generate_report.py",
        "--phase0_metrics",
        "phase0/metrics.json",
        "--phase1_metrics",
        "phase1/metrics.json",
        "--output_dir",
        HERE / "report",
        "--checkpoints",
        "phase1",
    ],
    cwd=HERE,
    check=True,
)
(HERE / "report" / "comparison_table.md").rename(HERE / "comparison_table.md")
shutil.rmtree(HERE / "report")
