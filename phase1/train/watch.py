"""Stand between the trainer and the screen: copy its output to screen and log, write a line of metrics a step, warn.

    torchrun … 2>&1 | python -m phase1.train.watch --log LOG --run_file CKPT_DIR/train_run.json \\
        --output_dir outputs [--stop_on nan]

Called by run_sft.sh. Ends when its input does; asked to stop, it goes on until then, as the trainer's last words
matter. Writes OUTPUT_DIR/train_metrics.jsonl (a line a step, all runs), train_health.json and, at the end,
train_curves.png.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from phase1.files import BadInput, finite, now, read_json, run_script, write_json, write_text
from phase1.machine import known_gpus
from phase1.train.estimate import ModelShape, peak_tflops
from phase1.train.health import Health, metric_rows
from phase1.train.preflight.data import model_folder

STEP_LINE = re.compile(r"step:(\d+) - ([a-z]\S*:\S+(?: - \S+:\S+)*)\s*$")
NAMES = {"train/lr(1e-3)": ("train/lr", 1e-3)}  # verl 0.7.0's spelling -> the engine trainer's, and the factor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True, help="the console log to write")
    parser.add_argument(
        "--run_file", type=Path, required=True, help="train_run.json of the run, written before it started"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="where metrics, health and plot go")
    parser.add_argument(
        "--stop_on", choices=("", "nan"), default="", help="nan: end the training at the first loss that is no number"
    )
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run = read_json(args.run_file)
    name, from_step = args.run_file.parent.name, run["sessions"][-1]["from_step"]
    metrics_file = args.output_dir / "train_metrics.jsonl"
    with contextlib.suppress(OSError):  # a full disk; the next start does it
        drop_later_steps(metrics_file, name, from_step)
    rate = Rate.of(run)
    health, last, asked = Health(), None, False
    with (
        open(args.log, "wb", 0) as log_file,
        open(metrics_file, "ab", 0) as rows_file,
        open(1, "wb", 0, closefd=False) as stdout,
    ):
        screen = Sink(stdout)
        log, metrics = Sink(log_file, screen), Sink(rows_file, screen)

        def say(line: str) -> None:
            for out in (log, screen):
                out.write(f"{line}\n".encode())

        for line in iter(sys.stdin.buffer.readline, b""):
            arrived = time.time()
            for out in (log, screen):
                out.write(line)
            found = parse_step(line.decode(errors="replace"))
            if not found:
                continue
            step, values = found
            if "train/loss" in values:
                values |= rate.of_step(values, arrived - last if last else None)
                last = arrived
            row = {"run": name, "step": step, "time": round(arrived, 3)} | values
            metrics.write((json.dumps(finite(row), allow_nan=False) + "\n").encode())
            for warning in health.update(step, values):
                say(f"warning: {warning}")
                with contextlib.suppress(OSError):
                    write_json(
                        args.output_dir / "train_health.json", {"time": now(), **health.report(run["expected_steps"])}
                    )
            if args.stop_on == "nan" and "nan" in health.standing and not asked:
                asked = True
                say("stopping: --stop_on nan")
                os.kill(os.getppid(), signal.SIGTERM)  # run_sft.sh, which passes it on
    write_json(args.output_dir / "train_health.json", {"time": now(), **health.report(run["expected_steps"])})
    with contextlib.suppress(ImportError):  # matplotlib is for people; training does not need it
        from phase1.train.curves import plot

        plot(metrics_file, name, args.output_dir / "train_curves.png")
    return 0


def parse_step(line: str) -> tuple[int, dict[str, float]] | None:
    """(step, metrics) of a line of verl's console logger, which may follow a progress bar on its line; None for
    others."""
    found = STEP_LINE.search(line)
    if not found:
        return None
    values = {}
    for pair in found[2].split(" - "):
        name, _, text = pair.rpartition(":")
        name, factor = NAMES.get(name, (name, 1.0))
        try:
            values[name] = float(re.sub(r"^np\.\w+\((.*)\)$", r"\1", text)) * factor  # how numpy 2 prints its scalars
        except ValueError:
            continue
    return int(found[1]), values


class Sink:
    """A file or the screen, unbuffered. What cannot be written is lost and `screen` is told so, once: a full disk or a
    closed pipe here must not end the trainer, whose output would then have no reader."""

    def __init__(self, file: io.FileIO, screen: Sink | None = None):
        self.file, self.screen, self.failed = file, screen, False

    def write(self, data: bytes) -> None:
        try:
            while data:
                data = data[self.file.write(data) :]
            self.failed = False
        except OSError as e:
            if self.screen and not self.failed:
                self.screen.write(
                    f"warning: {self.file.name}: {e.strerror}; lines are missing in it from here on\n".encode()
                )
            self.failed = True


class Rate:
    """Tokens per second and share of the GPUs' peak. Without tokens, shape or a known GPU what can be said is said."""

    def __init__(self, shape: ModelShape | None, peak_flops: float | None, batch: int):
        self.shape, self.peak_flops, self.batch = shape, peak_flops, batch

    @classmethod
    def of(cls, run: dict[str, Any]) -> Rate:
        arguments = run["stamp"]["arguments"]
        folder = model_folder(str(arguments["model.partial_pretrain"]))
        try:
            shape = ModelShape.of(folder) if folder else None
        except BadInput:
            shape = None
        gpus = known_gpus() if os.environ.get("DEVICE") != "cpu" else ()
        peak = peak_tflops(gpus[0].name) if gpus else None
        return cls(shape, peak and peak * 1e12 * run["world_size"], arguments["data.train_batch_size"])

    def of_step(self, values: dict[str, float], seconds: float | None) -> dict[str, float]:
        """`seconds` between two logged steps, a save or a validation in between included."""
        if not seconds:
            return {}
        found = {"seconds": round(seconds, 4), "steps_per_s": 1 / seconds}
        if tokens := values.get("train/global_tokens"):
            found["tokens_per_s"] = tokens / seconds
            if self.shape and self.peak_flops:  # rows taken as equally long: a little less than the true sum of squares
                found["mfu"] = self.shape.flops(tokens, tokens / self.batch) / seconds / self.peak_flops
        return found


def drop_later_steps(path: Path, run: str, from_step: int) -> None:
    """Steps that this run did after the checkpoint it goes on from will be done again."""
    if path.exists():
        kept = [row for row in metric_rows(path) if row.get("run") != run or row["step"] <= from_step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


if __name__ == "__main__":
    run_script(main)
