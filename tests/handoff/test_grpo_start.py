"""verl itself starts from what verify_handoff.py exports: its PPO configuration resolves and loads. That its SFT
trainer trains from it: tests/train/test_training_fsdp.py."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.handoff.ask_model import TOOLKIT
from phase1.handoff.check_grpo import check_grpo, judge_start
from phase1.handoff.export import export_model
from phase1.handoff.grpo import grpo_yaml
from phase1.handoff.handoff import Handoff

ROOT = Path(__file__).resolve().parents[2]
LATEST = (
    Path(os.environ.get("VENV_LATEST", ROOT / ".venv-latest")) / "bin/python"
)  # verl 0.9.1; setup_cpu.sh says how to make it
REWARD = f"{ROOT / 'phase1/reward.py'}:compute_score"
OLD_PLACE_ALONE = """\
defaults: [ppo_trainer, _self_]
hydra: {{searchpath: [pkg://verl.trainer.config]}}
actor_rollout_ref: {{model: {{path: {model}}}, rollout: {{name: vllm}}}}
algorithm: {{adv_estimator: grpo}}
custom_reward_function: {{path: {reward}, name: compute_score}}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def handoff(base_model, tmp_path_factory) -> Handoff:
    """An exported model, in a path with a space, as the original project has."""
    return Handoff(export_model(base_model, tmp_path_factory.mktemp("phase 1") / "model"))


@pytest.fixture(params=[Path(sys.executable), LATEST], ids=["verl 0.7.0", "verl 0.9.1"])
def python(request) -> str:
    if not request.param.exists():
        pytest.skip(
            f"{request.param} is not there: REQUIREMENTS=requirements-latest-cpu.txt VENV=$PWD/.venv-latest bash "
            "setup_cpu.sh"
        )
    return str(request.param)


def test_verls_own_loader_returns_this_reward_and_its_configuration_is_read_whole(handoff, python):
    found = judge_start(handoff, grpo_yaml(handoff.model, TOOLKIT, handoff.context_length), python)
    assert found.status == "pass", found.evidence
    assert found.data["reward"] == REWARD and found.data["scores"] == [1.0, 0.5, 0.0]
    assert found.data["verl"] == ("0.9.1" if python == str(LATEST) else "0.7.0")
    assert found.data["max_prompt_length"] + found.data["max_response_length"] == min(6144, handoff.context_length)


def test_a_verl_that_drops_the_reward_without_a_word_is_found(handoff, python):
    """The old place alone, which 0.9.1 reads no more."""
    text = OLD_PLACE_ALONE.format(model=f'"{handoff.model}"', reward=f'"{ROOT / "phase1/reward.py"}"')
    found = judge_start(handoff, text, python)
    if python == str(LATEST):
        assert found.status == "fail" and "would train on its own default scores" in found.evidence
    else:
        assert found.data["reward"] == REWARD, found.evidence


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  - ppo_trainer", "  - no_such_trainer", "no_such_trainer"),
        ("phase1/reward.py", "phase1/rewards.py", "rewards.py"),
        ("    processes:", "    process:", "reward_kwargs.process: no such setting"),
    ],
)
def test_what_verl_cannot_use_is_told_in_its_own_words(handoff, old, new, words):
    found = judge_start(handoff, grpo_yaml(handoff.model, TOOLKIT).replace(old, new))
    assert found.status == "fail" and words in found.evidence


def test_without_verl_the_check_is_not_run(handoff, monkeypatch, tmp_path):
    (tmp_path / "verl").mkdir()
    (tmp_path / "verl/__init__.py").write_text("raise ImportError('no verl')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = check_grpo(handoff)
    assert found.status == "warn" and "not run" in found.evidence and "no verl" in found.evidence


VALIDATED = """
import sys
from hydra import compose, initialize_config_dir
from verl.utils.config import validate_config
with initialize_config_dir(sys.argv[1], version_base=None):
    config = compose("grpo_model", sys.argv[2:])
validate_config(config, use_reference_policy=True, use_critic=False)
print(config.actor_rollout_ref.rollout.n, config.data.train_files)
"""


def test_the_command_of_the_page_is_one_that_verl_takes_and_validates(handoff, python, tmp_path):
    """Its settings exist in both versions and fit together, as main_ppo checks before it takes a GPU."""
    page = (ROOT / "docs/05_end_of_phase_and_grpo_handoff.md").read_text()
    command = page.split("<!-- phase 3 -->\n```bash\n")[1].split("```")[0]
    words = shlex.split(command.replace("\\\n", " ").replace("$PWD", "/toolkit"))
    assert words[:3] == ["python", "-m", "verl.trainer.main_ppo"] and words[5:7] == ["--config-name", "grpo_model"]
    (tmp_path / "grpo_model.yaml").write_text(grpo_yaml(handoff.model, ROOT))
    done = subprocess.run(
        [python, "-c", VALIDATED, tmp_path, *words[7:]], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "8 /toolkit/data/grpo_train.parquet"
