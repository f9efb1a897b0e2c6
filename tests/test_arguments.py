"""A wrong command line is one line and exit code 2, whichever script it is."""

import argparse

import pytest

from phase1.arguments import Parser


@pytest.fixture
def parser() -> Parser:
    p = Parser("What it does.", prog="script.py")
    p.add_argument("--max_new_tokens", type=int)
    p.add_argument("--dtype", choices=["a", "b"])
    return p


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--max_new_token", "5"], "did you mean --max_new_tokens?"),
        (["--max_new_token=5"], "did you mean --max_new_tokens?"),
        (["--something_else"], "unrecognized arguments: --something_else"),
        (["stray"], "unrecognized arguments: stray"),
        (["--max_new_tokens"], "expected one argument"),
        (["--max_new_tokens", "many"], "invalid int value: 'many'"),
        (["--dtype", "c"], "choose from"),
    ],
)
def test_an_error_is_one_line_that_names_the_flag(parser, capsys, argv, said):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(argv)
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == "" and err.startswith("error: script.py: ") and err.count("\n") == 1 and said in err


def test_argparse_itself_takes_what_is_cut_short():
    """Why there is a parser of our own."""
    plain = argparse.ArgumentParser()
    plain.add_argument("--max_new_tokens", type=int)
    assert plain.parse_args(["--max_new_tok", "5"]).max_new_tokens == 5
