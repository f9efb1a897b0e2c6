"""How an answer is sampled. The defaults are EVAL@1 (contract 5), which is fixed here and nowhere else.

A model's own generation_config.json must not change it: Qwen2.5-Coder's sets repetition_penalty 1.1, temperature 0.7
and top_k 20. Only its end-of-text ids are read (phase1/generate/decoding.py).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from phase1.files import BadInput


@dataclass(frozen=True)
class Sampling:
    """The sampling parameters. Each goes into run.json: evaluations that differ in one are not comparable.

    Attributes:
        top_k: the most likely tokens to sample from; -1 for all.
        max_new_tokens: longest answer, in tokens.
        max_model_len: longest prompt and answer together, in tokens.
        n_samples: answers to each problem; more than 1 goes beyond EVAL@1.
        seed: of sampled answers; has no effect at temperature 0.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = -1
    repetition_penalty: float = 1.0
    max_new_tokens: int = 2048
    max_model_len: int = 6144
    dtype: str = "bfloat16"
    n_samples: int = 1
    seed: int = 0

    def check(self) -> None:
        """Check that the values can be used together.

        Raises:
            BadInput: one is out of range, or several answers are wanted at temperature 0.
        """
        if self.n_samples > 1 and self.temperature == 0:
            raise BadInput(
                f"--n_samples {self.n_samples} with --temperature {self.temperature:g}: greedy answers are all the "
                "same; give a temperature above 0, 0.8 for example"
            )
        temperature = 0 <= self.temperature < math.inf
        top = 0 < self.top_p <= 1 and (self.top_k == -1 or self.top_k > 0)
        penalty = 0 < self.repetition_penalty < math.inf
        if not (temperature and top and penalty):
            raise BadInput(
                f"--temperature {self.temperature:g} --top_p {self.top_p:g} --top_k {self.top_k} "
                f"--repetition_penalty {self.repetition_penalty:g}: expected temperature from 0, top_p above 0 and at "
                "most 1, top_k -1 or from 1, a penalty above 0"
            )

    def identity(self) -> dict[str, JsonValue]:
        """What run.json keeps. Greedy decoding has one answer and no seed."""
        kept = asdict(self)
        if self.temperature == 0:
            del kept["n_samples"], kept["seed"]
        return kept

    def seed_of(self, problem_id: str, sample: int) -> int:
        """The seed of one answer, 32 bits. Neither order nor server changes it, so a resumed run samples the same."""
        digest = hashlib.sha256(f"{self.seed}:{problem_id}:{sample}".encode()).digest()
        return int.from_bytes(digest[:4], "big")
