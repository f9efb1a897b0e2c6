"""Where the judge differs from plain Python on purpose, or for a reason that no contest program can meet.

Each entry names the programs that show it and what of the outcome it touches; anything else that differs is a fault.
tests/judge/test_conformance.py has a test an entry, which fails when the difference is gone and the entry is stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.judge.conformance_run import Difference


@dataclass(frozen=True)
class Explained:
    """A difference that may be. `programs`: patterns of names; `kinds`: what of stdout, status, stderr, verdict it
    touches."""

    name: str
    reason: str
    programs: frozenset[str]
    kinds: frozenset[str]

    def pattern(self, name: str) -> str | None:
        """The pattern that a program's name matches."""
        return next((p for p in sorted(self.programs) if fnmatchcase(name, p)), None)


OUTPUT = frozenset({"stdout", "verdict"})
STDERR = frozenset({"stderr"})

EXPLAINED = [
    Explained(
        "interpreter_flags",
        "sys.flags tells that the sandbox starts without site (no_site, no_user_site) and writes no bytecode: "
        "importing "
        "site would cost each program 10 ms, and there is nowhere to write to. What site puts into builtins is there.",
        frozenset({"look:flags", "look:options"}),
        OUTPUT,
    ),
    Explained(
        "fork_server_below",
        "The program's frames stand upon the fork-server's: sys._getframe().f_back and inspect.stack() show "
        "them. The recursion "
        "limit is raised by their number, so the depth that a program reaches is the same in the main thread.",
        frozenset({"look:stack", "look:code_name"}),
        OUTPUT,
    ),
    Explained(
        "room_in_threads",
        (
            "The recursion limit is raised by the frames of the fork-server, of which a thread has none: it may go "
            "a few calls deeper."
        ),
        frozenset({"look:depth_in_thread"}),
        OUTPUT,
    ),
    Explained(
        "no_file_of_the_program",
        (
            "The program is compiled from memory and /tmp is empty when it starts: a test must not find the file "
            "of the one before."
        ),
        frozenset({"look:cwd"}),
        OUTPUT,
    ),
    Explained(
        "stdin_can_be_written",
        (
            "Standard input is a file in memory, opened for reading and writing, with `<` it is for reading only; "
            "the fork-server writes the next input."
        ),
        frozenset({"look:stdin_readonly"}),
        OUTPUT,
    ),
    Explained(
        "imported_modules",
        "Which modules are loaded before the first import depends on site-packages of the interpreter (its "
        ".pth files) and on what "
        "the fork-server needs; likewise how many functions atexit knows.",
        frozenset({"look:modules", "look:no_phase_modules", "look:atexit_count"}),
        OUTPUT,
    ),
    Explained(
        "frozen_objects",
        "gc.get_freeze_count() counts what the fork-server froze before it forked, so that tests share its pages.",
        frozenset({"look:gc_state"}),
        OUTPUT,
    ),
    Explained(
        "warnings_of_the_compiler",
        "Warnings at compilation (`5 is 5`) are not written: the program is compiled once for all its tests.",
        frozenset({"look:syntax_warning"}),
        STDERR,
    ),
    Explained(
        "order_of_the_last_finalizers",
        "Where the program's globals and another module (here builtins) hold the same object with a `__del__`, "
        "that `__del__` may run "
        "before those of objects that only the globals hold; all of them run, and what they print is there.",
        frozenset({"*/del_prints/global_del/none", "style:del_held_by_builtins"}),
        OUTPUT,
    ),
]


def explained(difference: Difference) -> Explained | None:
    """The entry that covers all of a difference, or None."""
    name = difference.program.name
    return next((e for e in EXPLAINED if e.pattern(name) and e.kinds.issuperset(difference.kinds)), None)
