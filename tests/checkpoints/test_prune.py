"""phase1.checkpoints.prune: what somebody uses is found."""

import subprocess
import sys

import pytest

from phase1.checkpoints.prune import user_of
from tests.checkpoints.made import make_checkpoint


@pytest.mark.parametrize("how", ["working directory", "relative path"])
def test_a_process_that_names_a_checkpoint_relative_to_where_it_runs_uses_it(tmp_path, how):
    model = make_checkpoint(tmp_path, 50)
    make_checkpoint(tmp_path, 500)
    program = [sys.executable, "-c", "input()", *(["global_step_50/huggingface"] if how == "relative path" else [])]
    process = subprocess.Popen(program, cwd=tmp_path if how == "relative path" else model, stdin=subprocess.PIPE)
    try:
        assert user_of(tmp_path / "global_step_50") == process.pid and user_of(tmp_path / "global_step_500") is None
    finally:
        process.communicate(b"\n")
