"""Preflight: what is in the model's folder."""

from __future__ import annotations

import re
from pathlib import Path

from phase1.files import BadInput, read_json
from phase1.model.adapters import refuse_adapter_files
from phase1.model.matches_base import config_failures, reads_old_form_alone, rope_lost
from phase1.model.matches_config import check_model
from phase1.model.small_files import refuse_torn_json
from phase1.model.tokenizer import TOKENIZER_FILES, load_fast_tokenizer
from phase1.train.job import Job, how_to_set
from phase1.train.preflight.outcome import Outcome, passes, warns


def model(job: Job) -> Outcome:
    """Whether configuration, tokenizer, chat template and weights are there, and the weights are the configuration's.

    The trainer starts a missing tensor at random, and passes over a foreign one.
    """
    name, folder = job.text("model.partial_pretrain"), job.model_folder
    if folder is None:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
            return warns(f"{name} is not on this machine: every process will download it from the Hugging Face Hub")
        raise BadInput(f"{name}: no such model folder; {how_to_set('model.partial_pretrain')}")
    config = read_json(folder / "config.json")
    refuse_adapter_files(folder)
    refuse_torn_json(folder)
    if not (folder / "tokenizer_config.json").is_file():
        raise BadInput(f"{folder}: no tokenizer_config.json; copy the base model's tokenizer files there")
    lost = rope_lost(config) if reads_old_form_alone() else ""
    if failures := config_failures(config, {}) + ([lost] if lost else []):
        raise BadInput(f"{folder / 'config.json'}: {failures[0]}")
    refuse_bad_tokenizer(folder)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        if Path(name).is_dir():
            raise BadInput(f"{folder}: no weights (*.safetensors); download the model again")
        return warns(
            f"{name}: only its small files are cached, every process will download the weights from the "
            "Hugging Face Hub"
        )
    fit = check_model(folder)
    held = f"{', '.join(config.get('architectures') or ['?'])}, {fit.parameters / 1e6:,.1f}M parameters in {folder}"
    return warns("; ".join([held, *fit.doubts])) if fit.doubts else passes(held)


def refuse_bad_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer, or whose tokenizer is broken or has no chat template.

    Raises:
        BadInput: names what is missing or broken.
    """
    if not any((folder / f).is_file() for f in TOKENIZER_FILES):
        raise BadInput(f"{folder}: no tokenizer beside config.json; copy the base model's tokenizer files there")
    if (folder / "tokenizer.json").is_file():
        load_fast_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    has_template = (folder / "chat_template.jinja").is_file()
    if not has_template and not (settings.is_file() and read_json(settings).get("chat_template")):
        raise BadInput(
            f"{folder}: its tokenizer has no chat template, which verl builds the rows with; train an instruct model"
        )
