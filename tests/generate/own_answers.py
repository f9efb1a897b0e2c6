"""Greedy answers of several models by vLLM's `LLM`, each loaded by itself; run by vLLM's interpreter.

Reads a JSON object of `models`, `prompts` (token ids), `stop` (token ids) and `max_tokens`. Writes for each model the
token ids of each answer. One process for all of them, since most of a start is the import of vLLM.
"""

import json
import os
import sys

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process

from vllm import LLM, SamplingParams, TokensPrompt
from vllm.distributed import cleanup_dist_env_and_memory


def main() -> None:
    asked = json.load(sys.stdin)
    greedy = SamplingParams(temperature=0.0, max_tokens=asked["max_tokens"], stop_token_ids=asked["stop"])
    answers = []
    for model in asked["models"]:
        llm = LLM(
            model,
            dtype="float32",
            max_model_len=2048,
            max_num_seqs=1,
            enforce_eager=True,
            enable_prefix_caching=False,
            generation_config="vllm",
        )
        done = llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in asked["prompts"]], greedy, use_tqdm=False)
        answers.append([list(each.outputs[0].token_ids) for each in done])
        llm.llm_engine.engine_core.shutdown()
        del llm, done
        cleanup_dist_env_and_memory()
    with open(sys.argv[1], "w", encoding="utf-8") as out:  # vLLM writes to stdout
        json.dump(answers, out)


if __name__ == "__main__":
    main()
