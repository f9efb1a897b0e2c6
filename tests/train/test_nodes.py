"""Several nodes: one checkpoint folder, or no start."""

import subprocess
import threading
from pathlib import Path

import pytest

from phase1.files import BadInput
from phase1.train.nodes import meet_nodes, refuse_start_over
from phase1.train.resume import resume_point
from tests.train.sft_runs import ROOT, job_of, make_checkpoint

TWO = {"NNODES": "2", "NPROC": "1", "MASTER_ADDR": "127.0.0.1", "LOCK_WAIT": "3"}


@pytest.mark.slow
def test_two_nodes_with_separate_folders_are_refused_at_the_start(env, tmp_path):
    nodes = [
        subprocess.Popen(
            [ROOT / "run_sft.sh"],
            env=env | TWO | {"NODE_RANK": rank, "MASTER_PORT": "29871", "CKPT_DIR": str(tmp_path / rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    for node, other in zip(nodes, "10", strict=True):
        said = node.communicate(timeout=120)[1].splitlines()
        assert node.returncode == 2 and f"node {other} left no mark here within 3 s" in said[-1], said
    assert not list(tmp_path.glob("*/train_run*.json"))


def test_two_nodes_that_share_a_folder_meet(env):
    Path(env["CKPT_DIR"]).mkdir()
    jobs = [job_of(env | TWO | {"NODE_RANK": rank}) for rank in "01"]
    late = threading.Timer(0.5, meet_nodes, [jobs[1]])
    late.start()
    meet_nodes(jobs[0])
    late.join()
    assert sorted(p.name for p in jobs[0].ckpt_dir.iterdir()) == [".start_node0", ".start_node1"]


@pytest.mark.parametrize(("nodes", "refused"), [(TWO, True), ({}, False), (TWO | {"RESUME_MODE": "disable"}, False)])
def test_several_nodes_do_not_begin_anew_beside_later_steps(env, nodes, refused):
    (make_checkpoint(env["CKPT_DIR"], 8) / "optim_world_size_2_rank_1.pt").unlink()  # of the other node
    job = job_of(env | nodes)
    if not refused:
        refuse_start_over(job, resume_point(job))
        return
    with pytest.raises(BadInput, match="holds global_step_8"):
        refuse_start_over(job, resume_point(job))
