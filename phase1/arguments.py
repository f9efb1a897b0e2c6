"""The command line of a script: help from its docstring, one line for what is wrong, the command that comes next."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

_UNKNOWN = re.compile(r"unrecognized arguments: (--[^\s=]+)")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in which each flag that takes a value ends with what holds without it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.nargs == 0 or not action.option_strings or re.search(r"\b(default|needed)\b", text):
            return text
        if action.required:
            return f"{text} (needed)"
        return f"{text} (default: {'none' if action.default in (None, []) else '%(default)s'})"


class Parser(argparse.ArgumentParser):
    """argparse's parser that takes no abbreviated flag and whose errors are one line, exit code 2.

    A flag that is cut short would change its meaning as soon as another one begins alike.

    Args:
        description: the help's text, as it stands in the script's docstring.
        prog: what the script is called by; the file's name where none is given.
    """

    def __init__(self, description: str | None = None, prog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, formatter_class=_Help, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, with the flag that may have been meant, and exit with 2."""
        if unknown := _UNKNOWN.match(message):
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            near = difflib.get_close_matches(unknown[1], flags, n=1)
            message += f": did you mean {near[0]}?" if near else ""
        print(f"error: {self.prog}: {message}; {self.prog} --help lists the flags", file=sys.stderr)
        raise SystemExit(2)


def output_folder(text: str) -> Path:
    """An argparse type: a folder that results go into, which need not exist yet; told before any work is done.

    Raises:
        ArgumentTypeError: a file lies there, or where one of the folders above it would be.
    """
    path = Path(text)
    for place in (path, *path.parents):
        if place.is_dir():
            break
        if place.exists():
            raise argparse.ArgumentTypeError(f"{place}: is a file; name a folder, which need not exist yet")
    return path


def output_file(text: str) -> Path:
    """An argparse type: a file that results go into, whose folder need not exist yet.

    Raises:
        ArgumentTypeError: as `output_folder`, for its folder.
    """
    return output_folder(str(Path(text).parent)) / Path(text).name


def show_next(words: str, command: str = "") -> None:
    """Print what to do next, and the command for it on lines of its own, which can be pasted.

    Args:
        words: what to do, as part of a sentence.
        command: of one line or several; "" where there is none.
    """
    print(f"next: {words}")
    for line in command.splitlines():
        print(f"  {line}")


def words_of_command(*words: object) -> str:
    """A command line whose words are quoted for the shell where they must be."""
    return shlex.join(map(str, words))


def with_variables(variables: Mapping[str, object], command: str) -> str:
    """A command line with these variables of the shell before it."""
    return " ".join([*(f"{name}={shlex.quote(str(value))}" for name, value in variables.items()), command])
