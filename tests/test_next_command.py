"""Each script ends with the command that comes next, and that command is one which its script takes."""

from __future__ import annotations

import html
import re
import shlex
import sys
from pathlib import Path

import pytest

import convert_fsdp_to_hf
import generate_report
import phase1_eval
import prepare_eval_data
import prepare_sft_data
import verify_handoff
from phase1.arguments import show_next, with_variables, words_of_command
from phase1.checkpoints.one_pass import final_command
from phase1.checkpoints.settings import Settings
from phase1.files import run_script
from phase1.handoff.grpo import grpo_command
from tests.checkpoints.made import Place, make_checkpoint, write_eval
from tests.conftest import ROOT
from tests.data.prepared import prepare, record
from tests.report.fake_evaluations import IMPROVED, PHASE0, Fake, write_evaluation
from tests.report.running import SMALL, compare
from tests.tiny_model import write_tiny_model

PARSERS = {
    "prepare_sft_data.py": prepare_sft_data.parse_args,
    "prepare_eval_data.py": prepare_eval_data.parse_args,
    "phase1_eval.py": phase1_eval.parse_args,
    "generate_report.py": generate_report.parse_args,
    "convert_fsdp_to_hf.py": convert_fsdp_to_hf.parse_args,
    "verify_handoff.py": verify_handoff.parse_args,
}


def next_of(out: str) -> list[str]:
    """The words of the command with which a script's output ends."""
    said, command = out.rstrip("\n").rsplit("next: ", 1)[1].split("\n", 1)
    assert said and all(line.startswith("  ") for line in command.splitlines())
    return shlex.split(command)


def taken(words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The arguments that the script, which the command names, reads from it."""
    python, script, *rest = words
    assert python == "python"
    monkeypatch.setattr(sys, "argv", [script, *rest])
    return PARSERS[script]()


def test_words_are_quoted_for_the_shell(capsys):
    show_next("go on", with_variables({"A": "x y"}, words_of_command("run", Path("a b"))))
    assert capsys.readouterr().out == "next: go on\n  A='x y' run 'a b'\n"


def test_prepared_rows_are_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_sft_data, "has_driver", lambda: False)
    prepare(tmp_path, [record(1), record(2)], "--max_length", "512", monkeypatch=monkeypatch)
    *variables, script, processes, flag, preset = next_of(capsys.readouterr().out)
    assert (script, processes, flag, preset) == ("./run_sft.sh", "1", "--preset", "small") and (ROOT / script).is_file()
    given = dict(v.split("=", 1) for v in variables)
    assert given == {
        "TRAIN_FILE": str(tmp_path / "out" / "sft_train.parquet"),
        "VAL_FILE": str(tmp_path / "out" / "sft_val.parquet"),
        "MAX_LENGTH": "512",
    }
    assert all(f"export {name}=" in (ROOT / "run_sft.sh").read_text() for name in given)


def test_many_rows_are_trained_on_with_the_contracts_numbers(monkeypatch):
    monkeypatch.setattr(prepare_sft_data, "has_driver", lambda: True)
    monkeypatch.setattr(sys, "argv", ["prepare_sft_data.py", "--input_jsonl", "bee.jsonl"])
    args, _ = prepare_sft_data.parse_args()
    assert prepare_sft_data.training_command(args, 8 * 128) == "./run_sft.sh"


@pytest.mark.parametrize(
    ("folder", "base", "trained"),
    [("phase0_new", "phase0_new", "eval_final"), ("eval_step_5", "phase0_new", "eval_step_5")],
)
def test_an_evaluation_is_reported_beside_the_other_phase(tmp_path, monkeypatch, folder, base, trained):
    (tmp_path / "phase0_new").mkdir()
    args = taken(shlex.split(phase1_eval.report_command(tmp_path / folder)), monkeypatch)
    assert args.phase0_metrics == [str(tmp_path / base / "metrics.json")]
    assert args.phase1_metrics == [str(tmp_path / trained / "metrics.json")]


@pytest.mark.parametrize(
    ("side", "script"), [(IMPROVED, "verify_handoff.py"), (PHASE0, "phase1_eval.py")], ids=["better", "equal"]
)
def test_a_report_ends_with_what_its_first_screen_says(tmp_path, monkeypatch, side, script):
    write_evaluation(tmp_path / "base", Fake(PHASE0, sizes=SMALL))
    write_evaluation(tmp_path / "sft", Fake(side, sizes=SMALL, seed=int(side is IMPROVED)))
    done = compare(tmp_path, tmp_path / "base" / "metrics.json", tmp_path / "sft" / "metrics.json")
    words = next_of(done.stdout)
    assert words[1] == script and taken(words, monkeypatch)
    assert html.escape(shlex.join(words)) in (tmp_path / "out" / "report.html").read_text()


def test_a_converted_model_is_verified(tmp_path, monkeypatch, capsys):
    model = tmp_path / "a model"
    model.mkdir()
    write_tiny_model(model)
    for name in ("tokenizer_config.json", "tokenizer.json", "generation_config.json"):
        (model / name).write_text("{}")
    monkeypatch.setattr(sys, "argv", ["c.py", "--slim", str(model), "--output_dir", str(tmp_path / "o ut")])
    with pytest.raises(SystemExit) as end:
        run_script(convert_fsdp_to_hf.main)
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    assert taken(next_of(out), monkeypatch).model_path == str(tmp_path / "o ut")


def test_the_best_checkpoint_is_evaluated_on_every_set(tmp_path, monkeypatch):
    place = Place(tmp_path)
    make_checkpoint(place.checkpoints, 5)
    write_eval(place.outputs, 5, 0.5, 0.1)
    assert place.evaluate("--since", 10**6).returncode == 0
    same = {"dtype": "float32", "passed_on": ("--max_new_tokens", "96")}
    settings = Settings(place.checkpoints, place.outputs, place.manifests, **same)
    args = taken(shlex.split(final_command(settings)), monkeypatch)
    assert args.best_checkpoint.is_file() and args.step == "best" and "humaneval" in args.datasets
    assert (args.dtype, args.max_new_tokens) == ("float32", 96), "as the steps were evaluated"


def test_the_hand_off_ends_with_the_command_of_its_page():
    page = (ROOT / "docs" / "05_end_of_phase_and_grpo_handoff.md").read_text()
    documented = re.search(r"```bash\n(python -m verl\.trainer\.main_ppo .*?)```", page, re.DOTALL)
    assert documented
    ours = grpo_command(ROOT / "outputs" / "handoff", ROOT / "data")
    assert shlex.split(ours) == shlex.split(documented[1].replace("$PWD", str(ROOT)))
