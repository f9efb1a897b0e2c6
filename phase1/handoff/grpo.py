"""grpo_model.yaml: the configuration that Phase 3 starts from."""

from __future__ import annotations

import json
from pathlib import Path

GRPO_YAML = """\
# Written by verify_handoff.py; handoff.json beside it holds the verdict. Data, batch sizes and hardware are Phase 3's:
#   python -m verl.trainer.main_ppo --config-path THIS_FOLDER --config-name grpo_model data.train_files=…
defaults:
  - ppo_trainer
  - _self_
hydra:
  searchpath:
    - pkg://verl.trainer.config

model:
  partial_pretrain: {model}

actor_rollout_ref:
  model:
    path: {model}

algorithm:
  adv_estimator: grpo

custom_reward_function:
  path: {reward}
  name: compute_score
"""


def grpo_yaml(model: Path, toolkit: Path) -> str:
    """Phase 3's configuration: the original plan's form and verl's own, with the reward that Phase 1 measured by.

    A Hydra primary configuration over verl's ppo_trainer, so `verl.trainer.main_ppo --config-path … --config-name
    grpo_model` starts from it (0.7.0 and 0.9.1: the latter moves custom_reward_function to its new place at start).

    Args:
        model: the directory that is handed over.
        toolkit: the root of this toolkit, whose phase1/reward.py is the reward.
    """
    reward = json.dumps(str(toolkit / "phase1" / "reward.py"))  # a JSON string is a YAML string
    return GRPO_YAML.format(model=json.dumps(str(model.resolve()), ensure_ascii=False), reward=reward)
