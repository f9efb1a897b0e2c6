"""The kinds of damage that verify_handoff.py must find: each makes a sound model broken in just that way."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from phase1.handoff import check_config, check_weights


def write(path: Path, value) -> None:
    path.write_text(json.dumps(value))


def damaged(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.parent / "checkpoints/global_step_5/huggingface", tmp_path / "m"))


def edit_json(path: Path, **changes) -> None:
    value = json.loads(path.read_text()) | changes
    write(path, {k: v for k, v in value.items() if v is not None})


def edit_weights(model: Path, change) -> None:
    state = load_file(model / "model.safetensors")
    change(state)
    save_file(state, model / "model.safetensors", metadata={"format": "pt"})


def config(**changes):
    return lambda m, base: edit_json(m / "config.json", **changes)


def generation(**changes):
    return lambda m, base: edit_json(m / "generation_config.json", **changes)


def tokenizer(**changes):
    return lambda m, base: edit_json(m / "tokenizer_config.json", **changes)


def tensors(change):
    return lambda m, base: edit_weights(m, change)


def set_values(name, value):
    return tensors(lambda s: s[name].fill_(value))


def split_in_two(m: Path, base: Path) -> None:
    state = load_file(m / "model.safetensors")
    names = sorted(state)
    (m / "model.safetensors").unlink()
    files = {"model-00001-of-00002.safetensors": names[:10], "model-00002-of-00002.safetensors": names[10:]}
    for file, held in files.items():
        save_file({n: state[n] for n in held}, m / file, metadata={"format": "pt"})
    write(
        m / "model.safetensors.index.json",
        {"metadata": {}, "weight_map": {n: f for f, held in files.items() for n in held}},
    )


def wrong_index(m: Path, base: Path) -> None:
    split_in_two(m, base)
    index = json.loads((m / "model.safetensors.index.json").read_text())
    index["weight_map"].pop(sorted(index["weight_map"])[0])
    write(m / "model.safetensors.index.json", index)


def missing_part(m: Path, base: Path) -> None:
    split_in_two(m, base)
    (m / "model-00002-of-00002.safetensors").unlink()


def tensor_in_two_parts(m: Path, base: Path) -> None:
    split_in_two(m, base)
    second = m / "model-00002-of-00002.safetensors"
    first = load_file(m / "model-00001-of-00002.safetensors")
    name = min(first)
    save_file(load_file(second) | {name: first[name] * 2}, second, metadata={"format": "pt"})


def other_template(m: Path, base: Path) -> None:
    path = m / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>system", "<|im_start|>System"))


def no_template(m: Path, base: Path) -> None:
    (m / "chat_template.jinja").unlink()


def trailing_template(m: Path, base: Path) -> None:
    path = m / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>assistant\\n", "<|im_start|>assistant\\n<think>\\n"))


def swap_tokens(m: Path, base: Path) -> None:
    value = json.loads((m / "tokenizer.json").read_text())
    vocab = value["model"]["vocab"]
    a, b = sorted(vocab, key=vocab.get)[40:42]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    write(m / "tokenizer.json", value)


def drop_characters(m: Path, base: Path) -> None:
    value = json.loads((m / "tokenizer.json").read_text())
    value["normalizer"] = {"type": "Lowercase"}
    write(m / "tokenizer.json", value)


def half_file(m: Path, base: Path) -> None:
    os.truncate(m / "model.safetensors", (m / "model.safetensors").stat().st_size // 2)


def untrained(m: Path, base: Path) -> None:
    state = load_file(base / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in state.items()}, m / "model.safetensors", metadata={"format": "pt"})


def no_pad(m: Path, base: Path) -> None:
    edit_json(
        m / "tokenizer_config.json", pad_token=None, tokenizer_class="PreTrainedTokenizerFast"
    )  # Qwen2's class has one by default
    edit_json(m / "special_tokens_map.json", pad_token=None)


def other_names(m: Path, base: Path) -> None:
    edit_weights(m, lambda s: [s.update({f"transformer.{n}": s.pop(n)}) for n in list(s)])


def endless_template(m: Path, base: Path) -> None:
    path = m / "chat_template.jinja"
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def second_head(m: Path, base: Path) -> None:
    edit_weights(m, lambda s: s.update({"lm_head.weight": s["model.embed_tokens.weight"] * 1.5}))


NORM = "model.norm.weight"
UP = "model.layers.0.mlp.up_proj.weight"
# kind -> (damage, the check that must fail, a word of its evidence)
DAMAGE = {
    "no config": (lambda m, b: (m / "config.json").unlink(), check_weights.check_files, "no config.json"),
    "no tokenizer": (
        lambda m, b: [p.unlink() for p in (m / "tokenizer.json", m / "vocab.json") if p.exists()],
        check_weights.check_files,
        "no tokenizer.json",
    ),
    "no tokenizer config": (
        lambda m, b: (m / "tokenizer_config.json").unlink(),
        check_weights.check_files,
        "no tokenizer_config.json",
    ),
    "no weights": (
        lambda m, b: (m / "model.safetensors").unlink(),
        check_weights.check_files,
        "no safetensors weights",
    ),
    "torn JSON": (
        lambda m, b: (m / "generation_config.json").write_text('{"eos'),
        check_weights.check_files,
        "generation_config.json:1: not valid JSON",
    ),
    "weights cut in half": (half_file, check_weights.check_weights_index, "its header says"),
    "header of garbage": (
        lambda m, b: (m / "model.safetensors").write_bytes(os.urandom(9000)),
        check_weights.check_weights_index,
        "not a whole safetensors",
    ),
    "index lacks a tensor": (wrong_index, check_weights.check_weights_index, "disagree on"),
    "a part is missing": (missing_part, check_weights.check_weights_index, "model-00002-of-00002.safetensors: missing"),
    "a tensor in two parts": (tensor_in_two_parts, check_weights.check_weights_index, "as "),
    "a second file without an index": (
        lambda m, b: save_file({NORM: torch.ones(1)}, m / "old.safetensors"),
        check_weights.check_weights_index,
        "vLLM loads both",
    ),
    "fp16 under a bf16 label": (
        tensors(lambda s: s.update({k: v.half() for k, v in s.items()})),
        check_weights.check_dtype,
        "float16 on disk",
    ),
    "mixed dtypes": (tensors(lambda s: s.update({NORM: s[NORM].float()})), check_weights.check_dtype, "several dtypes"),
    "contradicting dtypes": (config(torch_dtype="float32", dtype="bfloat16"), check_weights.check_dtype, "says both"),
    "a tensor is missing": (tensors(lambda s: s.pop(UP)), check_weights.check_parameters, f"lacks {UP}, which"),
    "a foreign tensor": (
        tensors(lambda s: s.update({"value_head.weight": torch.ones(2)})),
        check_weights.check_parameters,
        "holds value_head.weight, which the model of",
    ),
    "another shape": (
        tensors(lambda s: s.update({UP: s[UP][:-1].clone()})),
        check_weights.check_parameters,
        "config.json says",
    ),
    "a transposed tensor": (
        tensors(lambda s: s.update({UP: s[UP].T.contiguous()})),
        check_weights.check_parameters,
        "config.json says",
    ),
    "weights of whole numbers": (
        tensors(lambda s: s.update({UP: s[UP].to(torch.int8)})),
        check_weights.check_parameters,
        "has dtype I8, and config.json names no quantisation",
    ),
    "an untied second head": (second_head, check_weights.check_parameters, "were trained apart"),
    "saved while compiled": (
        lambda m, b: edit_weights(m, lambda s: [s.update({f"_orig_mod.{n}": s.pop(n)}) for n in list(s)]),
        check_weights.check_parameters,
        "a wrapper's prefix '_orig_mod.'",
    ),
    "LoRA adapters within": (
        tensors(lambda s: s.update({UP.replace(".weight", ".base_layer.weight"): s.pop(UP)})),
        check_weights.check_parameters,
        "merge it with PEFT",
    ),
    "a LoRA adapter beside": (
        lambda m, b: write(m / "adapter_config.json", {"r": 8}),
        check_weights.check_parameters,
        "merge it with PEFT",
    ),
    "unknown architecture": (
        config(model_type="nonesuch"),
        check_weights.check_parameters,
        "transformers cannot build",
    ),
    "NaN": (
        tensors(lambda s: s[UP].view(-1)[5:6].fill_(float("nan"))),
        check_weights.check_values,
        f"NaN or infinity in 1 tensors, first {UP}",
    ),
    "infinity": (set_values(NORM, float("inf")), check_weights.check_values, "NaN or infinity"),
    "all zeros": (set_values(UP, 0.0), check_weights.check_values, f"hold only zeros, first {UP}"),
    "never trained": (untrained, check_weights.check_base_difference, "nothing was trained"),
    "another model's shapes": (
        tensors(lambda s: s.update({UP: s[UP][:-1].clone()})),
        check_weights.check_base_difference,
        "another shape than the base",
    ),
    "names of another program": (other_names, check_weights.check_base_difference, "no tensor in common"),
    "rope_theta lost": (
        config(rope_theta=None, rope_parameters={"rope_theta": 1e6, "rope_type": "default"}),
        check_config.check_config,
        "read 10000 instead of 1e+06",
    ),
    "rope_theta changed": (config(rope_theta=10000.0), check_config.check_config, "the base model's is 1e+06"),
    "rope forms disagree": (
        config(rope_parameters={"rope_theta": 1e4, "rope_type": "default"}),
        check_config.check_config,
        "but rope_parameters.rope_theta 10000",
    ),
    "eos is another token": (generation(eos_token_id=[0]), check_config.check_config, "readers stop at [0]"),
    "vocabulary beyond the embedding": (
        tensors(lambda s: s.update({"model.embed_tokens.weight": s["model.embed_tokens.weight"][:1000].clone()})),
        check_config.check_config,
        "1024 tokens, but the embedding has 1000 rows",
    ),
    "vocab_size changed": (
        config(vocab_size=2000),
        check_config.check_config,
        "vocab_size 2000, but the embedding has 1024 rows",
    ),
    "untied without a head": (
        config(tie_word_embeddings=False),
        check_config.check_config,
        "readers start it at random",
    ),
    "other norm epsilon": (config(rms_norm_eps=1e-2), check_config.check_config, "rms_norm_eps"),
    "tokens swapped": (swap_tokens, check_config.check_tokenizer, "other ids than the base model's"),
    "characters lost": (drop_characters, check_config.check_tokenizer, "comes back as"),
    "tokenizer torn": (
        lambda m, b: (m / "tokenizer.json").write_text("{"),
        check_config.check_tokenizer,
        "cannot be loaded",
    ),
    "template differs": (other_template, check_config.check_chat_template, "other prompts than the base model's"),
    "no template": (no_template, check_config.check_chat_template, "no chat template"),
    "evaluation asks otherwise than training": (
        trailing_template,
        check_config.check_chat_template,
        "not how a training row begins",
    ),
    "answers never end": (endless_template, check_config.check_chat_template, "an answer does not end in <|im_end|>"),
    "template does not parse": (
        lambda m, b: (m / "chat_template.jinja").write_text("{% if %}"),
        check_config.check_chat_template,
        "does not render",
    ),
}
