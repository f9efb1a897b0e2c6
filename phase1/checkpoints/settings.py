"""The settings of the evaluator: where things lie, which steps, how, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The flags of `python -m phase1.checkpoints evaluate`, under the same names; --help describes them.

    Times are in seconds, room on the disk in GB (1e9 bytes), GPU memory in MiB. An empty `steps` means all steps,
    `gpus=None` all that are visible, `watch=None` a single pass. `passed_on`: flags for phase1_eval.py.
    """

    checkpoint_dir: Path
    output_dir: Path
    manifest_dir: Path
    steps: tuple[int, ...] = ()
    since: int | None = None
    tier2_every: int = 2000
    watch: float | None = None
    dry_run: bool = False
    settle: float = 5.0
    max_attempts: int = 3
    base_model: str | None = None
    dtype: str | None = None
    gpus: tuple[int, ...] | None = None
    max_gpu_mem_used: int = 2000
    force: bool = False
    min_free_gb: float = 2.0
    max_wait: float = 3600.0
    keep_best: int = 1
    prune: bool = False
    phase0_metrics: Path | None = None
    passed_on: tuple[str, ...] = ()

    def sets_of(self, step: int) -> list[str]:
        """The data sets of a checkpoint, sets.toml's too: tier 1 always, tier 2 every `tier2_every` steps."""
        from phase1.contract.own_sets import known_sets  # late: a start that finds the lock taken needs none of it

        tiers = (1, 2) if step % self.tier2_every == 0 else (1,)
        return [s.name for s in known_sets(self.manifest_dir).values() if s.tier in tiers]

    def evaluation_dir(self, step: int) -> Path:
        """Where phase1_eval.py writes the evaluation of a step."""
        return self.output_dir / f"eval_step_{step}"

    @property
    def best_checkpoint(self) -> Path:
        """The file that names the best step."""
        from phase1.contract.state import best_checkpoint  # late, as above

        return self.output_dir / best_checkpoint.NAME
