"""train_run.json: what it refuses, what it says at the end."""

import json
import re
import shutil
from pathlib import Path

import pytest

from phase1.files import BadInput
from phase1.train.record import record_start, refuse_changes, report_end, report_stop, run_shape
from tests.train.sft_runs import DAMAGES, begin, job_of, make_checkpoint, tracker, write_rows

CHANGES = {
    "TRAIN_FILE": "data.train_files",
    "LR": "optim.lr",
    "EPOCHS": "trainer.total_epochs",
    "MAX_LENGTH": "data.max_length",
    "TRAIN_BATCH_SIZE": "data.train_batch_size",
    "MODEL_PATH": "model.partial_pretrain",
}


@pytest.mark.parametrize("knob", CHANGES)
def test_changed_data_or_schedule_is_refused_by_name_unless_allowed(env, tmp_path, knob):
    begin(env)
    refuse_changes(job_of(env), run_shape(job_of(env)))  # nothing changed yet
    write_rows(tmp_path / "other.parquet", 65)
    shutil.copytree(env["MODEL_PATH"], tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Other"]}')
    changed = {"TRAIN_FILE": tmp_path / "other.parquet", "MODEL_PATH": tmp_path / "other", "LR": "1e-3"}
    job = job_of(env | {knob: str(changed.get(knob, 16))})
    with pytest.raises(BadInput, match=re.escape(CHANGES[knob])):
        refuse_changes(job, run_shape(job))
    job.environ["ALLOW_CHANGED_DATA"] = "1"
    refuse_changes(job, run_shape(job))


def test_a_moved_model_and_moved_data_are_the_same_run(env, tmp_path):
    begin(env)
    for name in ("MODEL_PATH", "TRAIN_FILE"):
        env[name] = str(Path(env[name]).rename(tmp_path / f"moved_{Path(env[name]).name}"))
    refuse_changes(job_of(env), run_shape(job_of(env)))


def test_checkpoints_of_one_trainer_are_refused_to_the_other(env, engine_verl):
    begin(env)
    job = job_of(env | {"TRAINER": "engine", "PYTHONPATH": str(engine_verl)})
    with pytest.raises(BadInput, match="trainer was fsdp, is engine"):
        refuse_changes(job, run_shape(job))


def test_an_end_before_the_expected_step_is_exit_1(env, capsys):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 8)
    tracker(env).write_text("8")
    assert report_end(job_of(env)) == 1
    assert "step 8 of 16" in capsys.readouterr().err
    assert json.loads((Path(env["CKPT_DIR"]) / "train_run.json").read_text())["status"] == "running"


def test_an_end_at_the_expected_step_with_a_torn_checkpoint_is_exit_1(env):
    begin(env)
    DAMAGES["torn shard"](make_checkpoint(env["CKPT_DIR"], 16))
    tracker(env).write_text("16")
    assert report_end(job_of(env)) == 1


def test_what_comes_next_writes_where_the_training_did(env, capsys):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 16)
    tracker(env).write_text("16")
    assert report_end(job_of(env)) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert command == f"  CKPT_DIR={env['CKPT_DIR']} OUTPUT_DIR={env['OUTPUT_DIR']} bash run_eval_checkpoints.sh"


def test_what_a_stopped_run_lost_is_said(env, tmp_path, capsys):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("4")
    (tmp_path / "m.jsonl").write_text(json.dumps({"run": "ckpt", "step": 7}) + "\n")
    report_stop(job_of(env), tmp_path / "m.jsonl")
    assert "trained up to step 7, saved up to step 4: 3 steps after it are lost" in capsys.readouterr().out
    with open(tmp_path / "m.jsonl", "a") as f:
        f.write('{"run": "ckpt", "st')  # torn by the crash that is reported
    report_stop(job_of(env), tmp_path / "m.jsonl")
    assert "trained up to step 7" in capsys.readouterr().out


def test_a_checkpoint_of_broken_weights_is_named_before_the_next_start_goes_on_from_it(env, tmp_path, capsys):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("4")
    for first, named in ((5, True), (6, False)):  # weights saved at 4 gave the loss of 5
        rows = [{"run": "ckpt", "step": s, "train/loss": 1.0 if s < first else None} for s in range(1, 8)]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        report_stop(job_of(env), tmp_path / "m.jsonl")
        *before, last = capsys.readouterr().out.splitlines()
        assert last.startswith("trained up to step 7, saved up to step 4: 3 steps") and bool(before) == named
        assert not named or "global_step_4 and later hold broken weights" in before[0]


def test_each_node_keeps_a_record_of_its_own_in_the_folder_they_share(env, tmp_path, capsys):
    nodes = [
        job_of(env | {"NNODES": "2", "NODE_RANK": str(r), "NPROC": "1", "MASTER_ADDR": "127.0.0.1"}) for r in (0, 1)
    ]
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("4")
    for step in (0, 4):
        for job in nodes:
            record_start(job, run_shape(job), ["torchrun"], step=step, total=16)
    for name in ("train_run.json", "train_run_node1.json"):
        assert [s["from_step"] for s in json.loads((Path(env["CKPT_DIR"]) / name).read_text())["sessions"]] == [0, 4]
    report_stop(nodes[1], tmp_path / "none")
    assert "trained up to step" not in capsys.readouterr().out  # steps are logged on the first node
