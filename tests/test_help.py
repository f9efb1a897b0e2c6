"""The help of every command: each flag stands in a group with a title, has a sentence, and says what holds without it;
a number has a unit."""

import argparse
import re
import runpy
import subprocess
import sys
import warnings

import pytest

from tests.conftest import ROOT
from tests.reading_docs import commands

PYTHON = [command for command in commands() if not command.endswith(".sh")]
UNITS = (
    "tokens? seconds? GB MiB steps? share correlation problems? programs? tests? rows? answers? requests? processes "
    "cores failures seed randomness factor draws models GPUs?"
)
UNIT = re.compile(rf"\b({UNITS.replace(' ', '|')})\b", re.IGNORECASE)


class Seen(Exception):
    """The parser that a command has built."""


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Seen(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    monkeypatch.setattr(sys, "argv", [command])
    with pytest.raises(Seen) as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of runpy: the module may have been imported before
        if command.endswith(".py"):
            runpy.run_path(str(ROOT / command), run_name="__main__")
        else:
            runpy.run_module(command, run_name="__main__", alter_sys=False)
    return seen.value.args[0]


@pytest.mark.parametrize("command", PYTHON)
def test_each_flag_has_a_group_a_sentence_a_default_and_a_unit(command, monkeypatch):
    parser = parser_of(command, monkeypatch)
    formatter, wrong = parser._get_formatter(), []
    for group in parser._action_groups:
        for action in group._group_actions:
            name, text = "/".join(action.option_strings), formatter._get_help_string(action)
            if not name or action.help == argparse.SUPPRESS or "--help" in name:
                continue
            if group.title == "options":
                wrong.append(f"{name}: in no group of its own")
            if len(re.findall(r"\w+", action.help or "")) < 3:
                wrong.append(f"{name}: no sentence")
            if action.nargs != 0 and not re.search(r"\b(default|needed)\b", text):
                wrong.append(f"{name}: no default")
            if action.type in (int, float) and not UNIT.search(f"{action.metavar} {text}"):
                wrong.append(f"{name}: no unit in {text!r}")
    assert not wrong, "\n".join(wrong)
    assert re.match(r"usage: (python -m )?[\w./]+ ", parser.format_usage()) and "__main__" not in parser.format_usage()


def test_every_variable_of_run_sft_has_its_line_in_the_help():
    done = subprocess.run(["bash", ROOT / "run_sft.sh", "--help"], capture_output=True, text=True, check=True)
    named = re.findall(r"^  ([A-Z_]+)(?:=.*)?\n        \w", done.stdout, re.MULTILINE)
    there = re.findall(r'\b([A-Z_]+)="\$\{\1:-', (ROOT / "run_sft.sh").read_text())
    assert sorted(named) == sorted(set(there)) and len(named) > 30
