"""SIGKILL at random moments of trainings with BACKGROUND_SAVE=1: whole checkpoints, the same loss, nothing left behind.

    VENV_LATEST=.venv-latest python tests/bench/kill_save.py --work /tmp/kills    # a check; half an hour

run_sft.sh with the real verl 0.9.1 on a CPU, two processes, a checkpoint every second step, a trainer and a copier
that dawdle over each file, so that kills meet them. Once undisturbed and saved directly; then again and again killed at
a random moment and started again by the same command: by turns a rank, torchrun, the copier, run_sft.sh, and everything
at once. Exit 1 where a published checkpoint differs from the undisturbed run's in a single bit, the tracker names one
that is not there, a loss differs, or something of the run is left in /dev/shm, in CKPT_DIR or among the processes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.contract.state.tracker import read_tracker, step_folders
from phase1.train.saving import staging_folder
from tests.train.saved import contents
from tests.train.sft_runs import ROOT, Run, addition, members, wait_until

STEPS, EVERY = 24, 2
VICTIMS = ("a rank", "torchrun", "copier", "run_sft.sh", "everything")
DAWDLES = """
import random, sys, time
def dawdle(event, args):
    path = str(args[0]) if args else ""
    if (event == "open" and ".incoming/" in path) or event in ("os.rename", "shutil.rmtree", "os.rmdir"):
        time.sleep(random.random() / 4)
def dawdle_over_memory(event, args):
    if event in ("open", "os.mkdir") and "/phase1_save_" in str(args[0]):
        time.sleep(random.random() / 4)
if "phase1.train.copy_save" in sys.orig_argv:
    sys.addaudithook(dawdle)
elif "verl.trainer.sft_trainer" in sys.orig_argv:
    sys.addaudithook(dawdle_over_memory)
"""


def main() -> int:
    args = parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    rng = random.Random(args.seed)
    env = environment(args.work)
    (args.work / "calm").mkdir()
    began = time.monotonic()
    calm = Run(env, args.work / "calm" / "ckpt").wait()
    span = time.monotonic() - began
    if calm.process.returncode:
        sys.exit(f"the undisturbed run failed:\n{calm.output}")
    wanted = {step: contents(path) for step, path in step_folders(calm.ckpt_dir).items()}
    losses = losses_of(calm.output_dir)
    print(f"undisturbed: {span:.0f} s, checkpoints {sorted(wanted)}", flush=True)
    kills: Counter[str] = Counter()
    wrong: list[str] = []
    trainings = 0
    while kills.total() < args.kills:
        trainings += 1
        folder = args.work / f"training {trainings}"
        folder.mkdir()
        wrong += one_training(env | {"BACKGROUND_SAVE": "1"}, folder / "ckpt", rng, span, kills, wanted, args.kills)
        if (got := losses_of(folder / "outputs")) != losses:
            wrong.append(f"{folder}: other losses at steps {[s for s in losses if got.get(s) != losses[s]]}")
        if not wrong:
            shutil.rmtree(folder)
    for line in wrong:
        print(f"WRONG {line}")
    print(f"{kills.total()} kills in {trainings} trainings: {', '.join(f'{v} {n}' for n, v in sorted(kills.items()))}")
    return int(bool(wrong))


def one_training(
    env: dict[str, str],
    ckpt_dir: Path,
    rng: random.Random,
    span: float,
    kills: Counter[str],
    wanted: dict[int, dict[str, object]],
    most: int,
) -> list[str]:
    """Start it until it ends by itself, killing it while kills are left; what is not as it must be."""
    wrong: list[str] = []
    checked: set[int] = set()
    while True:
        before = read_tracker(ckpt_dir) or 0
        earlier = newest_log(ckpt_dir)
        run = Run(env, ckpt_dir)
        kill = victim = ""
        if kills.total() < most:
            victim = rng.choice(VICTIMS)
            kill = kill_at_random(run, victim, rng, span, earlier)
            kills[victim] += bool(kill)
        run.wait()
        wait_until(lambda: not members(ckpt_dir), 120)
        at = f"{ckpt_dir} after {kill or 'no kill'}"
        tracker = read_tracker(ckpt_dir)
        print(f"{at}: step {before} -> {tracker}, exit code {run.process.returncode}", flush=True)
        for step, path in step_folders(ckpt_dir).items():
            published = tracker is not None and step <= tracker
            if step not in checked and published and contents(path) != wanted[step]:
                wrong.append(f"{at}: {path.name} is not the undisturbed run's")
            checked |= {step} if published else set()
        if tracker is not None and tracker not in step_folders(ckpt_dir):
            wrong.append(f"{at}: the tracker names step {tracker}, which is not there")
        if (tracker or 0) < before:
            wrong.append(f"{at}: fell back from step {before} to {tracker}")
        if run.process.returncode == 0:
            break
        if not kill:
            return [*wrong, f"{at}: failed by itself: {run.output.splitlines()[-3:]}"]
    locks = (".saving.lock", ".train_node0.lock", ".start_node0")
    left = [str(p) for p in [*ckpt_dir.glob(".*"), staging_folder(ckpt_dir)] if p.exists() and p.name not in locks]
    if left:
        wrong.append(f"{at}: left behind: {', '.join(left)}")
    status = json.loads((ckpt_dir / "train_run.json").read_text())["status"]
    return wrong + ([] if status == "complete" else [f"{at}: finished, and train_run.json says {status}"])


def newest_log(ckpt_dir: Path) -> str:
    """The name of the newest console log of the runs there, which begins with its time."""
    return max((p.name for p in (ckpt_dir.with_name("outputs") / "logs").glob("sft_*.log")), default="")


def kill_at_random(run: Run, victim: str, rng: random.Random, span: float, earlier: str) -> str:
    """Kill it after a random time, mostly counted from its first step; what was killed, "" where it ended before."""
    delay, early = rng.random() * span, rng.random() < 0.25
    began, steps = time.monotonic(), early
    while run.process.poll() is None:
        told = members(run.ckpt_dir)
        if not steps:
            steps = bool(told) and newest_log(run.ckpt_dir) > earlier and "step:" in run.log()
            began = time.monotonic()
            time.sleep(0.05)
            continue
        if victim == "copier":
            copiers = [pid for pid, line in told.items() if "phase1.train.copy_save" in line]
            if time.monotonic() - began > delay / 2 and copiers:
                time.sleep(rng.random() * 3)
                return killed(copiers, victim, began)
        elif time.monotonic() - began > delay:
            torchrun = [pid for pid, line in told.items() if "torch.distributed.run" in line]
            ranks = [pid for pid, line in told.items() if "sft_trainer" in line and pid not in torchrun]
            mine = {
                "a rank": ranks[:1] if rng.random() < 0.5 else ranks[-1:],
                "torchrun": torchrun,
                "run_sft.sh": [run.process.pid],
                "everything": list(told),
            }[victim]
            if mine:
                return killed(mine, victim, began)
        time.sleep(0.05)
    return ""


def killed(pids: list[int], victim: str, began: float) -> str:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return f"{victim} at {time.monotonic() - began:.1f} s"


def losses_of(output_dir: Path) -> dict[int, tuple[float, float, float]]:
    """(loss, gradient norm, learning rate) of each step, as it was logged last."""
    rows = map(json.loads, (output_dir / "train_metrics.jsonl").read_text().splitlines())
    return {
        row["step"]: (row["train/loss"], row["train/grad_norm"], row["train/lr"]) for row in rows if "train/loss" in row
    }


def environment(work: Path) -> dict[str, str]:
    """Variables of a run of 24 short steps; the copier dawdles."""
    build = [sys.executable, str(ROOT / "data" / "samples" / "build_model.py"), "--output_dir", str(work / "model")]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    rows = random.Random(0)
    for name, count in (("train", 48), ("val", 8)):
        pd.DataFrame({"messages": [addition(rows) for _ in range(count)]}).to_parquet(work / f"{name}.parquet")
    (work / "dawdles").mkdir()
    (work / "dawdles" / "sitecustomize.py").write_text(DAWDLES)
    latest = Path(os.environ.get("VENV_LATEST", ROOT / ".venv-latest"))
    settings = {
        "PYTHON": latest / "bin" / "python",
        "PYTHONPATH": work / "dawdles",
        "TRAINER": "engine",
        "MODEL_PATH": work / "model",
        "TRAIN_FILE": work / "train.parquet",
        "VAL_FILE": work / "val.parquet",
        "MAX_LENGTH": 256,
        "MAX_TOKENS_PER_GPU": 300,
        "TRAIN_BATCH_SIZE": 8,
        "LR": "1e-2",
        "EPOCHS": STEPS * 8 // 48,
        "SAVE_FREQ": EVERY,
        "TEST_FREQ": STEPS,
        "MAX_CKPT_TO_KEEP": STEPS,
        "LOGGER": "console",
        "DEVICE": "cpu",
        "NPROC": 2,
    }
    return {**os.environ, **{name: str(value) for name, value in settings.items()}}


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, required=True, help="emptied first")
    p.add_argument("--kills", type=int, default=20, help="default: 20")
    p.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    args = p.parse_args()
    args.work = args.work.resolve()
    return args


if __name__ == "__main__":
    sys.exit(main())
