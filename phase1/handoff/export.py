"""The model's files in another place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from phase1.files import replacing


def export_model(model: Path, target: Path) -> Path:
    """Put the model's files at `target`, hard links where the disk allows, and return it; whole or not at all."""
    with replacing(target) as temp:
        temp.mkdir()
        for path in sorted(p for p in model.rglob("*") if p.is_file()):
            copy = temp / path.relative_to(model)
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), copy)  # the file itself: a link of a hub cache would lead nowhere from here
            except OSError:  # another file system, or one without hard links
                shutil.copy2(path, copy)
    return target
