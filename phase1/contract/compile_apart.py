"""Does a program compile? In this process, or apart from it: deep nesting can overflow the interpreter's stack.

Imports the standard library alone, since `compile_apart` runs this very file as the other process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple


class Compiled(NamedTuple):
    """Python's error for each program in order, None where it compiles; and how the compiler ended, None where it is
    well.

    Where it ended early ("SIGSEGV", "exit code 3", "no answer within 300 s"), `errors` is shorter than the programs
    were: the first one that it lacks is the one that ended it.
    """

    errors: list[str | None]
    death: str | None


def compile_error(program: str, name: str = "program") -> str | None:
    """Python's error where `program` does not compile, such as "SyntaxError: invalid syntax (program, line 1)"; else
    None.

    Call it only where the death of this process is survived. `name` stands in the message in place of a file's name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a string, `1 is 1`: warnings, not faults
        try:
            compile(program, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as e:
            return f"{type(e).__name__}: {e}"
    return None


def compile_apart(programs: Sequence[str], name: str = "program", timeout: float = 300.0) -> Compiled:
    """Compile `programs` one after another in a process of its own, for at most `timeout` seconds in all."""
    death: str | None = None
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, name],
            input="\n".join(map(json.dumps, programs)).encode(),
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as e:
        output, death = e.stdout or b"", f"no answer within {timeout:.0f} s"
    else:
        output, code = done.stdout, done.returncode
        if code:
            death = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Compiled([json.loads(line) for line in output.split(b"\n")[:-1]], death)


def _serve(name: str) -> None:
    """The other process: a program as a line of JSON in, its error as a line of JSON out."""
    for line in sys.stdin:
        print(json.dumps(compile_error(json.loads(line), name)), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
