"""run_eval_checkpoints.sh through its nights: damage, rotation, signals, locks, full disks, cron.

Evaluations are real, of a small model, where that matters; elsewhere a stand-in takes their place.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.find import files_id
from phase1.files import fingerprint, only_one, read_json, write_json
from tests.checkpoints.made import Place
from tests.conftest import ROOT, first_problems

pytestmark = pytest.mark.xdist_group("night")


@pytest.fixture(scope="module")
def model(base_model, tmp_path_factory) -> Path:
    """The demo's base model, which ends every answer at once: all its tokens end the text."""
    path = tmp_path_factory.mktemp("model") / "huggingface"
    shutil.copytree(base_model, path)
    config = read_json(path / "generation_config.json")
    vocabulary = read_json(path / "config.json")["vocab_size"]
    write_json(path / "generation_config.json", config | {"eos_token_id": list(range(vocabulary))})
    return path


@pytest.fixture(scope="module")
def manifests(tmp_path_factory) -> Path:
    return first_problems(tmp_path_factory.mktemp("data"), 2)


@pytest.fixture
def toolkit(tmp_path) -> Path:
    """The toolkit with a phase1_eval.py that takes no time, or waits for as long as its `hold` is there."""
    root = tmp_path / "tool kit"
    shutil.copytree(ROOT / "phase1", root / "phase1", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_eval_checkpoints.sh", root)
    shutil.copy(ROOT / "tests/checkpoints/stub_eval.py", root / "phase1_eval.py")
    return root


class Night(Place):
    """Checkpoints with a model each, and run_eval_checkpoints.sh of a toolkit over them."""

    def __init__(self, folder: Path, manifests: Path, root: Path = ROOT):
        super().__init__(folder, manifests)
        self.root = root

    def add(self, step: int, model: Path) -> Path:
        """A checkpoint as verl leaves it, without its optimizer; its weights are the step's own."""
        target = self.checkpoints / f"global_step_{step}" / "huggingface"
        shutil.copytree(model, target)
        weights = load_file(target / "model.safetensors")
        weights["model.norm.weight"] += step / 1e4
        save_file(weights, target / "model.safetensors", {"format": "pt"})
        (self.checkpoints / "latest_checkpointed_iteration.txt").write_text(str(step))
        return target

    def start(self, *args: object) -> subprocess.Popen:
        """The script in a session of its own, still running."""
        command = ["bash", self.root / "run_eval_checkpoints.sh", "--settle", "0.2", *map(str, args)]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, *args: object) -> str:
        """The script to its end, which is a good one; returns what it printed."""
        process = self.start(*args)
        out, err = process.communicate()
        assert (process.returncode, err) == (0, ""), out
        return out


def wait_until(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    """However long it takes on a busy machine, but no longer than the process lives that is to bring it about."""
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def loads(model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(model)
    AutoTokenizer.from_pretrained(model)


def complete(night: Night, step: int) -> bool:
    run = night.outputs / f"eval_step_{step}" / "run.json"
    return run.exists() and read_json(run)["status"] == "complete"


# ------------------------------------------------------------------------------------------------- damage, rotation
@pytest.mark.slow
def test_what_is_broken_is_recorded_and_given_up_and_the_others_are_evaluated_and_the_best_outlives_rotation(
    tmp_path, model, manifests
):
    night = Night(tmp_path, manifests)
    hf = {step: night.add(step, model) for step in range(100, 700, 100)}
    os.truncate(hf[200] / "model.safetensors", 100_000)
    for name in ("tokenizer.json", "vocab.json"):
        (hf[300] / name).unlink()
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    (hf[400] / "model.safetensors").rename(hf[400] / first)
    write_json(hf[400] / "model.safetensors.index.json", {"weight_map": {"a": first, "b": second}})
    (hf[500] / "model.safetensors").unlink()
    write_json(hf[500].parent / "fsdp_config.json", {"world_size": 2})
    torch.save({}, hf[500].parent / "model_world_size_2_rank_0.pt")
    before = {s: files_id(hf[s].parent) for s in hf}

    run = night.evaluate("--max_attempts", 2)
    assert run.returncode == 1
    said = {
        200: "no whole safetensors",
        300: "tokenizer.json is missing",
        400: second,
        500: "no whole model_world_size_2_rank_1.pt",
    }
    rows = {r.step: r for r in Attempts(night.outputs).rows}
    for step, text in said.items():
        assert rows[step].exit_code == 1 and text in rows[step].error
        assert re.search(rf"error: step {step}: attempt 1 of 2 failed: .*{re.escape(text)}", run.stderr)
    assert complete(night, 100) and complete(night, 600)
    assert {s: files_id(hf[s].parent) for s in hf} == before  # nothing is written into training's folders
    log = night.outputs / "logs" / "latest_attempt"
    assert log.is_symlink() and "codecontests_valid" in log.read_text()

    best = read_json(night.outputs / "best_checkpoint.json")
    assert (best["best_step"], best["kept"]) == (100, True)
    assert (best["runner_up"]["step"], best["runner_up"]["beyond_noise"]) == (600, False)
    kept = night.outputs / "best_model"
    assert best["model_path"] == "kept/global_step_100/huggingface" and best["fingerprint"] == fingerprint(kept)
    assert all((kept / p.name).samefile(p) for p in hf[100].iterdir())
    assert [p.name for p in (night.outputs / "kept").iterdir()] == ["global_step_100"]

    shutil.rmtree(hf[100].parent)  # verl's rotation
    assert night.evaluate("--max_attempts", 2).returncode == 1
    run = night.evaluate("--max_attempts", 2)
    assert (run.returncode, run.stderr) == (0, "")
    assert "step 200: skipped, given up after 2 attempts" in run.stdout
    assert "step 100: skipped, evaluated" in run.stdout
    loads(kept)
    assert fingerprint(kept) == read_json(night.outputs / "eval_step_100" / "run.json")["model"]["fingerprint"]
    shutil.copy(hf[600] / "tokenizer.json", hf[300])
    run = night.evaluate("--max_attempts", 2, "--dry_run")
    assert "step 300: evaluating" in run.stdout  # repaired: its attempts count anew

    status = night.status()
    assert status.returncode == 0 and "hard links" in status.stdout and "gone" in status.stdout, status.stderr
    page = (night.outputs / "status.html").read_text()
    assert "best: step 100" in page and "hard links" in page and "rank_1.pt" in page


@pytest.mark.slow
def test_watch_evaluates_what_appears_and_a_signal_ends_the_evaluation_that_runs_first(
    tmp_path, model, manifests, toolkit
):
    night = Night(tmp_path, manifests, toolkit)
    night.add(100, model)
    watch = night.start("--watch", 1)
    wait_until(lambda: complete(night, 100), watch)
    night.add(200, model)
    wait_until(lambda: complete(night, 200), watch)
    (toolkit / "hold").touch()
    night.add(300, model)
    wait_until((toolkit / "waiting").exists, watch)
    watch.terminate()
    watch.communicate()
    assert watch.returncode == 143 and not session_of(watch.pid)  # what it started has ended before it
    assert (night.outputs / "eval.lock").read_text() == "" and not list(night.outputs.rglob("*.tmp"))
    assert not complete(night, 300)
    (toolkit / "hold").unlink()
    assert "step 300: done" in night.run()


@pytest.mark.slow
def test_prune_deletes_only_what_nobody_needs(tmp_path, model, manifests, toolkit):
    night = Night(tmp_path, manifests, toolkit)
    for step in (100, 200, 300):
        night.add(step, model)
    night.run()
    for step in (400, 2000):
        night.add(step, model)
    out = night.run("--dry_run", "--prune", "--steps", 2000)
    assert "step 2000: evaluating codecontests_valid mbpp_reg codecontests_valid_big" in out
    assert "step 300 would be deleted" in out
    with open(night.checkpoints / "global_step_200" / "huggingface" / "config.json") as f:
        reader = subprocess.Popen(["tail", "-f", "/dev/null"], stdin=f)
    try:
        out = night.run("--since", 10**6, "--prune")
    finally:
        reader.kill()
        reader.wait()
    assert f"step 200 stays: in use by process {reader.pid}" in out and "step 100 stays: one of the best" in out
    assert "step 400 stays: not evaluated" in out and "step 2000 stays: the latest" in out
    assert re.search(r"step 300 deleted, 0\.00 GB", out)
    left = sorted(int(p.name.removeprefix("global_step_")) for p in night.checkpoints.glob("global_step_*"))
    assert left == [100, 200, 400, 2000]


# ------------------------------------------------------------------------------------------------------------- the lock
@pytest.mark.slow
def test_of_twenty_concurrent_starts_one_works_and_a_killed_holder_frees_the_lock_and_takes_its_evaluation_along(
    tmp_path, model, manifests, toolkit
):
    night = Night(tmp_path, manifests, toolkit)
    night.add(100, model)
    (toolkit / "hold").touch()
    starts = [night.start() for _ in range(20)]
    wait_until(lambda: sum(p.poll() is None for p in starts) == 1)
    [holder] = [p for p in starts if p.poll() is None]
    others = [p for p in starts if p is not holder]
    assert [p.returncode for p in others] == [0] * 19
    assert all("another evaluation is at work (" in p.communicate()[0] for p in others)
    wait_until((toolkit / "waiting").exists, holder)
    assert f"another evaluation is at work (process {holder.pid} since 20" in night.run()
    holder.kill()
    holder.communicate()
    with only_one(night.outputs / "eval.lock") as mine:
        assert mine
    wait_until(lambda: not session_of(holder.pid))
    [row] = Attempts(night.outputs).rows
    assert row.exit_code is None  # cut short: no fault of the checkpoint


def session_of(session: int) -> list[int]:
    """The live processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


# ----------------------------------------------------------------------------------------------------------- full disks
@pytest.mark.slow
def test_a_full_disk_at_every_write_damages_nothing_and_what_failed_is_done_when_there_is_room(
    tmp_path, model, manifests
):
    """tests/checkpoints/full_disk.py in a small tmpfs: outputs with less and less room, down to none."""
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
    )
    if probe.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {probe.stderr.decode().strip()}")
    (tmp_path / "disk").mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.checkpoints.full_disk"]
    command += [tmp_path / "disk", model, manifests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"(\d+) levels", done.stdout) and int(re.search(r"(\d+) levels", done.stdout)[1]) > 30


# ----------------------------------------------------------------------------------------------------------------- cron
@pytest.mark.slow
def test_the_cron_line_of_the_readme_works_as_written_with_crons_environment(tmp_path, model, manifests, toolkit):
    [line] = re.findall(
        r"^\*/\d+ \* \* \* \* (.*run_eval_checkpoints\.sh.*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert "%" not in line  # cron would end the line there
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.sh")):
        shutil.copy(path, toolkit)
    (toolkit / ".venv").symlink_to(sys.prefix)
    (toolkit / "data").symlink_to(manifests.parent)
    night = Night(tmp_path, manifests)
    night.add(100, model)
    shutil.copytree(night.checkpoints, toolkit / "checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder")
    line = line.replace("/path/to/toolkit", f"'{toolkit}'")
    cron = [
        "env",
        "-i",
        f"HOME={tmp_path}",
        "LOGNAME=root",
        "SHELL=/bin/sh",
        "PATH=/usr/bin:/bin",
        "/bin/sh",
        "-c",
        line,
    ]
    done = subprocess.run(cron, cwd=tmp_path, capture_output=True, text=True)
    # What it prints, cron mails: nothing went wrong, no mail.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert read_json(toolkit / "outputs" / "best_checkpoint.json")["best_step"] == 100
    assert "step 100: done" in (toolkit / "outputs" / "cron.log").read_text()
