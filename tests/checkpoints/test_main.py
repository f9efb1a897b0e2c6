"""python -m phase1.checkpoints: its arguments, and one evaluator at a time."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from phase1.checkpoints import __main__ as command
from phase1.checkpoints import one_pass
from phase1.checkpoints.arguments import build_parser, settings_from
from phase1.checkpoints.settings import Settings
from phase1.files import BadInput, only_one
from tests.checkpoints.made import make_checkpoint, write_eval
from tests.conftest import ROOT


def test_every_flag_of_a_pass_arrives_in_its_settings(place):
    flags = {
        "--manifest_dir": "m",
        "--steps": "5 10",
        "--since": "7",
        "--tier2_every": "3",
        "--settle": "0.5",
        "--max_attempts": "4",
        "--base_model": "b",
        "--dtype": "float32",
        "--gpus": "2,3",
        "--max_gpu_mem_used": "9",
        "--min_free_gb": "1.5",
        "--max_wait": "8",
        "--keep_best": "2",
        "--phase0_metrics": "p.json",
    }
    words = [word for flag, value in flags.items() for word in (flag, *value.split())]
    switches = ["--dry_run", "--prune", "--force", "--watch", "60"]
    argv = ["evaluate", "--checkpoint_dir", "c", "--output_dir", "o", *switches, *words, "--limit", "3"]
    args, passed_on = build_parser(None).parse_known_args(argv)
    settings, defaults = settings_from(args, passed_on), Settings("", "", "")
    assert (settings.steps, settings.gpus, settings.passed_on) == ((5, 10), (2, 3), ("--limit", "3"))
    assert not [name for name, value in vars(settings).items() if value == getattr(defaults, name)]


def test_a_watch_outlives_a_file_system_that_does_not_answer(monkeypatch, capsys, tmp_path):
    answers = iter([OSError(5, "Input/output error", "/mnt/ck"), BadInput("no room"), KeyboardInterrupt()])

    def fail(_):
        raise next(answers)

    monkeypatch.setattr(one_pass, "one_pass", fail)
    with pytest.raises(KeyboardInterrupt):
        command.run_passes(Settings(tmp_path, tmp_path, tmp_path, watch=0.01))
    assert capsys.readouterr().err == "error: [Errno 5] Input/output error: '/mnt/ck'\nerror: no room\n"


def test_once_is_a_single_pass_and_no_watch(place, capsys):
    make_checkpoint(place.checkpoints, 500)
    write_eval(place.outputs, 500, 0.5, 0.1)
    run = place.evaluate("--once")
    assert run.returncode == 0 and "step 500: skipped, evaluated" in run.stdout and "next look" not in run.stdout
    assert place.evaluate("--once", "--watch", 60).returncode == 2


FLAGS = ["--step", "--datasets", "--model_path=x", "--best_checkpoint", "--rejudge", "--recompute"]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_that_would_evaluate_something_else_under_the_checkpoints_name_is_refused(place, flag):
    make_checkpoint(place.checkpoints, 500)
    run = place.evaluate("--dry_run", flag, 1000)
    assert run.returncode == 2 and run.stderr.startswith(f"error: {flag}: ") and run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max_new_tokns", "5"], "--max_new_tokns 5: did you mean --max_new_tokens?"),
        (["--max_new_tokens", "none"], "--max_new_tokens: invalid positive value: 'none'"),
        (["--max_new_tokens"], "--max_new_tokens: expected one argument"),
        (["--limit", "5", "6"], "unrecognized arguments: 6"),
        (["--temperature", "-1"], "temperature"),
        (["--n_samples", "2"], "--temperature"),
        (["--workers", "-1"], "--workers and --reserve_cores not negative"),
    ],
)
def test_a_wrong_flag_for_the_evaluations_stops_before_anything_is_written(place, words, said):
    make_checkpoint(place.checkpoints, 500)
    run = place.evaluate(*words)
    assert run.returncode == 2 and said in run.stderr and run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith("error: ") and not list(place.outputs.glob("*"))


def test_a_missing_folder_is_one_line(place):
    place.checkpoints.rmdir()
    run = place.shell()
    assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1


@pytest.mark.parametrize("step", [500, 1000])
def test_since_leaves_earlier_steps_alone(place, step):
    make_checkpoint(place.checkpoints, step)
    said = {500: "step 500: skipped, before --since 1000", 1000: "step 1000: evaluating"}
    assert said[step] in place.evaluate("--dry_run", "--since", 1000).stdout


def test_an_evaluated_checkpoint_that_was_trained_again_is_named_with_what_to_do(place):
    make_checkpoint(place.checkpoints, 500)
    write_eval(place.outputs, 500, 0.5, 0.1, model={"path": "m", "fingerprint": "of other files"})
    run = place.evaluate("--dry_run")
    assert "step 500: skipped, evaluated, but its files have changed since; move " in run.stdout
    assert str(place.outputs / "eval_step_500") in run.stdout


# ------------------------------------------------------------------------------------------------------------- the lock
def test_a_second_start_says_who_is_at_work_and_exits_0(place):
    make_checkpoint(place.checkpoints, 500)
    with only_one(place.outputs / "eval.lock") as mine:
        assert mine
        run = place.shell()
    assert run.returncode == 0 and f"another evaluation is at work (process {os.getpid()} since" in run.stdout


def test_the_lock_lets_one_in_and_dies_with_its_holder(tmp_path):
    lock = tmp_path / "eval.lock"
    program = (
        "import sys\nfrom pathlib import Path\nfrom phase1.files import only_one\n"
        "with only_one(Path(sys.argv[1])) as mine:\n    print(mine, flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, lock]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with only_one(lock) as mine:
        assert not mine
    assert f"process {holder.pid} since" in lock.read_text()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with only_one(lock) as mine:
        assert mine


def test_a_full_disk_keeps_nobody_from_the_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("phase1.files.os.write", full)
    with only_one(tmp_path / "eval.lock") as mine:
        assert mine
