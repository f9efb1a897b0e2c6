"""outputs/attempts.json: every attempt at evaluating a checkpoint, and how often each one has failed."""

from __future__ import annotations

import sys
from pathlib import Path

from phase1.checkpoints.find import Checkpoint, files_id
from phase1.contract.state import attempts as attempts_file
from phase1.contract.state.attempts import Attempt, AttemptsFile
from phase1.contract.state.tracker import step_folders
from phase1.files import BadInput, now


class Attempts:
    """The list of attempts. Only the holder of the lock writes it; a kill or a full disk leaves the old file."""

    def __init__(self, output_dir: Path):
        """Read the list.

        Raises:
            BadInput: the file is damaged.
        """
        self.output_dir, self.path = output_dir, output_dir / attempts_file.NAME
        self.rows: list[Attempt] = []
        if self.path.exists():
            try:
                self.rows = AttemptsFile.read(self.path).attempts
            except BadInput:
                raise BadInput(
                    f"{self.path}: not the list of attempts that this script writes; move it away, the attempts then "
                    "count anew"
                ) from None

    def failures(self, c: Checkpoint) -> list[Attempt]:
        """The failed attempts on the checkpoint's present files: after a repair they count anew."""
        rows = [r for r in self.rows if r.step == c.step and r.exit_code]
        return [r for r in rows if r.files == files_id(c.path)] if rows else []

    def cut_short(self, step: int) -> int:
        """How many attempts at this step began and never ended, because their whole process tree was killed."""
        return sum(r.step == step and r.exit_code is None for r in self.rows)

    def begin(self, c: Checkpoint) -> Attempt:
        """Write down that an attempt at this checkpoint begins now; returns its row, which `end` wants back."""
        numbers = [r.attempt for r in self.rows] + list(step_folders(self.output_dir / "logs", "attempt_"))
        number = 1 + max(numbers, default=0)
        row = Attempt(
            attempt=number,
            step=c.step,
            files=files_id(c.path),
            log=f"logs/attempt_{number}.log",
            started=now(),
            finished=None,
            exit_code=None,
            error=None,
        )
        self.rows.append(row)
        self._write()
        return row

    def end(self, row: Attempt, c: Checkpoint, exit_code: int, error: str | None) -> None:
        """Write down how an attempt ended.

        Args:
            row: what `begin` returned.
            c: the checkpoint; its files are looked at anew, since a conversion adds some.
            exit_code: 0 where it went well or the checkpoint is not to blame.
            error: what went wrong, in one line; None for nothing.
        """
        ended = {"finished": now(), "exit_code": exit_code, "error": error, "files": files_id(c.path)}
        self.rows[self.rows.index(row)] = row.model_copy(update=ended)
        self._write()

    def _write(self) -> None:
        try:
            AttemptsFile(attempts=self.rows).write(self.path)
        except OSError as e:  # a full disk; this pass still knows, and says it on stderr
            print_error(f"{self.path}: {e.strerror}; the attempts of this pass may be missing there")


def print_error(text: str) -> None:
    """One line on stderr, which cron mails, in its place among the lines on stdout."""
    sys.stdout.flush()
    print(f"error: {text}", file=sys.stderr, flush=True)
