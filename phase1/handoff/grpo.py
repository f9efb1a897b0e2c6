"""grpo_model.yaml: the configuration that Phase 3 starts from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from phase1.generate.sampling import Sampling

NAME = "grpo_model.yaml"

GRPO_YAML = """\
# Written by verify_handoff.py; handoff.json beside it holds the verdict. Data, batch sizes and hardware are Phase 3's,
# and docs/05_end_of_phase_and_grpo_handoff.md has the whole command:
#   python -m verl.trainer.main_ppo --config-path THIS_FOLDER --config-name grpo_model data.train_files=…
defaults:
  - ppo_trainer
  - _self_
hydra:
  searchpath:
    - pkg://verl.trainer.config

model:  # the original plan's form, and verl 0.7.0's SFT trainer
  partial_pretrain: {model}

data:  # EVAL@1's lengths, tokens; a longer prompt is left out instead of ending the run
  max_prompt_length: {prompt}
  max_response_length: {response}
  filter_overlong_prompts: true

actor_rollout_ref:
  model:
    path: {model}
    custom_chat_template: null  # the model's own, which training and evaluation used
  rollout:
    name: vllm  # stops at the ids of the model's generation_config.json, as evaluation did
    max_model_len: {length}
    val_kwargs:  # validation samples as EVAL@1 does
      do_sample: false
      temperature: {temperature}
      top_p: {top_p}
      top_k: {top_k}
      n: 1

algorithm:
  adv_estimator: grpo

custom_reward_function: &reward  # where verl 0.7.0 reads it
  path: {reward}
  name: compute_score
  reward_kwargs:  # and any field of JudgeConfig (phase1/judge/config.py)
    processes: ${{oc.select:reward.num_workers,${{actor_rollout_ref.rollout.agent.num_workers}}}}
    nodes: ${{trainer.nnodes}}
reward:  # verl 0.9.1 reads this place and drops the other without a word
  custom_reward_function: *reward
"""


# Eight GPUs, a 7B; the sizes are a start, not a measured optimum. docs/05 prints the same.
GRPO_COMMAND = """\
python -m verl.trainer.main_ppo --config-path {folder} --config-name grpo_model \\
    data.train_files={train} data.val_files={val} \\
    data.train_batch_size=128 actor_rollout_ref.rollout.n=8 \\
    actor_rollout_ref.actor.ppo_mini_batch_size=64 actor_rollout_ref.actor.use_dynamic_bsz=true \\
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 actor_rollout_ref.actor.optim.lr=1e-6 \\
    actor_rollout_ref.actor.use_kl_loss=true actor_rollout_ref.actor.kl_loss_coef=0.001 \\
    actor_rollout_ref.model.use_remove_padding=true actor_rollout_ref.model.enable_gradient_checkpointing=true \\
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \\
    trainer.n_gpus_per_node=8 trainer.nnodes=1 trainer.total_epochs=1 trainer.save_freq=50 trainer.test_freq=10 \\
    trainer.project_name=rlvr_coding_model trainer.experiment_name=phase3_grpo \\
    trainer.rollout_data_dir={rollouts}
"""


def grpo_command(folder: Path, data: Path) -> str:
    """The command that starts Phase 3.

    Args:
        folder: that holds grpo_model.yaml.
        data: that holds grpo_train.parquet and grpo_val.parquet.
    """
    folder, data = folder.resolve(), data.resolve()
    paths = {"folder": folder, "train": data / "grpo_train.parquet", "val": data / "grpo_val.parquet"}
    paths["rollouts"] = folder.parent / "grpo_rollouts"
    return GRPO_COMMAND.format(**{name: shlex.quote(str(path)) for name, path in paths.items()})


def grpo_yaml(model: Path, toolkit: Path, context_length: int = 0) -> str:
    """Phase 3's configuration: the original plan's form and verl's own, with the reward that Phase 1 measured by.

    A Hydra primary configuration over verl's ppo_trainer, so `verl.trainer.main_ppo --config-path … --config-name
    grpo_model` starts from it. The reward stands in two places: verl 0.7.0 reads the first alone, 0.9.1 the second.
    Its `processes` are the reward workers that verl starts: 0.9.1 says so, 0.7.0 has one for each agent loop worker.

    Args:
        model: the directory that is handed over.
        toolkit: the root of this toolkit, whose phase1/reward.py is the reward.
        context_length: tokens that the model can hold; below EVAL@1's, prompt and answer share it in EVAL@1's
            proportion, since vLLM refuses more. 0: unknown.
    """
    protocol = Sampling()
    length = min(protocol.max_model_len, context_length or protocol.max_model_len)
    response = protocol.max_new_tokens * length // protocol.max_model_len
    return GRPO_YAML.format(
        model=_text(model.resolve()),
        reward=_text(toolkit / "phase1" / "reward.py"),
        prompt=length - response,
        response=response,
        length=length,
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        top_k=protocol.top_k,
    )


def _text(path: Path) -> str:
    """A path as YAML that OmegaConf does not interpolate. A JSON string is a YAML string."""
    return json.dumps(str(path).replace("${", "\\${"), ensure_ascii=False)
