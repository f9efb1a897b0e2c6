"""What is said last after a training died: the first exception of the first rank that failed."""

import re
import subprocess
import sys

import pytest

from phase1.train.last_words import death_of
from phase1.train.record import report_stop
from tests.train.sft_runs import begin, job_of

RANK_1_FAILS = """
import sys
import torch.distributed as dist
dist.init_process_group("gloo")
if dist.get_rank() == 1:
    try:
        open("/dev/full", "w", buffering=1).write("x" * 9000 + chr(10))
    except OSError as e:
        raise RuntimeError("the save failed") from e
dist.barrier()
"""


@pytest.mark.slow
def test_a_full_disk_under_torchrun_is_the_first_ranks_own_exception(tmp_path):
    (tmp_path / "job.py").write_text(RANK_1_FAILS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "job.py"]
    with open(tmp_path / "log", "wb") as log:
        subprocess.run(command, cwd=tmp_path, stdout=log, stderr=log, timeout=120)
    death = death_of(tmp_path / "log")
    assert death and death.rank == 1 and "No space left on device" in death.exception
    assert "the disk is full" in str(death) and "set CKPT_DIR" in str(death)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("step:1 - train/loss:2\n", None),
        ("torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15\n", None),
        ("[rank0]: torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB\n", "rank 0: .*; set MAX_TOKENS_PER_GPU"),
        ("KeyError: 'x'\nValueError: y\n", "^KeyError: 'x'$"),
    ],
    ids=["nothing", "a signal", "memory", "a chain"],
)
def test_the_root_exception_is_named_with_its_cure(tmp_path, log, said):
    (tmp_path / "log").write_text(log)
    death = death_of(tmp_path / "log")
    if said is None:
        assert death is None
    else:
        assert re.search(said, str(death))


def test_no_second_try_is_advised_where_no_step_was_trained(env, tmp_path, capsys):
    begin(env)
    (tmp_path / "log").write_text("KeyError: 'x'\n")
    (tmp_path / "metrics").touch()
    report_stop(job_of(env), tmp_path / "metrics", tmp_path / "log")
    said = capsys.readouterr()
    assert "again" not in said.out + said.err and said.err == "error: KeyError: 'x'\n"
