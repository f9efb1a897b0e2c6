"""Stand between the trainer and the screen: copy its output to screen and log, and write a line of metrics a step.

    torchrun … 2>&1 | python -m phase1.sft_watch --log LOG --metrics outputs/train_metrics.jsonl

Called by run_sft.sh. Ends when its input does; asked to stop, it goes on until then, as the trainer's last words matter.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from pathlib import Path

from phase1.files import finite, run_script

STEP_LINE = re.compile(r"step:(\d+) - ([a-z]\S*:\S+(?: - \S+:\S+)*)\s*$")
NAMES = {"train/lr(1e-3)": ("train/lr", 1e-3)}  # verl 0.7.0's spelling -> the engine trainer's, and the factor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True, help="the console log to write")
    parser.add_argument("--metrics", type=Path, required=True, help="a JSON line a step is appended here")
    args = parser.parse_args()
    for asked in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(asked, signal.SIG_IGN)
    last = None
    with open(args.log, "wb") as log, open(args.metrics, "a", encoding="utf-8") as metrics:
        for line in iter(sys.stdin.buffer.readline, b""):
            arrived = time.time()
            for out in (log, sys.stdout.buffer):
                out.write(line)
                out.flush()
            if found := parse_step(line.decode(errors="replace")):
                step, values = found
                if "train/loss" in values:
                    seconds = round(arrived - last, 4) if last is not None else None
                    last = arrived
                    values["seconds"] = seconds
                metrics.write(json.dumps(finite({"step": step, "time": round(arrived, 3)} | values)) + "\n")
                metrics.flush()
    return 0


def parse_step(line: str) -> tuple[int, dict[str, float]] | None:
    """(step, metrics) of a line of verl's console logger, which may follow a progress bar on its line; None for others."""
    found = STEP_LINE.search(line)
    if not found:
        return None
    values = {}
    for pair in found[2].split(" - "):
        name, _, text = pair.rpartition(":")
        name, factor = NAMES.get(name, (name, 1.0))
        try:
            values[name] = float(text) * factor
        except ValueError:
            continue
    return int(found[1]), values


if __name__ == "__main__":
    run_script(main)
