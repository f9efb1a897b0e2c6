"""Preflight: what is in the model's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phase1.files import BadInput, read_json
from phase1.model.adapters import refuse_adapter_files
from phase1.model.hub import refuse_no_download
from phase1.model.matches_base import config_failures, reads_old_form_alone, rope_lost
from phase1.model.matches_config import check_model
from phase1.model.small_files import refuse_torn_json
from phase1.model.tokenizer import TOKENIZER_FILES, load_fast_tokenizer, refuse_newer_tokenizer
from phase1.train.job import Job, how_to_set
from phase1.train.preflight.outcome import Outcome, passes, warns


def model(job: Job) -> Outcome:
    """Whether configuration, tokenizer, chat template and weights are there, and the weights are the configuration's.

    The trainer starts a missing tensor at random, and passes over a foreign one.
    """
    name, folder = job.text("model.partial_pretrain"), job.model_folder
    if folder is None:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
            refuse_offline(job, name)
            refuse_no_download(name)
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
    refuse_misfit_tokenizer(folder, config)
    refuse_misfit_template(folder)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        if Path(name).is_dir():
            raise BadInput(f"{folder}: no weights (*.safetensors); download the model again")
        refuse_offline(job, name)
        refuse_no_download(name)
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
    refuse_newer_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    has_template = (folder / "chat_template.jinja").is_file()
    if not has_template and not (settings.is_file() and read_json(settings).get("chat_template")):
        raise BadInput(
            f"{folder}: its tokenizer has no chat template, which verl builds the rows with; train an instruct model"
        )


def refuse_offline(job: Job, name: str) -> None:
    """Refuse a model that must be downloaded where the environment forbids it.

    Raises:
        BadInput: names the variable.
    """
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if job.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise BadInput(
                f"{name} is not on this machine, and {variable}={job.environ[variable]} forbids its download; "
                "unset it, or name a folder with MODEL_PATH"
            )


def refuse_misfit_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that makes ids for which the model has no embedding: an index error in the middle of the run.

    Raises:
        BadInput: both numbers.
    """
    rows = config.get("vocab_size")
    if not (folder / "tokenizer.json").is_file() or not isinstance(rows, int):
        return
    most = max(load_fast_tokenizer(folder).get_vocab(with_added_tokens=True).values(), default=0)
    if most >= rows:
        raise BadInput(
            f"{folder / 'tokenizer.json'}: has ids up to {most}, but the model's embedding has {rows} rows; copy the "
            "tokenizer that belongs to the model, or enlarge the embedding"
        )


def refuse_misfit_template(folder: Path) -> None:
    """Refuse a chat template that never writes the tokenizer's end token, or that opens a think block by itself.

    A model trained with the first never learns to stop where generation stops; with the second the answer stands behind
    a block that the rows do not have.

    Raises:
        BadInput: names the token or the block.
    """
    settings = read_json(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if not isinstance(template, str):  # several named ones: which is taken is the caller's choice
        return
    where = file if file.is_file() else folder / "tokenizer_config.json"
    end = settings.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "assistant")]
    whole = rendered(template, turns, settings, asks=False)
    if end and whole is not None and end not in whole:
        raise BadInput(
            f"{where}: the chat template never writes eos_token {end}, so the model would not learn to stop; set "
            "eos_token to what the template ends a turn with, as the instruct model's tokenizer_config.json does"
        )
    asked = rendered(template, turns[:2], settings, asks=True)
    if asked is not None and asked.count("<think>") > asked.count("</think>"):
        raise BadInput(
            f"{where}: the chat template opens a <think> block before each answer, which the rows do not have; train a "
            "model without it, or take <think> out of the template"
        )


def rendered(template: str, turns: list[dict[str, str]], settings: Mapping[str, Any], *, asks: bool) -> str | None:
    """The turns as the template writes them, in the way of transformers; None where it cannot be rendered here.

    Args:
        template: Jinja's text.
        turns: role and content of each.
        settings: tokenizer_config.json, whose special tokens a template may name.
        asks: whether the generation prompt is added.
    """
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    tokens = {
        name: value.get("content") if isinstance(value, dict) else value
        for name, value in settings.items()
        if name.endswith("_token")
    }
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    try:
        return str(environment.from_string(template).render(messages=turns, add_generation_prompt=asks, **tokens))
    except (TemplateError, TypeError):
        return None
