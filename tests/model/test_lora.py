"""LoRA: what verl's merger leaves is the base model and an adapter; docs/05's commands make one model of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from phase1.files import BadInput
from phase1.model.matches_config import check_model
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # PEFT and verl are imported
RANK, ALPHA = 4, 16


class Lora(NamedTuple):
    """A base model with trained adapters: their state as verl's shards hold it, and verl's lora_adapter/."""

    base: Path
    state: dict[str, torch.Tensor]
    adapter: Path


@pytest.fixture(scope="module")
def lora(base_model, tmp_path_factory) -> Lora:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from verl.model_merger.base_model_merger import BaseModelMerger

    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base_model), config)
    state = {name: t.detach().clone() for name, t in model.state_dict().items()}
    for name in state:
        if "lora_B" in name:
            state[name].normal_(std=0.1)
    target = tmp_path_factory.mktemp("lora")
    BaseModelMerger.save_lora_adapter(SimpleNamespace(config=SimpleNamespace(target_dir=str(target))), dict(state))
    return Lora(base_model, state, target / "lora_adapter")


def program_of_the_page() -> str:
    """The program of docs/05 that merges an adapter."""
    page = (ROOT / "docs/05_end_of_phase_and_grpo_handoff.md").read_text()
    found = re.search(r"python - outputs/lora/lora_adapter [^\n]* <<'END'\n(.*?)END\n", page, re.DOTALL)
    assert found
    return found[1]


def test_the_commands_of_the_page_merge_an_adapter_of_verls_merger(lora, tmp_path):
    command = [sys.executable, "-c", program_of_the_page(), lora.adapter, lora.base, tmp_path / "merged", str(ALPHA)]
    subprocess.run(command, check=True)
    base, found = (load_file(folder / "model.safetensors") for folder in (lora.base, tmp_path / "merged"))
    adapted = 0
    for name, w in base.items():
        wrapped = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (lora.state.get(f"{wrapped}.lora_{factor}.default.weight") for factor in "AB")
        if a is None or b is None:
            assert torch.equal(found[name], w), name
            continue
        adapted += 1
        torch.testing.assert_close(found[name], w + ALPHA / RANK * b @ a)
        assert not torch.equal(found[name], w)
    assert adapted >= 14 and check_model(tmp_path / "merged").doubts == []


def test_with_the_alpha_that_verl_writes_the_adapter_would_be_nothing(lora, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-", *map(str, (lora.adapter, lora.base, tmp_path / "merged", 0))])
    exec(program_of_the_page(), {"__name__": "__main__"})  # here, where PEFT is imported already
    base, found = (load_file(folder / "model.safetensors") for folder in (lora.base, tmp_path / "merged"))
    assert '"lora_alpha": 0' in (lora.adapter / "adapter_config.json").read_text()
    assert all(torch.equal(found[name], w) for name, w in base.items())


def test_what_a_lora_run_leaves_is_refused_whichever_form_it_has(lora, base_model, tmp_path):
    for form in ("verl's huggingface/", "the adapter alone", "verl's merged model"):
        model = Path(shutil.copytree(base_model, tmp_path / form.replace("/", "")))
        if form == "verl's huggingface/":
            save_file({name: t.clone() for name, t in lora.state.items()}, model / "model.safetensors")
        elif form == "the adapter alone":
            (model / "model.safetensors").unlink()
            shutil.copytree(lora.adapter, model, dirs_exist_ok=True)
        else:
            shutil.copytree(lora.adapter, model / "lora_adapter")
        with pytest.raises(BadInput, match=r"LoRA adapter.*merge_and_unload"):
            check_model(model)
