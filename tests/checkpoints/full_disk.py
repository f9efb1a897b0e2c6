"""Passes over two evaluations and three checkpoints with less and less room for outputs, in a tmpfs.

Run by test_night.py:

    unshare --user --map-root-user --mount python -m tests.checkpoints.full_disk EMPTY_DIR MODEL MANIFEST_DIR

Each level starts from the same good state, in which step 100 is the best, kept by copy since its checkpoint lies on
another file system. Then step 200 turns out better, a broken checkpoint is there to be recorded, and so many pages are
left free.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

from phase1.checkpoints import status_page
from phase1.checkpoints.__main__ import main
from phase1.checkpoints.keep import kept_model
from phase1.contract.problems import data_hashes, load_problems
from phase1.files import fingerprint, read_json, write_json

PAGE = os.sysconf("SC_PAGE_SIZE")


def write_evaluation(outputs: Path, step: int, model: Path, manifests: Path, rate: float) -> None:
    sets = {d: data_hashes(manifests, d, load_problems(manifests, d)) for d in ("codecontests_valid", "mbpp_reg")}
    folder = outputs / f"eval_step_{step}"
    write_json(
        folder / "run.json",
        {"status": "complete", "model": {"path": str(model), "fingerprint": fingerprint(model)}, "datasets": sets},
    )
    write_json(
        folder / "summary.json",
        {"datasets": {d: {"exec_success_rate": rate, "accepted_at_1": rate, "total_problems": 2} for d in sets}},
    )


def one_pass(checkpoints: Path, outputs: Path, manifests: Path) -> tuple[int, str]:
    """(exit code, stderr) of one start of the evaluator, in this process: starting one costs more than its work."""
    arguments = ["evaluate", "--checkpoint_dir", str(checkpoints), "--output_dir", str(outputs)]
    arguments += ["--manifest_dir", str(manifests), "--settle", "0", "--min_free_gb", "0", "--max_attempts", "9999"]
    errors = io.StringIO()
    with (
        mock.patch.object(status_page, "draw", return_value=""),  # takes longer than all else and writes nothing
        mock.patch("phase1.files.git_revision", return_value=None),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
    ):
        try:
            return main(arguments), errors.getvalue()
        except OSError as e:  # as run_script turns it into one line and exit code 2
            return 2, f"{e.filename}: {e.strerror}"


def check_whole(outputs: Path, level: int) -> None:
    """Every JSON file is whole, no temporary one is left, and what best_checkpoint.json and best_model name can be
    loaded."""
    for path in outputs.rglob("*"):
        if path.suffix == ".json" and path.is_file():
            json.loads(path.read_text())
        assert not path.name.endswith((".tmp", ".removed")), (level, path)
    best = read_json(outputs / "best_checkpoint.json")
    run = read_json(outputs / f"eval_step_{best['best_step']}" / "run.json")
    chosen = outputs / best["model_path"]
    assert fingerprint(chosen) == run["model"]["fingerprint"] == best["fingerprint"], (level, chosen)
    link = outputs / "best_model"
    assert not link.is_symlink() or kept_model(outputs, int(link.resolve().parent.name.split("_")[-1])), level
    page = outputs / "status.html"
    assert not page.exists() or page.read_text().endswith("</html>"), level
    assert kept_model(outputs, 100) or kept_model(outputs, 200), level


if __name__ == "__main__":
    disk, model, manifests = map(Path, sys.argv[1:])
    checkpoints = disk.with_name("checkpoints")
    for step in (100, 200, 300):
        shutil.copytree(model, checkpoints / f"global_step_{step}" / "huggingface")
        write_json(checkpoints / f"global_step_{step}" / "huggingface" / "added.json", {"step": step})
    os.truncate(checkpoints / "global_step_300" / "huggingface" / "model.safetensors", 1000)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("300")
    size = sum(p.stat().st_size // PAGE + 2 for p in model.iterdir())  # pages that a copy takes
    good = disk.with_name("good")  # in which every level starts
    write_evaluation(good, 100, checkpoints / "global_step_100" / "huggingface", manifests, 0.5)
    write_evaluation(good, 200, checkpoints / "global_step_200" / "huggingface", manifests, 0.0)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    shutil.copytree(good, disk / "outputs")
    assert one_pass(checkpoints, disk / "outputs", manifests)[0] == 1  # the broken step 300
    check_whole(disk / "outputs", -1)
    shutil.rmtree(good)
    shutil.copytree(disk / "outputs", good, symlinks=True)
    subprocess.run(["umount", disk], check=True)
    codes = []
    # Near nothing and near what the copy takes, page by page: in between one write differs little from the next.
    levels = [*range(0, 16), *range(16, size, 100), *range(size - 8, size + 22, 2)]
    for level in levels:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
        outputs = disk / "outputs"
        shutil.copytree(good, outputs, symlinks=True)
        write_evaluation(outputs, 200, checkpoints / "global_step_200" / "huggingface", manifests, 1.0)
        filler = disk / "filler"
        with open(filler, "wb") as f:
            room = os.statvfs(disk)
            with contextlib.suppress(OSError):
                os.posix_fallocate(f.fileno(), 0, max(0, room.f_bavail - level) * PAGE)
        code, said = one_pass(checkpoints, outputs, manifests)
        codes.append(code)
        assert code in (1, 2) and said, (level, code, said)
        check_whole(outputs, level)
        filler.unlink()
        assert one_pass(checkpoints, outputs, manifests)[0] == 1
        check_whole(outputs, level)
        assert read_json(outputs / "best_checkpoint.json")["best_step"] == 200 and kept_model(outputs, 200), level
        subprocess.run(["umount", disk], check=True)
    print(f"{len(levels)} levels, exit codes {sorted(set(codes))}")
