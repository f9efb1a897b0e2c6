"""verl itself starts from what verify_handoff.py exports: its PPO configuration resolves and loads. That its SFT
trainer trains from it: tests/train/test_training_fsdp.py."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from phase1.handoff.ask_model import TOOLKIT
from phase1.handoff.check_grpo import check_grpo, judge_start
from phase1.handoff.export import export_model
from phase1.handoff.grpo import NAME, grpo_yaml
from phase1.handoff.handoff import Handoff
from phase1.handoff.verl_process import Start

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


BROKEN = {  # what of the configuration is replaced, by what, and verl's own words of it
    "base": ("  - ppo_trainer", "  - no_such_trainer", "no_such_trainer"),
    "reward": ("phase1/reward.py", "phase1/rewards.py", "rewards.py"),
    "key": ("    processes:", "    process:", "reward_kwargs.process: no such setting"),
}

# Each folder in a fork of one process that has imported verl, which takes 6 s of a core: no start sees another's. The
# command of the page last, with the words that follow: verl validates its settings as main_ppo does.
STARTS = """
import os, sys
import phase1.reward, verl.trainer.ppo.reward, verl.workers.config
from hydra import compose, initialize_config_dir
from transformers import AutoProcessor
from verl.utils.config import validate_config
from phase1.handoff.verl_process import start
*folders, page = sys.argv[1].split(":")
def validated():
    with initialize_config_dir(page, version_base=None):
        config = compose("grpo_model", sys.argv[2:])
    validate_config(config, use_reference_policy=True, use_critic=False)
    return f"{config.actor_rollout_ref.rollout.n} {config.data.train_files}"
for found in *(lambda f=f: start(f).model_dump_json() for f in folders), validated:
    if os.fork() == 0:
        print(found(), flush=True)
        os._exit(0)
    os.wait()
"""


@dataclass(frozen=True)
class Starts:
    """What one verl makes of each text of grpo_model.yaml, by name, and of the command of the page."""

    verl: str
    found: dict[str, Start]
    page: str


def words_of_the_page() -> list[str]:
    """The command of Phase 3 in docs/05."""
    page = (ROOT / "docs/05_end_of_phase_and_grpo_handoff.md").read_text()
    command = page.split("<!-- phase 3 -->\n```bash\n")[1].split("```")[0]
    return shlex.split(command.replace("\\\n", " ").replace("$PWD", "/toolkit"))


@pytest.fixture(scope="module", params=[Path(sys.executable), LATEST], ids=["verl 0.7.0", "verl 0.9.1"])
def starts(request, handoff, tmp_path_factory) -> Starts:
    if not request.param.exists():
        pytest.skip(
            f"{request.param} is not there: REQUIREMENTS=requirements-latest-cpu.txt VENV=$PWD/.venv-latest bash "
            "setup_cpu.sh"
        )
    sound = grpo_yaml(handoff.model, TOOLKIT, handoff.context_length)
    old = OLD_PLACE_ALONE.format(model=f'"{handoff.model}"', reward=f'"{ROOT / "phase1/reward.py"}"')
    texts = {"sound": sound, "old place": old}
    texts |= {name: sound.replace(*change[:2]) for name, change in BROKEN.items()}
    folder = tmp_path_factory.mktemp("starts")
    for name, text in (texts | {"page": grpo_yaml(handoff.model, ROOT)}).items():
        (folder / name).mkdir()
        (folder / name / NAME).write_text(text)
    folders = ":".join(str(folder / name) for name in (*texts, "page"))
    done = subprocess.run(
        [request.param, "-c", STARTS, folders, *words_of_the_page()[7:]],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    lines = done.stdout.splitlines()  # verl says more than one of its validation
    found = [line for line in lines if line.startswith("{")]
    assert done.returncode == 0 and len(found) == len(texts), done.stdout + done.stderr[-3000:]
    return Starts(
        "0.9.1" if request.param == LATEST else "0.7.0",
        {name: Start.model_validate_json(line) for name, line in zip(texts, found, strict=True)},
        lines[-1],
    )


def test_verls_own_loader_returns_this_reward_and_its_configuration_is_read_whole(handoff, starts):
    found = judge_start(handoff, starts.found["sound"])
    assert found.status == "pass", found.evidence
    assert found.data["reward"] == REWARD and found.data["scores"] == [1.0, 0.5, 0.0]
    assert found.data["verl"] == starts.verl
    assert found.data["max_prompt_length"] + found.data["max_response_length"] == min(6144, handoff.context_length)


def test_a_verl_that_drops_the_reward_without_a_word_is_found(handoff, starts):
    """The old place alone, which 0.9.1 reads no more."""
    found = judge_start(handoff, starts.found["old place"])
    if starts.verl == "0.9.1":
        assert found.status == "fail" and "would train on its own default scores" in found.evidence
    else:
        assert found.data["reward"] == REWARD, found.evidence


@pytest.mark.parametrize("broken", BROKEN)
def test_what_verl_cannot_use_is_told_in_its_own_words(handoff, starts, broken):
    found = judge_start(handoff, starts.found[broken])
    assert found.status == "fail" and BROKEN[broken][2] in found.evidence


def test_the_command_of_the_page_is_one_that_verl_takes_and_validates(starts):
    """Its settings exist in both versions and fit together, as main_ppo checks before it takes a GPU."""
    words = words_of_the_page()
    assert words[:3] == ["python", "-m", "verl.trainer.main_ppo"] and words[5:7] == ["--config-name", NAME[:-5]]
    assert starts.page == "8 /toolkit/data/grpo_train.parquet"


def test_without_verl_the_check_is_not_run(handoff, monkeypatch, tmp_path):
    (tmp_path / "verl").mkdir()
    (tmp_path / "verl/__init__.py").write_text("raise ImportError('no verl')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = check_grpo(handoff)
    assert found.status == "warn" and "not run" in found.evidence and "no verl" in found.evidence
