"""run_eval_checkpoints.sh through its nights: real evaluations of a real (small) model, damage, rotation, locks, full
disks."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from phase1.checkpoints.attempts import Gone, hold, look_again
from phase1.checkpoints.find import files_id, find_checkpoints, settled
from phase1.checkpoints.keep import remove
from phase1.files import BadInput, fingerprint, only_one, read_json, write_json
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


class Night:
    """A checkpoint folder, an output folder, and run_eval_checkpoints.sh over them."""

    def __init__(self, folder: Path, manifests: Path):
        self.checkpoints, self.outputs = folder / "check points", folder / "out puts"
        self.checkpoints.mkdir(parents=True)
        self.env = os.environ | {
            "CKPT_DIR": str(self.checkpoints),
            "OUTPUT_DIR": str(self.outputs),
            "MANIFEST_DIR": str(manifests),
            "PYTHON": sys.executable,
        }

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
        command = ["bash", ROOT / "run_eval_checkpoints.sh", "--settle", "0.2", *map(str, args)]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, *args: object, code: int = 0) -> tuple[str, str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code and "Traceback" not in err, (process.returncode, out, err)
        return out, err

    def attempts(self) -> list[dict]:
        return read_json(self.outputs / "attempts.json")["attempts"]


def loads(model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(model)
    AutoTokenizer.from_pretrained(model)


def complete(night: Night, step: int) -> bool:
    run = night.outputs / f"eval_step_{step}" / "run.json"
    return run.exists() and read_json(run)["status"] == "complete"


# -------------------------------------------------------------------------------------------------------- damage,
# rotation
@pytest.mark.slow
def test_what_is_broken_is_recorded_and_given_up_and_the_others_are_evaluated_and_the_best_outlives_rotation(
    tmp_path, model, manifests
):
    night = Night(tmp_path, manifests)
    for step in (100, 200, 300, 400, 500, 600):
        night.add(step, model)
    hf = {s: night.checkpoints / f"global_step_{s}" / "huggingface" for s in range(100, 700, 100)}
    os.truncate(hf[200] / "model.safetensors", 100_000)
    for name in ("tokenizer.json", "vocab.json"):
        (hf[300] / name).unlink()
    (hf[400] / "model.safetensors").rename(hf[400] / "model-00001-of-00002.safetensors")
    write_json(
        hf[400] / "model.safetensors.index.json",
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}},
    )
    (hf[500] / "model.safetensors").unlink()
    write_json(hf[500].parent / "fsdp_config.json", {"world_size": 2})
    torch.save({}, hf[500].parent / "model_world_size_2_rank_0.pt")
    before = {s: files_id(hf[s].parent) for s in hf}

    out, err = night.run("--max_attempts", 2, code=1)
    said = {
        200: "no whole safetensors",
        300: "tokenizer.json is missing",
        400: "model-00002-of-00002.safetensors",
        500: "no whole model_world_size_2_rank_1.pt",
    }
    rows = {r["step"]: r for r in night.attempts()}
    for step, text in said.items():
        assert rows[step]["exit_code"] == 1 and text in rows[step]["error"]
        assert re.search(rf"error: step {step}: attempt 1 of 2 failed: .*{re.escape(text)}", err)
    assert complete(night, 100) and complete(night, 600)
    assert {s: files_id(hf[s].parent) for s in hf} == before  # nothing is written into training's folders
    log = night.outputs / "logs" / "latest_attempt"
    assert log.is_symlink() and "codecontests_valid" in log.read_text()

    best = read_json(night.outputs / "best_checkpoint.json")
    assert (best["best_step"], best["kept"], best["runner_up"]["step"], best["runner_up"]["beyond_noise"]) == (
        100,
        True,
        600,
        False,
    )
    kept = night.outputs / "best_model"
    assert Path(best["model_path"]) == kept.resolve()
    assert all((kept / p.name).samefile(p) for p in hf[100].iterdir())
    assert [p.name for p in (night.outputs / "kept").iterdir()] == ["global_step_100"]

    shutil.rmtree(hf[100].parent)  # verl's rotation
    night.run("--max_attempts", 2, code=1)
    out, err = night.run("--max_attempts", 2)
    assert "step 200: skipped, given up after 2 attempts" in out and not err
    assert "step 100: skipped, evaluated" in out
    loads(kept)
    assert fingerprint(kept) == read_json(night.outputs / "eval_step_100" / "run.json")["model"]["fingerprint"]
    shutil.copy(hf[600] / "tokenizer.json", hf[300])
    out, _ = night.run("--max_attempts", 2, "--dry_run")
    assert "step 300: evaluating" in out  # mended: its attempts count anew

    status = subprocess.run(
        [
            sys.executable,
            "-m",
            "phase1.checkpoints",
            "status",
            "--checkpoint_dir",
            night.checkpoints,
            "--output_dir",
            night.outputs,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert status.returncode == 0 and "hard links" in status.stdout and "gone" in status.stdout, status.stderr
    page = (night.outputs / "status.html").read_text()
    assert "best: step 100" in page and "hard links" in page and "rank_1.pt" in page


@pytest.mark.slow
def test_watch_evaluates_what_appears_and_prune_deletes_only_what_nobody_needs(tmp_path, model, manifests):
    night = Night(tmp_path, manifests)
    night.add(100, model)
    watch = night.start("--watch", 1)
    deadline = time.monotonic() + 120
    while not (night.outputs / "best_checkpoint.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    for step in (200, 300):
        night.add(step, model)
    while not complete(night, 300) and time.monotonic() < deadline:
        time.sleep(0.2)
    night.add(350, model)
    while not (night.outputs / "eval_step_350" / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    watch.terminate()  # amid an evaluation
    watch.communicate(timeout=60)
    assert watch.returncode == 143 and not session_of(watch.pid)  # what it started has ended before it
    assert (night.outputs / "eval.lock").read_text() == "" and not list(night.outputs.rglob("*.tmp"))
    assert complete(night, 200) and complete(night, 300) and not complete(night, 350)
    for step in (400, 2000):
        night.add(step, model)
    out, _ = night.run("--dry_run", "--prune", "--since", 2000)
    assert "step 400: skipped, before --since 2000" in out
    assert "step 2000: evaluating codecontests_valid mbpp_reg codecontests_valid_big" in out
    with open(night.checkpoints / "global_step_200" / "huggingface" / "config.json") as f:
        reader = subprocess.Popen(["sleep", "60"], stdin=f)
    try:
        out, _ = night.run("--steps", 1, "--prune")
    finally:
        reader.kill()
        reader.wait()
    assert f"step 200 stays: in use by process {reader.pid}" in out and "step 100 stays: one of the best" in out
    assert "step 400 stays: not evaluated" in out and "step 2000 stays: the latest" in out
    assert re.search(r"step 300 deleted, 0\.00 GB", out)
    assert sorted(p.name for p in night.checkpoints.glob("*global*")) == [
        f"global_step_{s}" for s in (100, 200, 2000, 350, 400)
    ]


# ------------------------------------------------------------------------------------------------------------- the lock
@pytest.mark.slow
def test_of_twenty_concurrent_starts_one_works_and_a_killed_holder_frees_the_lock_and_takes_its_evaluation_along(
    tmp_path, model, manifests
):
    night = Night(tmp_path, manifests)
    night.add(100, model)
    starts = [night.start() for _ in range(20)]
    log = night.outputs / "logs" / "latest_attempt"
    deadline = time.monotonic() + 120
    while sum(p.poll() is None for p in starts) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    [holder] = [p for p in starts if p.poll() is None]
    others = [p for p in starts if p is not holder]
    assert [p.returncode for p in others] == [0] * 19
    assert all("another evaluation is at work (" in p.communicate()[0] for p in others)
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    late, _ = night.run()
    assert f"another evaluation is at work (process {holder.pid} since 20" in late
    holder.kill()
    holder.wait()
    with only_one(night.outputs / "eval.lock") as mine:
        assert mine
    while (left := session_of(holder.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    [row] = night.attempts()
    assert row["exit_code"] is None  # cut short: no fault of the checkpoint's


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


# ------------------------------------------------------------------------------------------------ growing and vanishing
def test_a_checkpoint_that_appears_grows_and_vanishes_while_it_is_looked_at_is_never_taken_half(tmp_path, model):
    """As when it is copied in from another machine after the tracker file: in small pieces, file after file, then
    deleted."""
    whole = fingerprint(model)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("9")
    stop, step = threading.Event(), tmp_path / "global_step_5"

    def copy_and_delete() -> None:
        while not stop.is_set():
            (step / "huggingface").mkdir(parents=True)
            for path in sorted(model.iterdir()):
                data = path.read_bytes()
                with open(step / "huggingface" / path.name, "wb") as f:
                    for at in range(0, len(data), 400_000):
                        f.write(data[at : at + 400_000])
                        f.flush()
                        time.sleep(0.004)
            time.sleep(0.2)
            # Slowly, and first what a model loads without: the hardest to notice.
            for name in (
                "generation_config.json",
                "chat_template.jinja",
                "merges.txt",
                "special_tokens_map.json",
                "vocab.json",
            ):
                (step / "huggingface" / name).unlink()
                time.sleep(0.04)
            shutil.rmtree(step)

    writer = threading.Thread(target=copy_and_delete)
    writer.start()
    taken, seen = 0, set()
    try:
        deadline = time.monotonic() + 20
        while (taken < 5 or "still growing" not in seen or len(seen) < 3) and time.monotonic() < deadline:
            for c in map(look_again, settled(find_checkpoints(tmp_path), 0.05)):
                seen.add(c.problem.split(":")[0].split("(")[0])
                if c.problem:
                    continue
                with contextlib.suppress(Gone, BadInput):  # it vanished: said, and left alone
                    held = hold(c, tmp_path / "outputs")
                    taken += 1
                    assert fingerprint(held) == whole
                    remove(held.parent)
    finally:
        stop.set()
        writer.join()
    assert taken >= 5 and "still growing" in seen, (taken, seen)


@pytest.mark.parametrize("name", ["generation_config.json", "model.safetensors"])
def test_a_deletion_that_begins_after_the_look_is_noticed_before_and_after_the_model_is_held(tmp_path, model, name):
    shutil.copytree(model, tmp_path / "global_step_5" / "huggingface")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("5")
    [c] = settled(find_checkpoints(tmp_path), 0)
    assert look_again(c).problem == "" and hold(c, tmp_path / "outputs")
    remove(tmp_path / "outputs" / "kept" / "global_step_5")
    (c.model_path / name).unlink()
    assert look_again(c).problem == "changed since this pass looked first" and not look_again(c).damaged
    with pytest.raises(Gone):
        hold(c, tmp_path / "outputs")
    assert not (tmp_path / "outputs" / "kept" / "global_step_5").exists()


# ----------------------------------------------------------------------------------------------------------- full disks
@pytest.mark.slow
def test_a_full_disk_at_every_write_damages_nothing_and_what_failed_is_done_when_there_is_room(
    tmp_path, model, manifests
):
    """tests/full_disk.py in a small tmpfs: outputs with less and less room, down to none."""
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
    )
    if probe.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {probe.stderr.decode().strip()}")
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            sys.executable,
            "-m",
            "tests.full_disk",
            tmp_path / "disk",
            model,
            manifests,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"(\d+) levels", done.stdout) and int(re.search(r"(\d+) levels", done.stdout)[1]) > 30


def test_it_waits_for_disk_space_and_says_so_when_there_is_none(tmp_path, model, manifests):
    night = Night(tmp_path, manifests)
    night.add(100, model)
    out, err = night.run("--min_free_gb", 10**9, "--max_wait", 0.5, code=2)
    assert "waiting for disk space" in out and "--min_free_gb asks for 1e+09" in err and err.count("\n") == 1


# ----------------------------------------------------------------------------------------------------------------- cron
@pytest.mark.slow
def test_the_cron_line_of_the_readme_works_as_written_with_crons_environment(tmp_path, model, manifests):
    [line] = re.findall(
        r"^\*/\d+ \* \* \* \* (.*run_eval_checkpoints\.sh.*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert "%" not in line  # cron would end the line there
    toolkit = tmp_path / "tool kit"
    shutil.copytree(ROOT / "phase1", toolkit / "phase1", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.sh")):
        shutil.copy(path, toolkit)
    (toolkit / ".venv").symlink_to(sys.prefix)
    (toolkit / "data").symlink_to(manifests.parent)
    night = Night(tmp_path / "x", manifests)
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
    done = subprocess.run(cron, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "",
        "",
    )  # what it prints, cron mails: nothing went wrong, no mail
    assert read_json(toolkit / "outputs" / "best_checkpoint.json")["best_step"] == 100
    assert "step 100: done" in (toolkit / "outputs" / "cron.log").read_text()
