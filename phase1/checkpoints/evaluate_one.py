"""One checkpoint of a pass: convert it where needed, evaluate it, and write down how that went.

outputs/logs/attempt_N.log       what the attempt's programs printed; outputs/logs/latest_attempt leads to the newest
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from phase1.checkpoints.attempts import Attempts, print_error
from phase1.checkpoints.child import WrongFlagsError, run_child
from phase1.checkpoints.find import Checkpoint, FileState, look_again, rotation_began, snapshot
from phase1.checkpoints.keep import keep_if_free, kept_folder
from phase1.checkpoints.settings import Settings
from phase1.contract.state import train_run
from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput
from phase1.model.loadable import model_problem
from phase1.model.small_files import WEIGHTS

DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


class GoneError(Exception):
    """Rotation deleted the checkpoint while it was looked at: no fault of the checkpoint."""


async def evaluate_one(c: Checkpoint, settings: Settings, attempts: Attempts, environment: Mapping[str, str]) -> bool:
    """Convert and evaluate one checkpoint; False when that failed. One that vanished or grows is left for later.

    Args:
        c: as `settled` found it.
        environment: added to the scripts' environment (the GPUs they may use).

    Raises:
        WrongFlagsError: phase1_eval.py refuses what is passed on to it; it would for every other checkpoint.
    """
    c = look_again(c)
    if c.problem and not c.damaged:
        print(f"step {c.step}: skipped, {c.problem}", flush=True)
        return True
    row, started = attempts.begin(c), time.monotonic()
    log = settings.output_dir / row.log
    try:
        error = c.problem or await convert_and_evaluate(c, settings, log, environment)
        if error and rotation_began(c) and not kept_folder(settings.output_dir, c.step).is_dir():
            raise GoneError
    except WrongFlagsError as e:  # no fault of this checkpoint
        attempts.end(row, c, 0, str(e))
        raise
    except GoneError:
        attempts.end(row, c, 0, "gone while it was looked at")
        print(f"step {c.step}: skipped, gone while it was looked at", flush=True)
        return True
    except OSError as e:
        error = f"{e.filename}: {e.strerror}" if e.strerror else str(e)
    except BadInput as e:
        error = str(e)
    full = any(
        why in (error or "") for why in DISK_FULL
    )  # no fault of the checkpoint, which must not be given up for it
    attempts.end(row, c, int(bool(error) and not full), error or None)
    if error:
        where = f" ({log})" if log.exists() else ""
        tried = "an attempt" if full else f"attempt {len(attempts.failures(c))} of {settings.max_attempts}"
        print_error(f"step {c.step}: {tried} failed: {error}{where}")
        return False
    print(f"step {c.step}: done in {time.monotonic() - started:.0f} s", flush=True)
    return True


async def convert_and_evaluate(c: Checkpoint, settings: Settings, log: Path, environment: Mapping[str, str]) -> str:
    """Run the two scripts, their output into `log`; returns the error, empty when the evaluation is complete.

    Raises:
        GoneError: the checkpoint vanished meanwhile.
    """
    begin_log(log)
    shown = os.path.relpath(log, settings.output_dir)
    if c.convert:
        print(f"step {c.step}: converting ({shown})", flush=True)
        clear_half_conversions(c)
        if error := await run_child("convert_fsdp_to_hf.py", conversion_arguments(c, settings), log, environment):
            clear_half_conversions(c)
            return f"conversion: {error}"
    print(f"step {c.step}: evaluating {' '.join(settings.sets_of(c.step))} ({shown})", flush=True)
    held = hold(c, settings.output_dir) if settings.keep_best else None
    home = held.parent.parent if held else c.path.parent
    return await run_child("phase1_eval.py", evaluation_arguments(c.step, home, settings), log, environment)


def begin_log(log: Path) -> None:
    """Make the empty log, and let logs/latest_attempt lead to it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    link = log.with_name(".latest_attempt.tmp")
    link.unlink(missing_ok=True)
    link.symlink_to(log.name)
    os.replace(link, log.with_name("latest_attempt"))


def conversion_arguments(c: Checkpoint, settings: Settings) -> list[str]:
    """The command line of convert_fsdp_to_hf.py."""
    arguments = ["--ckpt_dir", str(c.path), "--output_dir", str(c.model_path), "--overwrite"]
    arguments += ["--dtype", settings.dtype or "bfloat16"]
    if base := settings.base_model or trained_from(settings.checkpoint_dir):
        arguments += ["--base_model", base]
    return arguments


def evaluation_arguments(step: int, home: Path, settings: Settings) -> list[str]:
    """The command line of phase1_eval.py for a step whose global_step_N folder lies in `home`."""
    arguments = [*settings.passed_on, "--checkpoint_dir", str(home), "--step", str(step)]
    arguments += ["--datasets", *settings.sets_of(step), "--manifest_dir", str(settings.manifest_dir)]
    arguments += ["--output_dir", str(settings.evaluation_dir(step))]
    arguments += ["--best_checkpoint", str(settings.best_checkpoint)]
    if settings.dtype:
        arguments += ["--dtype", settings.dtype]
    return arguments


def clear_half_conversions(c: Checkpoint) -> None:
    """Delete the temporary folders that killed conversions left.

    Each is as large as the model, and being new files they would make the attempts count anew. A conversion that
    somebody else runs now is safe: it writes all the time, so its checkpoint is `still growing` and does not get here.
    """
    for half in c.path.glob(".huggingface.*.tmp"):
        shutil.rmtree(half, ignore_errors=True)


def trained_from(checkpoint_dir: Path) -> str | None:
    """The base model that run_sft.sh recorded: it gives config and tokenizer to a checkpoint that has none."""
    try:
        return TrainRun.read(checkpoint_dir / train_run.NAME).base_model
    except BadInput:
        return None


# ------------------------------------------------------------------------------------------------------------- holding
def hold(c: Checkpoint, output_dir: Path) -> Path | None:
    """Make hard links to the model, so that rotation cannot delete it during its evaluation.

    Args:
        c: a checkpoint that has settled, and was converted where that was needed.
        output_dir: the folder that holds kept/.

    Returns:
        The linked model; None where links cannot be made.

    Raises:
        GoneError: the checkpoint vanished or changed before all was linked. What was held of it before stays.
    """
    expected = snapshot(c.model_path) if c.convert else settled_model_files(c)

    def is_whole(held: Path) -> bool:
        return snapshot(held) == expected and not (c.convert and half_deleted(c, held))

    try:
        return keep_if_free(c.model_path, output_dir, c.step, is_whole)
    except (FileNotFoundError, BadInput):  # BadInput: it changed between two looks at it
        raise GoneError from None
    except OSError as e:
        print_error(f"step {c.step}: not held while it is evaluated ({e.strerror}); rotation may delete it")
        return None


def settled_model_files(c: Checkpoint) -> dict[str, FileState]:
    """The model's files when the checkpoint settled, by path in the model's directory."""
    prefix = "huggingface/"
    return {name.removeprefix(prefix): state for name, state in c.files.items() if name.startswith(prefix)}


def half_deleted(c: Checkpoint, held: Path) -> bool:
    """Whether rotation had begun when a model that was just converted was linked.

    Nobody saw the converted model settle. But a conversion takes over the small files that lay in huggingface/ before.

    Args:
        c: the checkpoint, with the files that it had when it settled.
        held: the links to its converted model.
    """
    small = [n for n, f in settled_model_files(c).items() if f.size and not any(map(Path(n).match, WEIGHTS))]
    return rotation_began(c) or bool(model_problem(held)) or not all((held / n).exists() for n in small)
