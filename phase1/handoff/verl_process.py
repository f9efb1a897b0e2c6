"""What the installed verl makes of a grpo_model.yaml: one line of JSON on stdout.

    python -m phase1.handoff.verl_process FOLDER

A process of its own, so that the hand-off carries neither verl nor Hydra's global state. Configuration, reward and
tokenizer are found by verl's own functions, as `python -m verl.trainer.main_ppo --config-path FOLDER --config-name
grpo_model` finds them.
"""

from __future__ import annotations

import inspect
import json
import sys
from importlib.metadata import version

from pydantic import BaseModel, ConfigDict

from phase1.contract.prompts import answer
from phase1.handoff.ask_model import PROMPTS
from phase1.model.tokenizer import chat_text

# A problem of two tests and answers that pass both, one and none: a score that is always 0, or always 1, shows.
TRUTH = {"type": "mbpp", "test_list": ["assert f() == 1", "assert f() + 0 == 1 and g() == 2"], "entry_point": "f"}
ANSWERS = {
    1.0: "def f():\n    return 1\n\n\ndef g():\n    return 2",
    0.5: "def f():\n    return 1\n\n\ndef g():\n    return 3",
    0.0: "def f():\n    return 2",
}


class Start(BaseModel):
    """What GRPO would start from.

    `missing`: why verl cannot be imported; `broken`: why it cannot use the configuration; with either nothing else is
    known. `reward`: the file and the name of the
    function that verl loads, "" where it would take its own default scores. `scores`: what it gives to ANSWERS.
    Lengths in tokens; `prompt`: the text that the first of PROMPTS becomes.
    """

    model_config = ConfigDict(frozen=True)

    missing: str = ""
    broken: str = ""
    verl: str = ""
    model: str = ""
    estimator: str = ""
    reward: str = ""
    scores: list[float] = []
    sandbox_error: float = 0.0
    max_prompt_length: int = 0
    max_response_length: int = 0
    prompt: str = ""
    stops: list[int] = []


def start(folder: str) -> Start:
    """Resolve FOLDER/grpo_model.yaml and load what it names, short of the weights."""
    try:
        return _start(folder)
    except Exception as e:  # Hydra's and OmegaConf's own classes, and whatever the loaded file raises
        return Start(broken=in_words(e))


def _start(folder: str) -> Start:
    try:
        from hydra import compose, initialize_config_dir
        from verl.trainer.ppo.reward import get_custom_reward_fn
        from verl.utils.config import omega_conf_to_dataclass
    except ImportError as e:
        return Start(missing=f"{type(e).__name__}: {e}")
    with initialize_config_dir(folder, version_base=None):
        config = compose("grpo_model")
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    stops = model.generation_config.eos_token_id if model.generation_config else model.tokenizer.eos_token_id
    known = {
        "verl": version("verl"),
        "model": config.actor_rollout_ref.model.path,
        "estimator": config.algorithm.adv_estimator,
        "max_prompt_length": rollout.prompt_length,
        "max_response_length": rollout.response_length,
        "prompt": chat_text(model.tokenizer, PROMPTS[0]),
        "stops": stops if isinstance(stops, list) else [stops],
    }
    if score := get_custom_reward_fn(config):
        raw = inspect.unwrap(score.args[0])
        known["reward"] = f"{inspect.getfile(raw)}:{raw.__name__}"
        judged = [
            score(data_source="hand-off", solution_str=answer(code), ground_truth=json.dumps(TRUTH), extra_info={})
            for code in ANSWERS.values()
        ]
        known["scores"] = [each["score"] for each in judged]
        known["sandbox_error"] = max(each["sandbox_error"] for each in judged)
    result: Start = Start.model_validate(known)
    return result


def in_words(error: BaseException | None) -> str:
    """An exception and what it was raised from, in one line."""
    told: list[str] = []
    while error is not None and len(told) < 4:
        told.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        error = error.__cause__
    return " < ".join(told)


if __name__ == "__main__":
    print(start(sys.argv[1]).model_dump_json())
