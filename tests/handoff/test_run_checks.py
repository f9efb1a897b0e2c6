"""The checks of files, weights, config and tokenizer: a sound model passes, each kind of damage fails its check."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from phase1.handoff import check_config, check_weights
from phase1.handoff.handoff import Handoff
from phase1.handoff.run_checks import CHECKS, run_checks
from tests.handoff.handoff_damage import DAMAGE, config, damaged, edit_weights, no_pad, split_in_two, tensors, tokenizer

SOUND = tuple(check for check in CHECKS if check.__module__ in (check_weights.__name__, check_config.__name__))


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_kind_of_damage_fails_its_check(run, base, tmp_path, kind):
    harm, check, words = DAMAGE[kind]
    model = damaged(run, tmp_path)
    harm(model, base)
    [result] = run_checks(Handoff(model, base), (check,))
    assert result.status == "fail" and words in result.evidence, result


@pytest.mark.parametrize(
    "change",
    [split_in_two, config(rope_parameters={"rope_theta": 1e6, "rope_type": "default"}), lambda m, b: None],
    ids=["two files", "rope twice", "as it is"],
)
def test_a_sound_model_in_another_form_passes_too(run, base, tmp_path, change):
    model = damaged(run, tmp_path)
    change(model, base)
    handoff = Handoff(model, base)
    assert {r.name: (r.status, r.evidence) for r in (c(handoff) for c in SOUND) if r.status != "pass"} == {}


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (
            tensors(lambda s: s.update({k: v.float() for k, v in s.items()})),
            check_weights.check_dtype,
            "float32 on disk",
        ),
        (lambda m, b: (m / "generation_config.json").unlink(), check_weights.check_files, "no generation_config.json"),
        (
            tensors(lambda s: s.update({"lm_head.weight": s["model.embed_tokens.weight"].clone()})),
            check_weights.check_parameters,
            "second copy",
        ),
        (
            tensors(lambda s: [v.normal_(std=0.5) for v in s.values()]),
            check_weights.check_base_difference,
            "hardly a fine-tune",
        ),
        (
            lambda m, b: edit_weights(
                m, lambda s: s.update({k: v for k, v in load_file(b / "model.safetensors").items() if "layers.1." in k})
            ),
            check_weights.check_base_difference,
            "1 parts did not move, first layers.1",
        ),
        (
            lambda m, b: (m / "pytorch_model.bin").write_bytes(b"old"),
            check_weights.check_files,
            "pytorch_model.bin beside the safetensors",
        ),
        (
            lambda m, b: [split_in_two(m, b), save_file({"x": torch.ones(1)}, m / "left_over.safetensors")],
            check_weights.check_weights_index,
            "left_over.safetensors is named by no index",
        ),
        (config(dtype=None, torch_dtype=None), check_weights.check_dtype, "names no dtype"),
        (config(max_position_embeddings=2048), check_config.check_config, "vLLM refuses"),
        (no_pad, check_config.check_config, "no pad token"),
        (tokenizer(pad_token="<|im_end|>"), check_config.check_config, "pad and eos are one token"),
    ],
    ids=[
        *("float32", "no generation_config", "second head", "far from base", "a layer stood still", "an old .bin"),
        *("a stray file", "no dtype", "short context", "no pad", "pad is eos"),
    ],
)
def test_what_only_costs_something_is_a_warning(run, base, tmp_path, change, check, words):
    model = damaged(run, tmp_path)
    change(model, base)
    result = check(Handoff(model, base))
    assert result.status == "warn" and words in result.evidence, result


def test_a_checks_function_is_named_as_the_check_is(run, base, tmp_path):
    found = run_checks(Handoff(damaged(run, tmp_path), base), SOUND)
    assert [f"check_{result.name}" for result in found] == [check.__name__ for check in SOUND]


def test_an_error_that_no_check_foresees_is_that_checks_failure(run, base):
    def check_values(handoff):
        raise RuntimeError("unforeseen")

    model = run.parent / "checkpoints/global_step_5/huggingface"
    first, second = run_checks(Handoff(model, base), (check_values, check_weights.check_dtype))
    assert (first.name, first.status, first.evidence) == ("values", "fail", "RuntimeError: unforeseen")
    assert second.status == "pass"
