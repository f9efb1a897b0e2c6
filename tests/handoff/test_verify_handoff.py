"""verify_handoff.py as a user starts it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import verify_handoff
from phase1.files import fingerprint, run_script
from phase1.handoff import run_checks
from phase1.handoff.check_generation import check_generated_code, check_generation
from phase1.handoff.check_grpo import check_grpo
from phase1.handoff.handoff import Settings
from tests.conftest import ROOT
from tests.handoff.conftest import report
from tests.handoff.handoff_damage import damaged, edit_json

VLLM = Path(os.environ.get("VENV_VLLM", ROOT / ".venv-vllm")) / "bin/python"  # setup_vllm_cpu.sh makes it
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def verify(*args) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "verify_handoff.py", *map(str, args)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=1200,
    )


def without_compiling(folder: Path) -> Path:
    """vLLM's interpreter as a program that starts servers with --enforce-eager: compiling on a CPU takes twice as long
    as all else of a start, for three answers."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{VLLM.absolute()}" "$@" --enforce-eager\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def verified(run, base, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """One whole verify_handoff.py, with a real vLLM server where the environment for it is there."""
    folder = tmp_path_factory.mktemp("verified")
    vllm = ["--vllm_python", without_compiling(folder), "--dtype", "float32"] if VLLM.exists() else ["--skip_vllm"]
    return folder, verify(
        "--best_checkpoint",
        run / "best_checkpoint.json",
        "--base_model",
        base,
        "--output_dir",
        folder / "h",
        "--export",
        folder / "e",
        "--max_new_tokens",
        40,
        "--checklist",
        *vllm,
    )


@pytest.mark.slow
def test_a_sound_model_passes_every_check_and_its_files_are_written(verified):
    folder, done = verified
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "h/handoff.json").read_text())
    status = {c["name"]: c["status"] for c in report["checks"]}
    assert (
        status.pop("vllm") == ("pass" if VLLM.exists() else "warn")
        and set(status.values()) == {"pass"}
        and len(status) == 14
    ), done.stdout
    assert report["verdict"] == "pass" and report["step"] == 5 and report["stamp"]["versions"]["torch"]
    assert report["sha256"].keys() >= {"model.safetensors", "config.json"}
    assert report["metrics"]["codecontests_valid"]["exec_success_rate"] == 0.95
    import yaml

    grpo = yaml.safe_load((folder / "h/grpo_model.yaml").read_text())
    assert grpo["model"]["partial_pretrain"] == grpo["actor_rollout_ref"]["model"]["path"] == str(folder / "e")
    assert grpo["custom_reward_function"]["path"] == str(ROOT / "phase1/reward.py")
    assert fingerprint(folder / "e") == report["fingerprint"]
    assert "| codecontests_valid | 20 | 95.0% (76.4% to 99.1%) | 60.0% (" in (folder / "h/MODEL_CARD.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.exists(), reason=f"{VLLM} is not there: bash setup_vllm_cpu.sh")
def test_a_real_vllm_server_answers_as_transformers_does_and_is_gone_afterwards(verified, run):
    folder, model = verified[0], run.parent / "checkpoints/global_step_5/huggingface"
    check = next(c for c in json.loads((folder / "h/handoff.json").read_text())["checks"] if c["name"] == "vllm")
    assert check["status"] == "pass" and check["data"]["agreement"] == [1.0, 1.0, 1.0], check
    assert check["data"]["served"] == [str(model)] and check["data"]["ready_after"] > 0
    assert all("print(1)" in a for a in check["data"]["answers"])
    assert [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(model).encode() in read_or_nothing(p)] == []


def read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def main(monkeypatch, *args) -> int:
    """verify_handoff.py in this process, without the checks that start another."""
    slow = (check_generation, check_generated_code, check_grpo)
    quick = tuple(check for check in run_checks.CHECKS if check not in slow)
    monkeypatch.setattr(run_checks, "run_checks", functools.partial(run_checks.run_checks, checks=quick))
    monkeypatch.setattr(sys, "argv", ["verify_handoff.py", *map(str, args)])
    return verify_handoff.main()


def test_the_flags_reach_the_checks(monkeypatch, tmp_path):
    given = {
        "max_new_tokens": "7",
        "generation_timeout": "8.5",
        "dtype": "float32",
        "vllm_python": "p",
        "accept": "a reason",
        "vllm_timeout": "9",
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    more = ["--best_checkpoint", "b", "--min_exec_success_rate", "0.5", "--skip_vllm", "--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["verify_handoff.py", *flags, *more])
    assert verify_handoff.settings(verify_handoff.parse_args()) == Settings(
        max_new_tokens=7,
        generation_timeout=8.5,
        dtype="float32",
        min_exec_success_rate=0.5,
        accept="a reason",
        skip_vllm=True,
        vllm_python="p",
        vllm_timeout=9.0,
        log_dir=tmp_path / "logs",
    )


def test_a_failed_check_exits_1_and_takes_back_the_earlier_configuration(base, tmp_path, monkeypatch, capsys):
    (tmp_path / "h").mkdir()
    (tmp_path / "h/grpo_model.yaml").write_text("old")
    args = [
        "--model_path",
        base,
        "--base_model",
        base,
        "--output_dir",
        tmp_path / "h",
        "--skip_vllm",
    ]
    assert main(monkeypatch, *args) == 1 and "nothing was trained" in capsys.readouterr().out
    assert json.loads((tmp_path / "h/handoff.json").read_text())["verdict"] == "fail"
    assert not (tmp_path / "h/grpo_model.yaml").exists()


def test_one_broken_check_does_not_hide_the_others(run, tmp_path, monkeypatch):
    model = damaged(run, tmp_path)
    (model / "tokenizer.json").write_text("{")
    edit_json(model / "config.json", rope_theta=None)
    assert main(monkeypatch, "--model_path", model, "--output_dir", tmp_path / "h", "--skip_vllm") == 1
    status = {c["name"]: c["status"] for c in json.loads((tmp_path / "h/handoff.json").read_text())["checks"]}
    assert status["files"] == status["tokenizer"] == status["chat_template"] == status["config"] == "fail"
    assert status["weights_index"] == status["values"] == "pass"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model_path", "/nonexistent/huggingface"], "no such directory"),
        (["--best_checkpoint", "/nonexistent/best.json"], "no such file"),
        ([], "give either"),
        (["--model_path", ROOT, "--min_exec_success_rate", "0.5"], "needs --best_checkpoint"),
        (["--best_checkpoint", "best.json", "--min_exec_success_rate", "70"], "give a share between 0 and 1"),
        (["--model_path", ROOT / "docs", "--export", ROOT / "data"], "exists; remove it"),
    ],
    ids=[
        "no model",
        "no best_checkpoint.json",
        "neither",
        "gate without evaluation",
        "gate in percent",
        "export exists",
    ],
)
def test_bad_input_exits_2_with_one_line(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verify_handoff.py", *map(str, args), "--output_dir", str(tmp_path / "h")])
    with pytest.raises(SystemExit) as e:
        run_script(verify_handoff.main)
    assert e.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "h").exists()


def test_a_model_that_the_report_condemns_is_handed_over_with_a_reason_alone(run, base, tmp_path, monkeypatch, capsys):
    model = run.parent / "checkpoints/global_step_5/huggingface"
    worse = report(tmp_path, model, word="worse", base=base)
    args = [
        "--model_path",
        model,
        "--base_model",
        base,
        "--report",
        worse,
        "--output_dir",
        tmp_path / "h",
        "--skip_vllm",
    ]
    assert main(monkeypatch, *args) == 1
    said = capsys.readouterr().out
    assert "FAIL: not to be handed over" in said and not (tmp_path / "h/MODEL_CARD.md").exists()
    assert main(monkeypatch, *args, "--accept", "an ablation") == 0
    verdict = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("PASS"))
    assert "accepted against the report: an ablation" in verdict
    kept = json.loads((tmp_path / "h/handoff.json").read_text())
    assert (kept["accepted"], kept["report"]["verdict"]["word"]) == ("an ablation", "worse")
    card = (tmp_path / "h/MODEL_CARD.md").read_text()
    assert "an ablation" in card and "WORSE - as it says" in card
    assert "BEE" not in card and "EVAL@1" not in card  # nothing on disk says either
