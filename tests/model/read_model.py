"""What a version of transformers reads from HF directories; run by tests/model/test_convert.py in two environments, not
a test itself.

python tests/model/read_model.py DIR …     prints {DIR: {logits: SHA-256 of the bf16 logits, ids: token ids of a text,
version}}
"""

import hashlib
import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
found = {}
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(3, 60)[None]).logits
    ids = AutoTokenizer.from_pretrained(folder)("def f(x):\n    return x ** 2  # naïve").input_ids
    digest = hashlib.sha256(logits.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    found[folder] = {"logits": digest, "ids": ids, "version": transformers.__version__}
print(json.dumps(found))
