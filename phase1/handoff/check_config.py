"""Checks of the configuration, the tokenizer and the chat template."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from phase1.contract.prompts import PROMPTS_SHA256, answer
from phase1.contract.state.handoff import CheckResult
from phase1.handoff.ask_model import PROMPTS
from phase1.handoff.handoff import MAX_MODEL_LEN, Handoff, failed, verdict
from phase1.model.matches_base import config_failures, rope_lost
from phase1.model.shapes import EMBEDDING, HEAD
from phase1.model.small_files import read_object, rope_theta
from phase1.model.tokenizer import ROUND_TRIP, chat_text, lost_in_round_trip, plain_ids, same_ids


def check_config(h: Handoff) -> CheckResult:
    """The fields that GRPO and vLLM read: rope in both forms, end of text, padding, vocabulary, length."""
    base = read_object(h.base / "config.json") if h.base else {}
    theta, stops = rope_theta(h.config).flat, end_of_text_ids(h.model, h.config)
    embedding, vocab_size = h.weights.get(EMBEDDING), h.config.get("vocab_size")
    rows = embedding.shape[0] if embedding else vocab_size if isinstance(vocab_size, int) else 0
    lost = rope_lost(h.config)
    failures, warnings = [*([lost] if lost else []), *config_failures(h.config, base)], []
    if theta is None and not lost and h.config.get("model_type") != "gpt2":
        failures.append("no rope_theta: transformers 4 and vLLM read 10000")
    end = h.tokenizer.eos_token_id
    if end is None or end not in stops:
        failures.append(f"the tokenizer ends answers with id {end} ({h.tokenizer.eos_token}), readers stop at {stops}")
    if h.tokenizer.pad_token_id is None:
        warnings.append("the tokenizer has no pad token: GRPO needs one")
    elif h.tokenizer.pad_token_id == end:
        warnings.append("pad and eos are one token: a loss mask by pad id hides the end of answers")
    if len(h.tokenizer) > rows:
        failures.append(f"{len(h.tokenizer)} tokens, but the embedding has {rows} rows")
    if rows != vocab_size:
        failures.append(f"vocab_size {vocab_size}, but the embedding has {rows} rows")
    if not h.tied and h.weights and HEAD not in h.weights:
        failures.append(f"not tied, but there is no {HEAD}: readers start it at random")
    if h.context_length < MAX_MODEL_LEN:
        warnings.append(
            f"max_position_embeddings {h.context_length} is below {MAX_MODEL_LEN}: vLLM refuses the original plan's "
            "--max-model-len"
        )
    return verdict(
        "config",
        failures,
        warnings,
        f"rope_theta {theta:g}, stops at {stops}, {len(h.tokenizer)} tokens in {rows} rows" if theta else "",
        rope_theta=theta,
        eos=stops,
        vocabulary=len(h.tokenizer),
        rows=rows,
    )


def end_of_text_ids(model: Path, config: dict[str, JsonValue]) -> list[JsonValue]:
    """The ids at which readers stop: generation_config.json's, else config.json's."""
    path = model / "generation_config.json"
    generation = read_object(path) if path.exists() else {}
    for found in (generation.get("eos_token_id"), config.get("eos_token_id")):
        if found is not None and found != []:
            return found if isinstance(found, list) else [found]
    return []


def check_tokenizer(h: Handoff) -> CheckResult:
    """Text survives encoding and decoding; special tokens are one id each; ids equal the base model's."""
    failures = lost_in_round_trip(h.tokenizer)
    for token in h.tokenizer.all_special_tokens:
        if len(plain_ids(h.tokenizer, token)) != 1:
            failures.append(f"{token} is several tokens")
    base = h.base_tokenizer
    if base and not same_ids(h.tokenizer, base):
        failures.append("encodes text in other ids than the base model's tokenizer")
    compared = ", ids as the base model's" if base else ""
    return verdict("tokenizer", failures, [], f"{len(ROUND_TRIP)} texts come back unchanged{compared}")


def check_chat_template(h: Handoff) -> CheckResult:
    """The model is asked in the words it was trained on: the template over phase1.contract.prompts, against the base
    model's."""
    if not h.tokenizer.chat_template:
        return failed("chat_template", "the tokenizer has no chat template: chat requests fail or take another form")
    try:
        asked = [chat_text(h.tokenizer, p) for p in PROMPTS]
        trained = [chat_text(h.tokenizer, p, answer("pass")) for p in PROMPTS]
    except Exception as e:  # jinja2's own classes, and TypeErrors of what the template does
        return failed("chat_template", f"the template does not render: {e}")
    failures, warnings = [], []
    if not all(row.startswith(prompt) for prompt, row in zip(asked, trained, strict=True)):
        failures.append("the prompt that evaluation sends is not how a training row begins")
    if h.tokenizer.eos_token and not all(row.rstrip().endswith(h.tokenizer.eos_token) for row in trained):
        failures.append(f"an answer does not end in {h.tokenizer.eos_token}")
    base = h.base_tokenizer
    if base is None:
        warnings.append("not compared with the base model's: no --base_model given")
    elif base.chat_template and [chat_text(base, p) for p in PROMPTS] != asked:
        failures.append("renders other prompts than the base model's template, which training used")
    evidence = "renders training and evaluation prompts alike, as the base model's does"
    return verdict("chat_template", failures, warnings, evidence, prompts_sha256=PROMPTS_SHA256)
