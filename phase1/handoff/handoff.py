"""What a hand-off verifies: the model, what it is compared with, and how the checks run. Read when first asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.contract.state.handoff import CheckResult
from phase1.handoff.ask_model import Generation, ask_transformers, questions
from phase1.model.small_files import read_object
from phase1.model.tensors import Source, read_safetensors
from phase1.model.tokenizer import Tokenizer, load_tokenizer

MAX_MODEL_LEN = 6144  # tokens: what evaluation and the original plan's vLLM command ask for


@dataclass(frozen=True)
class Settings:
    """How the checks run. Timeouts in seconds; `min_exec_success_rate` is a share, the gate on codecontests_valid.
    `accept`: why the model is handed over although the report does not speak for it."""

    max_new_tokens: int = 256
    generation_timeout: float = 1800.0
    dtype: str = "bfloat16"
    min_exec_success_rate: float | None = None
    accept: str | None = None
    skip_vllm: bool = False
    vllm_python: str = sys.executable
    vllm_timeout: float = 900.0
    log_dir: Path = Path("logs")


@dataclass
class Handoff:
    """The model directory; and, where given, its base model, its evaluation (outputs/eval_step_N),
    best_checkpoint.json, and the report's comparison_data.json, which may not be there.

    The properties raise BadInput where the files they read are missing or broken.
    """

    model: Path
    base: Path | None = None
    evaluation: Path | None = None
    best: BestCheckpoint | None = None
    report: Path | None = None
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def config(self) -> dict[str, JsonValue]:
        """The model's config.json."""
        return read_object(self.model / "config.json")

    @cached_property
    def weights(self) -> dict[str, Source]:
        """The model's tensors by name."""
        return read_safetensors(self.model)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return load_tokenizer(self.model)

    @cached_property
    def base_tokenizer(self) -> Tokenizer | None:
        """The base model's tokenizer; None where no base model is given."""
        return load_tokenizer(self.base) if self.base else None

    @cached_property
    def tied(self) -> bool:
        """Whether the model's head is its embedding."""
        return bool(self.config.get("tie_word_embeddings"))

    @cached_property
    def context_length(self) -> int:
        """Tokens of prompt and answer that the model can hold together; 0 where its config does not say."""
        length = self.config.get("max_position_embeddings")
        return length if isinstance(length, int) else 0

    @cached_property
    def generation(self) -> Generation:
        """What transformers answers to the questions; asked once, in a process of its own."""
        return ask_transformers(
            self.model,
            questions(self.evaluation),
            dtype=self.settings.dtype,
            max_new_tokens=self.settings.max_new_tokens,
            timeout=self.settings.generation_timeout,
            tied=self.tied,
        )


def verdict(name: str, failures: list[str], warnings: list[str], evidence: str, **data: object) -> CheckResult:
    """A check's result: the worst of what was found.

    Args:
        name: of the check.
        failures: why Phase 3 would train or serve something else than what Phase 1 measured.
        warnings: what merely costs something.
        evidence: what was read; shown where nothing was found.
        data: for handoff.json; JSON values.
    """
    status = "fail" if failures else "warn" if warnings else "pass"
    text = "; ".join([*failures, *warnings]) or evidence
    result: CheckResult = CheckResult.model_validate({"name": name, "status": status, "evidence": text, "data": data})
    return result


def failed(name: str, reason: str) -> CheckResult:
    """A check that failed before it could look at everything."""
    return verdict(name, [reason], [], "")


def not_run(name: str, reason: str) -> CheckResult:
    """A check that could not be run: a warning."""
    return verdict(name, [], [f"not run: {reason}"], "")
