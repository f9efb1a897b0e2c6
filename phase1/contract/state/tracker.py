"""verl's marks in a checkpoint folder: the tracker file, and folders whose names end in a step."""

from __future__ import annotations

import re
from pathlib import Path

TRACKER = "latest_checkpointed_iteration.txt"  # verl writes it last: the step that was saved to its end, a bare integer


def read_tracker(checkpoint_dir: Path) -> int | None:
    """The step that verl saved last; None where its tracker file is missing or unreadable."""
    try:
        return int((checkpoint_dir / TRACKER).read_text())
    except (OSError, ValueError):
        return None


def step_folders(parent: Path, prefix: str = "global_step_") -> dict[int, Path]:
    """The folders of `parent` that are named `prefix` and a number, by number."""
    found = {p.name.removeprefix(prefix): p for p in parent.glob(f"{prefix}*")}
    return {int(n): p for n, p in found.items() if re.fullmatch(r"\d+", n)}


def steps_told(checkpoint_dir: Path) -> str:
    """Which steps lie in a folder, as the end of a message that one of them does not."""
    if steps := sorted(step_folders(checkpoint_dir)):
        return f"there are {', '.join(map(str, steps))}"
    return f"there is no global_step_N folder in {checkpoint_dir}"
