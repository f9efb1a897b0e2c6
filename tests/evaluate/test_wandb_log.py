"""The contract's keys and the QA table reach W&B; where it is out of reach there is one warning."""

import contextlib
import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from phase1.evaluate import wandb_log
from phase1.evaluate.wandb_log import WandbRun, log_evaluation, qa_rows
from tests.conftest import ROOT

DATASETS = {"mbpp_reg": {"accepted_at_1": 0.5, "exec_success_rate": 1.0, "error_counts": {"success": 1}}}


@pytest.fixture
def evaluated(tmp_path):
    line = {
        "problem_id": "MBPP/11",
        "prompt": "p",
        "response": "r",
        "accepted": True,
        "pass_ratio": 1.0,
        "error_type": "success",
        "gen_tokens": 3,
        "extra": {"finish_reason": "stop", "first_failed_case": {"input": "1"}},
    }
    (tmp_path / "qa_logs").mkdir()
    (tmp_path / "qa_logs" / "mbpp_reg_qa.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path


def test_a_qa_line_becomes_a_row(evaluated):
    assert qa_rows(evaluated / "qa_logs" / "mbpp_reg_qa.jsonl") == [
        ["MBPP/11", "success", True, 1.0, "stop", 3, "p", "r", '{"input": "1"}']
    ]


def history(path: Path) -> list[dict]:
    """What a .wandb file holds of `run.log`: keys and values. It is a log in LevelDB's format behind a header of 7
    bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, text, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # the rest of a block, too short for a header
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        text += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record, text = Record.FromString(text), b""
            if record.WhichOneof("record_type") == "history":
                found.append(
                    {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                )
    return found


@pytest.mark.slow
def test_an_offline_run_holds_the_contracts_keys_at_the_checkpoints_step(evaluated, capfd):
    log_evaluation(WandbRun("p", "r", "offline"), 500, DATASETS, evaluated)
    out, err = capfd.readouterr()
    [path] = evaluated.glob("wandb/offline-run-*/*.wandb")
    assert "warning" not in err
    assert out == f"W&B: logged offline in {path.parent}; send it later: wandb sync {path.parent}\n"
    deadline = time.monotonic() + 30
    while (
        not (rows := history(path)) and time.monotonic() < deadline
    ):  # W&B's own process writes it, a moment after finish() has returned
        time.sleep(0.1)
    [row] = rows
    assert (
        row["_step"] == 500
        and row["eval/mbpp_reg/accepted_at_1"] == 0.5
        and row["eval/mbpp_reg/exec_success_rate"] == 1.0
    )
    assert row["eval/mbpp_reg/qa/_type"] == "table-file" and {
        "/".join(k.split("/")[:3]) for k in row if not k.startswith("_")
    } == {"eval/mbpp_reg/accepted_at_1", "eval/mbpp_reg/exec_success_rate", "eval/mbpp_reg/qa"}
    [table] = evaluated.glob("wandb/offline-run-*/files/media/table/eval/mbpp_reg/qa_*.table.json")
    assert json.loads(table.read_text())["data"][0][0] == "MBPP/11"


@pytest.mark.slow
def test_an_unreachable_wandb_is_one_warning(evaluated, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(wandb_log, "INIT_TIMEOUT", 2)
    log_evaluation(WandbRun("p", "r", "online"), 500, DATASETS, evaluated)
    assert "warning: W&B was not reached" in capfd.readouterr().err


@pytest.mark.slow
def test_without_a_login_nobody_is_asked_for_one_at_the_terminal(evaluated):
    """In a process with a terminal of its own: there wandb.init waits for a choice."""
    code = (
        "import pathlib; from phase1.evaluate.wandb_log import WandbRun, log_evaluation; "
        f"log_evaluation(WandbRun('p', 'r', 'online'), 5, {DATASETS}, pathlib.Path({str(evaluated)!r}))"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            os.environ.pop(name, None)
        os.environ |= {"NETRC": os.devnull, "HOME": str(evaluated), "PYTHONPATH": str(ROOT)}
        os.execv(sys.executable, [sys.executable, "-c", code])
    said, deadline = b"", time.monotonic() + 120
    with contextlib.suppress(OSError):  # the process has ended
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                said += os.read(terminal, 4096)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    [path] = evaluated.glob("wandb/offline-run-*/*.wandb")
    line = (
        f"no login to W&B here (wandb login, or WANDB_API_KEY): logged offline in {path.parent}; send it later: wandb"
    )
    assert said.count(line.encode()) == 1 and b"Enter your choice" not in said, said
