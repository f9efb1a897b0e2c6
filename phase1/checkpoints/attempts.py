"""One checkpoint of a pass: convert it where needed, evaluate it, and write down how that went.

outputs/attempts.json            every attempt: step, log, start, end, exit code, error
outputs/logs/attempt_N.log       what the attempt's programs printed; outputs/logs/latest_attempt leads to the newest
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from phase1.checkpoints import keep as keeping
from phase1.checkpoints.find import Checkpoint, files_id, look_at, snapshot, step_folders
from phase1.contract.problems import EVAL_SETS
from phase1.files import BadInput, now, read_json, write_json

HERE = Path(__file__).resolve().parents[2]
FIELDS = {"attempt", "step", "files", "log", "exit_code", "error"}  # what is read of an attempt


class Attempts:
    """outputs/attempts.json: one writer, the holder of the lock; rewritten whole, so a kill or a full disk leaves the
    old one."""

    def __init__(self, output_dir: Path):
        self.output_dir, self.path = output_dir, output_dir / "attempts.json"
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():
            try:
                self.rows = [row for row in read_json(self.path)["attempts"] if row.keys() >= FIELDS]
            except (KeyError, TypeError, AttributeError):
                raise BadInput(
                    f"{self.path}: not the list of attempts that this script writes; move it away, the "
                    "attempts then count anew"
                ) from None

    def failures(self, c: Checkpoint) -> list[dict]:
        """The failed attempts on the checkpoint's present files: one that was mended starts anew."""
        rows = [r for r in self.rows if r["step"] == c.step and r["exit_code"]]
        return [r for r in rows if r["files"] == files_id(c.path)] if rows else []

    def cut_short(self, step: int) -> int:
        """How often an attempt at this step began and never ended: its whole process tree was killed."""
        return sum(r["step"] == step and r["exit_code"] is None for r in self.rows)

    def begin(self, c: Checkpoint) -> dict:
        numbers = [r["attempt"] for r in self.rows] + list(step_folders(self.output_dir / "logs", "attempt_"))
        n = 1 + max(numbers, default=0)
        row = {
            "attempt": n,
            "step": c.step,
            "files": files_id(c.path),
            "log": f"logs/attempt_{n}.log",
            "started": now(),
            "finished": None,
            "exit_code": None,
            "error": None,
        }
        self.rows.append(row)
        self._write()
        return row

    def end(self, row: dict, c: Checkpoint, exit_code: int, error: str | None) -> None:
        row.update(
            finished=now(), exit_code=exit_code, error=error, files=files_id(c.path)
        )  # a conversion has added some
        self._write()

    def _write(self) -> None:
        try:
            write_json(self.path, {"attempts": self.rows})
        except OSError as e:  # a full disk; this pass still knows, and says it on stderr
            warn(f"{self.path}: {e.strerror}; the attempts of this pass may be missing there")


# ------------------------------------------------------------------------------------------------------- one checkpoint
def try_one(
    c: Checkpoint, args: argparse.Namespace, passed_on: list[str], attempts: Attempts, environment: dict[str, str]
) -> bool:
    """Convert where needed and evaluate one checkpoint; False when that failed. What vanished or grows is left for
    later."""
    c = look_again(c)
    if c.problem and not c.damaged:
        print(f"step {c.step}: skipped, {c.problem}", flush=True)
        return True
    row, started = attempts.begin(c), time.monotonic()
    log = args.output_dir / row["log"]
    try:
        error = c.problem or convert_and_evaluate(c, args, passed_on, log, environment)
        if error and vanished(c) and not keeping.kept_folder(args.output_dir, c.step).is_dir():
            raise Gone
    except WrongFlags as e:  # no fault of this checkpoint's, and the next one would fail alike
        attempts.end(row, c, 0, str(e))
        raise
    except Gone:
        attempts.end(row, c, 0, "gone while it was looked at")
        print(f"step {c.step}: skipped, gone while it was looked at", flush=True)
        return True
    except (OSError, BadInput) as e:
        error = f"{e.filename}: {e.strerror}" if isinstance(e, OSError) and e.strerror else str(e)
    attempts.end(row, c, int(bool(error)), error or None)
    if error:
        where = f" ({log})" if log.exists() else ""
        warn(f"step {c.step}: attempt {len(attempts.failures(c))} of {args.max_attempts} failed: {error}{where}")
    else:
        print(f"step {c.step}: done in {time.monotonic() - started:.0f} s", flush=True)
    return not error


class Gone(Exception):
    """The checkpoint vanished while it was looked at: rotation, no fault of its own."""


class WrongFlags(BadInput):
    """phase1_eval.py does not know a flag that was passed on to it, or its value."""


def vanished(c: Checkpoint) -> bool:
    """Whether files are gone that were there when it settled: deleting a large checkpoint takes a while. A conversion
    writes huggingface/ anew, so what was in there says nothing then."""
    names = [n for n in c.files if not (c.convert and n.startswith("huggingface/"))]
    return not c.path.is_dir() or not all((c.path / n).exists() for n in names)


def look_again(c: Checkpoint) -> Checkpoint:
    """The checkpoint as it is now: the pass that found it settled may have begun hours ago."""
    if c.problem and not c.damaged:
        return c
    if (files := snapshot(c.path)) != c.files:
        return replace(c, problem="changed since this pass looked first" if files else "gone", damaged=False)
    return replace(look_at(c.step, c.path), files=files)


def hold(c: Checkpoint, output_dir: Path) -> Path | None:
    """Hard links to the model for as long as it is evaluated; None where links cannot be made. Gone when it
    vanishes."""
    model, prefix = c.model_path, "huggingface/"
    files = (
        snapshot(model)
        if c.convert
        else {n.removeprefix(prefix): f for n, f in c.files.items() if n.startswith(prefix)}
    )
    try:
        held = keeping.keep(model, output_dir, c.step, copy=False)
    except (FileNotFoundError, BadInput):  # BadInput: it changed between two looks at it
        raise Gone from None
    except OSError as e:
        warn(f"step {c.step}: not held while it is evaluated ({e.strerror}); rotation may take it away")
        return None
    if held and held != model and snapshot(held) != files:  # half deleted before all was linked
        keeping.remove(held.parent)
        raise Gone
    return held


def convert_and_evaluate(
    c: Checkpoint, args: argparse.Namespace, passed_on: list[str], log: Path, environment: dict[str, str]
) -> str:
    """Run the two scripts, their output into `log`; returns the error, empty when the evaluation is complete."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    link = log.with_name(".latest_attempt.tmp")
    link.unlink(missing_ok=True)
    link.symlink_to(log.name)
    os.replace(link, log.with_name("latest_attempt"))
    shown = os.path.relpath(log, args.output_dir)
    if c.convert:
        print(f"step {c.step}: converting ({shown})", flush=True)
        clear_half_conversions(c)
        base = args.base_model or trained_from(args.checkpoint_dir)
        command = [
            sys.executable,
            str(HERE / "convert_fsdp_to_hf.py"),
            "--ckpt_dir",
            str(c.path),
            "--output_dir",
            str(c.model_path),
            "--overwrite",
            "--dtype",
            args.dtype or "bfloat16",
            *(["--base_model", base] if base else []),
        ]
        if error := run_child(command, log, environment):
            clear_half_conversions(c)
            return f"conversion: {error}"
    print(f"step {c.step}: evaluating {' '.join(sets_of(c.step, args))} ({shown})", flush=True)
    held = hold(c, args.output_dir) if args.keep_best else None
    home = held.parent.parent if held else c.path.parent
    command = [
        sys.executable,
        str(HERE / "phase1_eval.py"),
        *passed_on,
        "--checkpoint_dir",
        str(home),
        "--step",
        str(c.step),
        "--datasets",
        *sets_of(c.step, args),
        "--manifest_dir",
        str(args.manifest_dir),
        "--output_dir",
        str(args.output_dir / f"eval_step_{c.step}"),
        "--best_checkpoint",
        str(args.output_dir / "best_checkpoint.json"),
        *(["--dtype", args.dtype] if args.dtype else []),
    ]
    return run_child(command, log, environment)


def clear_half_conversions(c: Checkpoint) -> None:
    """Delete what a killed conversion left: the size of the model each time, and new files, which would make the
    attempts count anew for ever. One that somebody else has running writes all the time, so its checkpoint is `still
    growing`, not here."""
    for half in c.path.glob(".huggingface.*.tmp"):
        shutil.rmtree(half, ignore_errors=True)


def run_child(command: list[str], log: Path, environment: dict[str, str]) -> str:
    """Run one script, output appended to `log`; returns what went wrong, empty for exit code 0. It dies when we do."""
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "TERM", *command]
    with open(log, "ab") as f:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=os.environ | environment)
        try:
            code = child.wait()
        except BaseException:  # Ctrl-C: the child closes its servers and sandboxes first
            child.terminate()
            child.wait()
            raise
    if code == 0:
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [""]
    last = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
    script = next(Path(w).name for w in command if w.endswith(".py"))
    if code == 2 and last.startswith(f"{script}: error: "):  # argparse's form, not ours
        raise WrongFlags(f"{last[:500]}; mend the flags that run_eval_checkpoints.sh passes on")
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{script}: {how}, {last[:500]}"


def trained_from(checkpoint_dir: Path) -> str | None:
    """The base model that run_sft.sh recorded: its config and tokenizer serve where a checkpoint has none."""
    try:
        return read_json(checkpoint_dir / "train_run.json")["stamp"]["arguments"]["model.partial_pretrain"]
    except (BadInput, KeyError, TypeError):
        return None


def sets_of(step: int, args: argparse.Namespace) -> list[str]:
    """The data sets of a checkpoint by tier (contract 4)."""
    return [s.name for s in EVAL_SETS.values() if s.tier == 1 or (s.tier == 2 and step % args.tier2_every == 0)]


def warn(text: str) -> None:
    sys.stdout.flush()
    print(f"error: {text}", file=sys.stderr, flush=True)
