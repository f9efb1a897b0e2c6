"""Where run_sft.sh resumes."""

from pathlib import Path

import pytest

from phase1.contract.state.train_run import TrainRun
from phase1.files import BadInput
from phase1.train.resume import ResumePoint, checkpoint_fault, resume_point
from tests.train.sft_runs import DAMAGES, begin, job_of, make_checkpoint, run_sft, tracker


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_gives_way_to_the_whole_one_before(env, damage):
    make_checkpoint(env["CKPT_DIR"], 4)
    last = make_checkpoint(env["CKPT_DIR"], 8)
    tracker(env).write_text("8")
    DAMAGES[damage](last)
    resume = resume_point(job_of(env))
    assert resume.step == 4 and str(last) in resume.note
    resume.settle(Path(env["CKPT_DIR"]))
    assert tracker(env).read_text() == "4"  # which is all that verl looks at


def test_a_checkpoint_newer_than_the_tracker_does_not_count(env):
    for step in (4, 8):
        make_checkpoint(env["CKPT_DIR"], step)
    tracker(env).write_text("4")
    assert resume_point(job_of(env)).step == 4


def test_without_any_whole_checkpoint_training_starts_over(env):
    (make_checkpoint(env["CKPT_DIR"], 4) / "data.pt").unlink()
    tracker(env).write_text("4")
    resume = resume_point(job_of(env))
    resume.settle(Path(env["CKPT_DIR"]))
    assert resume.step == 0 and not tracker(env).exists()


@pytest.mark.parametrize("text", [None, "", "four"])
def test_a_lost_or_unreadable_tracker_is_written_again(env, text):
    make_checkpoint(env["CKPT_DIR"], 4)
    if text is not None:
        tracker(env).write_text(text)
    resume_point(job_of(env)).settle(Path(env["CKPT_DIR"]))
    assert tracker(env).read_text() == "4"


def test_a_fresh_folder_starts_at_step_0_without_a_word(env):
    assert resume_point(job_of(env)) == ResumePoint(0, None, "")


def test_a_named_checkpoint_is_gone_on_from_unless_resuming_is_off(env, tmp_path):
    named = f"trainer.resume_from_path={make_checkpoint(str(tmp_path / 'elsewhere'), 4)}"
    assert resume_point(job_of(env, named)).step == 4
    assert resume_point(job_of(env | {"RESUME_MODE": "disable"}, named)).step == 0
    for job in (job_of(env | {"RESUME_MODE": "resume_path"}), job_of(env, "trainer.resume_from_path=/somewhere")):
        with pytest.raises(BadInput, match="global_step_N"):
            resume_point(job)


@pytest.mark.slow
def test_a_finished_job_trains_nothing_exits_0_and_is_recorded_as_complete(env):
    begin(env)  # run_sft.sh was killed before it could say that the run had ended
    make_checkpoint(env["CKPT_DIR"], 16)  # 64 rows / 8 x 2 epochs
    tracker(env).write_text("16")
    done = run_sft(env)
    assert done.returncode == 0 and "finished already: step 16 of 16" in done.stdout
    assert not list((Path(env["OUTPUT_DIR"]) / "logs").iterdir())
    record = TrainRun.read(Path(env["CKPT_DIR"]) / "train_run.json")
    assert (record.status, record.final_step, len(record.sessions)) == ("complete", 16, 1)


def test_another_world_size_is_refused_with_the_way_out(env):
    make_checkpoint(env["CKPT_DIR"], 4, world_size=4)
    tracker(env).write_text("4")
    done = run_sft(env)
    assert done.returncode == 2 and "saved by 4 processes" in done.stderr and "huggingface" in done.stderr


def test_a_refused_resume_is_exit_2_and_leaves_the_tracker(env):
    begin(env)
    make_checkpoint(env["CKPT_DIR"], 4)
    tracker(env).write_text("8")
    done = run_sft(env | {"LR": "1e-3"})
    assert done.returncode == 2 and "optim.lr was 2e-05, is 0.001" in done.stderr
    assert tracker(env).read_text() == "8"


def test_a_whole_checkpoint_has_no_fault(tmp_path):
    assert checkpoint_fault(make_checkpoint(str(tmp_path), 1)) is None
