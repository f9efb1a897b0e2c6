"""grpo_model.yaml, read back."""

import pytest
import yaml

from phase1.handoff.grpo import grpo_yaml
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ['phase 1 "é"', "it's: a #path", "${oc.env:HOME}", "${", "a\\b"])
def test_the_configuration_survives_a_hostile_path(name, tmp_path):
    from omegaconf import OmegaConf

    odd = tmp_path / name
    config = OmegaConf.create(grpo_yaml(odd, ROOT))
    assert config.actor_rollout_ref.model.path == config.model.partial_pretrain == str(odd)


def test_the_reward_stands_where_each_verl_reads_it():
    text = yaml.safe_load(grpo_yaml(ROOT, ROOT))
    assert text["custom_reward_function"] == text["reward"]["custom_reward_function"]
    assert text["custom_reward_function"]["path"] == str(ROOT / "phase1/reward.py")


@pytest.mark.parametrize(
    ("context", "prompt", "response"), [(0, 4096, 2048), (32768, 4096, 2048), (6144, 4096, 2048), (600, 400, 200)]
)
def test_lengths_are_those_of_the_evaluation_and_no_more_than_the_model_holds(context, prompt, response):
    text = yaml.safe_load(grpo_yaml(ROOT, ROOT, context))
    assert text["data"]["max_prompt_length"] == prompt and text["data"]["max_response_length"] == response
    assert text["actor_rollout_ref"]["rollout"]["max_model_len"] == prompt + response
