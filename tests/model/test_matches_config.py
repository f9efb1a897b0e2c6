"""phase1/model/matches_config.py: weights that are not those of the model's own config.json are refused by name."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from phase1.files import BadInput
from phase1.model.adapters import refuse_adapter_names
from phase1.model.matches_config import check_model

HEAD, EMBEDDING, DOWN = "lm_head.weight", "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"
State = dict[str, torch.Tensor]


def save(model: Path, state: State) -> None:
    own = {name: t.contiguous().clone() for name, t in state.items()}
    save_file(own, model / "model.safetensors", metadata={"format": "pt"})


def edited(change: Callable[[State], object]) -> Callable[[Path], None]:
    def harm(model: Path) -> None:
        state = load_file(model / "model.safetensors")
        change(state)
        save(model, state)

    return harm


def renamed(new_name: Callable[[str], str]) -> Callable[[Path], None]:
    return edited(lambda s: [s.update({new_name(name): s.pop(name)}) for name in list(s)])


def config(**changes: object) -> Callable[[Path], None]:
    def harm(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return harm


def in_parts(model: Path, mapped: Callable[[dict[str, str]], object]) -> None:
    """Two files with an index, which `mapped` then changes."""
    state = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    homes = {name: f"model-{1 + (i > 5)}.safetensors" for i, name in enumerate(state)}
    for file in set(homes.values()):
        save_file({n: t for n, t in state.items() if homes[n] == file}, model / file)
    mapped(homes)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))


def pickled(change: Callable[[State], object]) -> Callable[[Path], None]:
    """The weights as a pytorch_model.bin alone."""

    def harm(model: Path) -> None:
        state = load_file(model / "model.safetensors")
        (model / "model.safetensors").unlink()
        change(state)
        torch.save(state, model / "pytorch_model.bin")

    return harm


def llama(tied: bool) -> Callable[[Path], None]:
    """The same sizes as a Llama, which has no biases."""

    def harm(model: Path) -> None:
        config(model_type="llama", architectures=["LlamaForCausalLM"], tie_word_embeddings=tied)(model)
        edited(lambda s: [s.pop(name) for name in list(s) if name.endswith(".bias")])(model)

    return harm


@pytest.fixture
def model(base_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_model, tmp_path / "model"))


def both(*harms: Callable[[Path], object]) -> Callable[[Path], None]:
    def harm(model: Path) -> None:
        for one in harms:
            one(model)

    return harm


def stale_single_file(model: Path) -> None:
    shutil.copy(model / "model.safetensors", model / "old")
    in_parts(model, lambda homes: None)
    (model / "old").rename(model / "model.safetensors")


INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"
SOUND: dict[str, Callable[[Path], object]] = {
    "as it is": lambda m: None,
    "a second copy of the tied embedding": edited(lambda s: s.update({HEAD: s[EMBEDDING]})),
    "an untied head": both(edited(lambda s: s.update({HEAD: s[EMBEDDING] * 2})), config(tie_word_embeddings=False)),
    "two files": lambda m: in_parts(m, lambda homes: None),
    "a pickle": pickled(lambda s: None),
    "float16": both(edited(lambda s: s.update({n: t.half() for n, t in s.items()})), config(dtype="float16")),
    "a buffer that readers ignore": edited(lambda s: s.update({INV_FREQ: torch.ones(4)})),
    "another family": llama(tied=True),
    "another family's body alone": both(llama(tied=True), renamed(lambda n: n.removeprefix("model."))),
}
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a tensor lost": (edited(lambda s: s.pop(DOWN)), f"lacks {DOWN}, which the model of"),
    "every name prefixed": (renamed(lambda n: f"_orig_mod.{n}"), "a wrapper's prefix '_orig_mod.'"),
    "layers compiled": (renamed(lambda n: n.replace("rs.1.", "rs.1._orig_mod.")), "torch.compile's '_orig_mod.'"),
    "no head": (config(tie_word_embeddings=False), f"lacks {HEAD}"),
    "a head trained apart": (edited(lambda s: s.update({HEAD: s[EMBEDDING] * 2})), "were trained apart"),
    "a foreign tensor": (edited(lambda s: s.update({"v_head.weight": torch.ones(2)})), "holds v_head.weight"),
    "another shape": (edited(lambda s: s.update({DOWN: s[DOWN][:-1]})), f"{DOWN} is ("),
    "transposed": (edited(lambda s: s.update({DOWN: s[DOWN].T})), f"{DOWN} is ("),
    "a larger vocabulary in the config": (config(vocab_size=2000), "config.json says (2000, "),
    "integers": (edited(lambda s: s.update({DOWN: s[DOWN].to(torch.int8)})), f"{DOWN} has dtype I8"),
    "nothing in the file": (lambda m: save(m, {}), "no weights"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "no weights"),
    "no config": (lambda m: (m / "config.json").unlink(), "config.json"),
    "a config that is a list": (lambda m: (m / "config.json").write_text("[]"), "not an object"),
    "no model_type": (config(model_type=None), "names no model_type"),
    "an unknown family": (config(model_type="nonesuch"), "transformers cannot build this architecture"),
    "an index that lacks a tensor": (lambda m: in_parts(m, lambda h: h.pop(DOWN)), f"disagree on {DOWN}"),
    "an index that names too many": (lambda m: in_parts(m, lambda h: h.update({"x": h[DOWN]})), "disagree on x"),
    "an index and a stale single file": (stale_single_file, "not named by model.safetensors.index.json"),
    "a pickle that lacks a tensor": (pickled(lambda s: s.pop(DOWN)), f"lacks {DOWN}"),
    "a pickle with NaN": (pickled(lambda s: s[DOWN].view(-1)[3:4].fill_(float("nan"))), f"first {DOWN}"),
    "a pickle of integers": (pickled(lambda s: s.update({DOWN: s[DOWN].to(torch.int8)})), f"{DOWN} has dtype torch.i"),
    "a pickle, a head trained apart": (pickled(lambda s: s.update({HEAD: s[EMBEDDING] * 2})), "were trained apart"),
    "a pickle and another with a tensor of it": (
        both(pickled(lambda s: None), lambda m: torch.save({DOWN: torch.ones(2)}, m / "pytorch_model-2.bin")),
        f"holds {DOWN}, as ",
    ),
    "a pickle of another class": (pickled(lambda s: s.update({"x": Path("y")})), "pytorch_model.bin: holds "),
    "another family, a tensor lost": (both(llama(tied=True), edited(lambda s: s.pop(DOWN))), f"lacks {DOWN}"),
    "another family, no head": (llama(tied=False), f"lacks {HEAD}"),
    "another family's names": (config(model_type="llama"), "holds model.layers.0.self_attn."),
    "an adapter alone": (lambda m: (m / "adapter_config.json").write_text("{}"), "adapter_config.json: a LoRA adapter"),
    "an adapter's weights": (renamed(lambda n: f"base_model.model.{n}"), "holds LoRA adapters (base_model.model."),
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_model_whose_weights_are_its_configs_passes(model, kind):
    SOUND[kind](model)
    assert check_model(model).doubts == [] and check_model(model).parameters > 10_000


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_are_not_the_configs_are_refused_by_name(model, kind):
    harm, message = REFUSED[kind]
    harm(model)
    with pytest.raises(BadInput) as refused:
        check_model(model)
    assert message in str(refused.value) and "\n" not in str(refused.value)


SIZES = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
FAMILIES = {
    "gemma": SIZES | {"hidden_size": 32, "intermediate_size": 48},  # tied, and its config.json does not say so
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "phi3": SIZES | {"hidden_size": 32, "intermediate_size": 48, "pad_token_id": 0},
    "qwen2_moe": SIZES | {"hidden_size": 32, "intermediate_size": 48, "num_experts": 4, "moe_intermediate_size": 16},
    "qwen3": SIZES | {"hidden_size": 32, "intermediate_size": 48},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves_of_another_family_passes_and_is_refused_without_its_last_tensor(tmp_path, family):
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family]))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    assert check_model(tmp_path).doubts == []
    last = sorted(load_file(tmp_path / "model.safetensors"))[-1]
    edited(lambda s: s.pop(last))(tmp_path)
    with pytest.raises(BadInput, match=re.escape(f"lacks {last}")):
        check_model(tmp_path)


def test_what_transformers_starts_at_random_is_what_is_refused(model):
    """The check and the library agree on a lost tensor; the library goes on."""
    from transformers import AutoModelForCausalLM

    edited(lambda s: s.pop(DOWN))(model)
    _, info = AutoModelForCausalLM.from_pretrained(model, output_loading_info=True)
    assert list(info["missing_keys"]) == [DOWN]


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (config(quantization_config={"quant_method": "awq"}), "its weights are quantised"),
        (config(model_type="own", auto_map={"AutoModelForCausalLM": "modeling.Own"}), "code of its own"),
        (config(dtype="float16", torch_dtype="float16"), "float32 on disk"),
        (edited(lambda s: s.update({DOWN: s[DOWN].half()})), "several dtypes"),
    ],
    ids=["quantised", "code of its own", "another dtype", "mixed dtypes"],
)
def test_what_cannot_be_compared_or_looks_odd_is_said(model, change, doubt):
    change(model)
    assert doubt in "; ".join(check_model(model).doubts)


def test_files_of_the_hubs_cache_are_links_and_are_followed(model, tmp_path):
    snapshot = tmp_path / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for path in model.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert check_model(snapshot) == check_model(model)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "model.layers.0.self_attn.q_proj.lora_B.weight",
        "model.layers.0.mlp.up_proj.base_layer.weight",
        "base_model.model.lm_head.weight",
        "model.embed_tokens.lora_embedding_A.default",
        "model.layers.0.mlp.up_proj.lora_magnitude_vector.default.weight",
    ],
)
def test_the_names_that_peft_gives_are_known(name):
    with pytest.raises(BadInput, match=r"merge_and_unload"):
        refuse_adapter_names(["model.norm.weight", name], "here")


def test_names_that_only_resemble_them_are_not():
    refuse_adapter_names(["model.explora_tion.weight", "model.base_layernorm.weight", "model.my_base_layer_x"], "here")
