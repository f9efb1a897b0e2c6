"""How fast 20 concurrent starts of run_eval_checkpoints.sh sort themselves out, beside flock(1), which does nothing but
lock.

    python tests/bench/bench_lock.py [--starts 20]

Prints a row a contender: how many worked, when the last of the others had exited (seconds after the first start), and
how long after SIGKILL of the holder the lock was free.
"""

import argparse
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def race(command: list[str], env: dict[str, str], lock: Path, starts: int) -> tuple[int, float, float]:
    """(how many had to be ended, seconds until all others had exited 0, seconds from SIGKILL to a free lock)."""
    began = time.monotonic()
    running = [
        subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL, start_new_session=True)
        for _ in range(starts)
    ]
    while sum(p.poll() is None for p in running) > 1 and time.monotonic() < began + 60:
        time.sleep(0.005)
    seconds = time.monotonic() - began
    holders = [p for p in running if p.poll() is None]
    assert all(p.returncode == 0 for p in running if p not in holders)
    killed = time.monotonic()
    holders[0].kill()
    with open(lock, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        free = time.monotonic() - killed
    for p in holders:
        p.kill()
        p.wait()
    return len(holders), seconds, free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20)
    starts = parser.parse_args().starts
    with tempfile.TemporaryDirectory() as folder:
        checkpoints, outputs, lock = Path(folder, "checkpoints"), Path(folder, "outputs"), Path(folder, "flock")
        checkpoints.mkdir()
        env = {
            "CKPT_DIR": str(checkpoints),
            "OUTPUT_DIR": str(outputs),
            "PYTHON": sys.executable,
            "MANIFEST_DIR": str(ROOT / "data/samples/manifests"),
        }
        night = ["bash", str(ROOT / "run_eval_checkpoints.sh"), "--watch", "60"]
        shell = ["flock", "--nonblock", "--conflict-exit-code", "0", "--no-fork", str(lock), "sleep", "60"]
        print(f"{'contender':<26}{'worked':>8}{'others out, s':>15}{'lock free after SIGKILL, s':>28}")
        for name, command, where in (
            ("run_eval_checkpoints.sh", night, outputs / "eval.lock"),
            ("flock(1)", shell, lock),
        ):
            worked, seconds, free = race(command, env, where, starts)
            print(f"{name:<26}{worked:>8}{seconds:>15.2f}{free:>28.4f}")


if __name__ == "__main__":
    main()
