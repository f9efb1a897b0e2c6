"""Stand between the trainer and the screen: copy its output to screen and log, write a line of metrics a step, warn.

    torchrun … 2>&1 | python -m phase1.train.watch --log LOG --run_file CKPT_DIR/train_run.json \\
        --output_dir outputs [--stop_on nan]

Called by run_sft.sh. It ends when its input ends: asked to stop, it goes on, because the trainer's last words matter.
It writes OUTPUT_DIR/train_metrics.jsonl (a line a step, all runs), train_health.json and, at the end,
train_curves.png.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from phase1.arguments import Parser
from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput, finite, now, run_script, write_json
from phase1.machine import known_gpus
from phase1.model.hub import cached_model
from phase1.train.estimate import ModelShape, peak_tflops
from phase1.train.health import Health
from phase1.train.step_log import Step, console_steps, drop_later_steps, read_train_log
from phase1.train.verl_version import LOSS, TOKENS


def main() -> int:
    parser = Parser(__doc__, prog="python -m phase1.train.watch")
    files = parser.add_argument_group("what run_sft.sh gives it")
    files.add_argument("--log", type=Path, required=True, help="the console log to write")
    files.add_argument(
        "--run_file", type=Path, required=True, help="train_run.json of the run, written before it started"
    )
    files.add_argument("--output_dir", type=Path, required=True, help="where metrics, health and plot go")
    files.add_argument(
        "--stop_on", choices=("", "nan"), default="", help="nan: end the training when its loss is NaN (default: never)"
    )
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run = TrainRun.read(args.run_file)
    name = args.run_file.parent.name
    metrics_file = args.output_dir / "train_metrics.jsonl"
    with contextlib.suppress(OSError):  # a full disk; the next start does it
        drop_later_steps(metrics_file, name, run.sessions[-1].from_step)
    with (
        open(args.log, "wb", 0) as log,
        open(metrics_file, "ab", 0) as metrics,
        open(1, "wb", 0, closefd=False) as stdout,
    ):
        screen = Sink(stdout)
        watch = Watch(
            screen=screen,
            log=Sink(log, screen),
            metrics=Sink(metrics, screen),
            health_file=args.output_dir / "train_health.json",
            run=name,
            expected_steps=run.expected_steps,
            rate=Rate.of(run),
            health=Health(),
            stop_on_nan=args.stop_on == "nan",
        )
        for line in iter(sys.stdin.buffer.readline, b""):
            watch.take(line)
    watch.write_health()
    with contextlib.suppress(ImportError):  # matplotlib is for people; training does not need it
        from phase1.train.curves import plot

        series = read_train_log([metrics_file], run=name, skip_empty=True)
        plot(series, name, args.output_dir / "train_curves.png")
    return 0


class Sink:
    """A file or the screen, unbuffered. What cannot be written is lost, and `screen` is told so once.

    A full disk or a closed pipe here must not end the trainer, whose output would then have no reader.
    """

    def __init__(self, file: io.FileIO, screen: Sink | None = None):
        self.file, self.screen, self.failed = file, screen, False

    def write(self, data: bytes) -> None:
        """Write all of `data`, or lose it."""
        try:
            while data:
                data = data[self.file.write(data) :]
            self.failed = False
        except OSError as e:
            if self.screen and not self.failed:
                said = f"warning: {self.file.name}: {e.strerror}; from here on lines are missing in it\n"
                self.screen.write(said.encode())
            self.failed = True


@dataclass
class Watch:
    """One training run as it is watched.

    Attributes:
        health_file: train_health.json, written at each warning.
        run: the run's name in train_metrics.jsonl.
        stop_on_nan: whether to end the training at the first loss that is NaN or infinite.
        last: when the last training step was logged, Unix seconds.
        asked: whether the training was asked to end.
    """

    screen: Sink
    log: Sink
    metrics: Sink
    health_file: Path
    run: str
    expected_steps: int
    rate: Rate
    health: Health
    stop_on_nan: bool
    last: float | None = None
    asked: bool = False

    def take(self, line: bytes) -> None:
        """Copy a line of the trainer to screen and log, and look at the steps in it."""
        arrived = time.time()
        self.log.write(line)
        self.screen.write(line)
        for step in console_steps(line.decode(errors="replace")):
            if LOSS in step.values:
                seconds = arrived - self.last if self.last else None
                step = replace(step, values=step.values | self.rate.of_step(step.values, seconds))
                self.last = arrived
            self._count(step, arrived)

    def _count(self, step: Step, arrived: float) -> None:
        row = {"run": self.run, "step": step.number, "time": round(arrived, 3)} | step.values
        self.metrics.write((json.dumps(finite(row), allow_nan=False) + "\n").encode())
        for warning in self.health.update(step):
            self._say(f"warning: {warning}")
            with contextlib.suppress(OSError):
                self.write_health()
        if self.stop_on_nan and "nan" in self.health.standing and not self.asked:
            self.asked = True
            self._say("stopping: --stop_on nan")
            os.kill(os.getppid(), signal.SIGTERM)  # to run_sft.sh, which passes it on

    def _say(self, text: str) -> None:
        for sink in (self.log, self.screen):
            sink.write(f"{text}\n".encode())

    def write_health(self) -> None:
        """Write train_health.json anew."""
        write_json(self.health_file, {"time": now(), **self.health.report(self.expected_steps)})


@dataclass(frozen=True)
class Rate:
    """What turns a step's tokens and seconds into tokens a second and a share of the GPUs' peak.

    Attributes:
        shape: the model's, None where it is not known.
        peak_flops: bf16 peak of all GPUs together in FLOP/s, None where it is not known.
        batch: rows of a step.
    """

    shape: ModelShape | None
    peak_flops: float | None
    batch: int

    @classmethod
    def of(cls, run: TrainRun) -> Rate:
        """That of a run on this machine."""
        folder = cached_model(run.base_model or "")
        try:
            shape = ModelShape.of(folder) if folder else None
        except BadInput:
            shape = None
        gpus = known_gpus() if os.environ.get("DEVICE") != "cpu" else ()
        tflops = peak_tflops(gpus[0].name) if gpus else None
        peak_flops = tflops * 1e12 * run.world_size if tflops else None
        return cls(shape, peak_flops, int(str(run.stamp.arguments["data.train_batch_size"])))

    def of_step(self, values: dict[str, float], seconds: float | None) -> dict[str, float]:
        """seconds, steps_per_s and, where what they need is known, tokens_per_s and mfu.

        Args:
            values: the step's metrics.
            seconds: since the step before, a save or a validation in between included; None for the first one.
        """
        if not seconds:
            return {}
        found = {"seconds": round(seconds, 4), "steps_per_s": 1 / seconds}
        if tokens := values.get(TOKENS):
            found["tokens_per_s"] = tokens / seconds
            if self.shape and self.peak_flops:  # all rows taken as equally long, which gives slightly too little
                found["mfu"] = self.shape.flops(tokens, tokens / self.batch) / seconds / self.peak_flops
        return found


if __name__ == "__main__":
    run_script(main)
