"""What verl makes of a hand-off's grpo_model.yaml; run by tests/handoff/test_grpo_start.py under verl 0.7.0 and 0.9.1,
not a test itself.

python tests/handoff/start_verl.py HANDOFF_DIR     prints one line of JSON
"""

import json
import sys

import torch
from hydra import compose, initialize_config_dir
from transformers import AutoModelForCausalLM
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.config import omega_conf_to_dataclass

with initialize_config_dir(
    sys.argv[1], version_base=None
):  # as python -m verl.trainer.main_ppo --config-path … --config-name grpo_model
    config = compose("grpo_model")
legacy = (
    "reward" not in config
)  # 0.7.0; later versions move the old place of the reward function to the new one at start
if not legacy:
    from verl.experimental.reward_loop.reward_loop import migrate_legacy_reward_impl

    config = migrate_legacy_reward_impl(config)
model = omega_conf_to_dataclass(
    config.actor_rollout_ref.model
)  # verl's HFModelConfig: loads tokenizer, config, generation config
weights, info = AutoModelForCausalLM.from_pretrained(
    model.local_path, config=model.hf_config, dtype=torch.bfloat16, attn_implementation="sdpa", output_loading_info=True
)
score = get_custom_reward_fn(config)
truth = json.dumps(
    {"test_cases": {"type": "mbpp", "test_list": ["assert f() == 1", "assert f() == 2"], "entry_point": "f"}}
)
print(
    json.dumps(
        {
            "path": config.actor_rollout_ref.model.path,
            "tokens": len(model.tokenizer),
            "eos": model.tokenizer.eos_token,
            "architecture": model.architectures,
            "stops": model.generation_config.eos_token_id,
            "parameters": sum(p.numel() for p in weights.parameters()),
            "missing": sorted(set(info["missing_keys"]) - {"lm_head.weight"}),
            "legacy": legacy,
            "estimator": config.algorithm.adv_estimator,
            "score": score(
                data_source="mbpp_reg", solution_str="<code>def f(): return 1</code>", ground_truth=truth, extra_info={}
            )["score"],
        }
    )
)
