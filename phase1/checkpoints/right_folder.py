"""Whether a folder is that of a training run, and the steps asked for are there or still to come.

cron looks at a folder night after night, and nobody reads what it prints as long as it exits with 0. So a path or a
step with a slip in it must end with an error, and a run that has not saved its first checkpoint must not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phase1.contract.state.tracker import TRACKER, read_tracker, step_folders, steps_told
from phase1.files import BadInput

# run_sft.sh makes the lock before it does anything else, train_run.json before training starts.
MARKS = ("train_run.json", ".train_node*.lock", TRACKER)


def refuse_other_folder(checkpoint_dir: Path) -> None:
    """Refuse a folder to which neither run_sft.sh nor verl ever wrote.

    Raises:
        BadInput: says so, and names a folder below that is a run's.
    """
    if is_run(checkpoint_dir):
        return
    below = next(
        (p for p in sorted(checkpoint_dir.glob("*/")) + sorted(checkpoint_dir.glob("*/*/")) if is_run(p)), None
    )
    fix = f"did you mean {below}?" if below else "name the CKPT_DIR of run_sft.sh, which marks it when training starts"
    raise BadInput(f"{checkpoint_dir}: no training run wrote here: no train_run.json, no global_step_N folder; {fix}")


def is_run(folder: Path) -> bool:
    """Whether a training run wrote to a folder, be it before its first checkpoint."""
    return bool(step_folders(folder)) or any(any(folder.glob(mark)) for mark in MARKS)


def refuse_other_steps(checkpoint_dir: Path, output_dir: Path, steps: Sequence[int]) -> None:
    """Refuse --steps of which none is there, was evaluated or kept, or can still be saved.

    Args:
        steps: those asked for; nothing is checked where there are none.

    Raises:
        BadInput: names the first one, and the steps that are there.
    """
    there = step_folders(checkpoint_dir).keys()
    done = step_folders(output_dir, "eval_step_").keys() | step_folders(output_dir / "kept").keys()
    if steps and not any(step in there or step in done or to_come(checkpoint_dir, step) for step in steps):
        raise BadInput(
            f"--steps: {checkpoint_dir} has no step {steps[0]}, and none is awaited; {steps_told(checkpoint_dir)}"
        )


def to_come(checkpoint_dir: Path, step: int) -> bool:
    """Whether the training, by its own train_run.json, may still save a step."""
    from phase1.contract.state import train_run  # late: most starts need neither this nor pydantic
    from phase1.contract.state.train_run import TrainRun

    path = checkpoint_dir / train_run.NAME
    if not path.is_file():  # its lock alone: the training is only starting
        return not step_folders(checkpoint_dir)
    run = TrainRun.read(path)
    return run.status != "complete" and (read_tracker(checkpoint_dir) or 0) < step <= run.expected_steps
