"""What verl makes of GRPO rows; run by tests/data/test_grpo_rows.py under verl 0.7.0 and 0.9.1, not a test itself.

python tests/data/load_grpo_rows.py HANDOFF_DIR PARQUET     prints one line of JSON: verl, and its data set's rows
"""

import json
import sys
from importlib.metadata import version

from hydra import compose, initialize_config_dir
from transformers import AutoTokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset

with initialize_config_dir(sys.argv[1], version_base=None):
    config = compose("grpo_model", [f"data.train_files='{sys.argv[2]}'"])
tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
dataset = RLHFDataset([config.data.train_files], tokenizer, config.data)
rows = []
for i in range(len(dataset)):
    row = dataset[i]
    text = tokenizer.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
    rows.append({"text": text} | {name: row[name] for name in ("data_source", "reward_model", "extra_info", "index")})
print(json.dumps({"verl": version("verl"), "rows": rows}))
