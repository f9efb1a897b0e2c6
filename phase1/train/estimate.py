"""How much memory, time and disk a training run will take, from the model's config.json and the run's settings.

The formulas leave out the CUDA context and the allocator's slack, together 2 to 4 GiB a GPU. They are compared with
measured peaks and step times in tests/train/test_estimate.py and docs/02_training_config_and_flow.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from phase1.files import read_json
from phase1.train.verl_version import SAVE_CONTENTS

GIB = 2**30
# Dense bf16 peaks in TFLOP/s, by a piece of the name that nvidia-smi prints; the vendor's data sheets.
PEAK_TFLOPS = {
    "H200": 989.4,
    "H100": 989.4,
    "H800": 989.4,
    "H20": 148.0,
    "B200": 2250.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "4090": 165.2,
}
# What a part of a checkpoint holds, in copies of the parameters in the master weights' dtype.
CHECKPOINT_COPIES = {"model": 1, "optimizer": 2, "extra": 0, "hf_model": 1}
LOSS_BLOCK_TOKENS = 4096  # BLOCK_TOKENS of patches/phase1_kernels.py
COMPILED_SHARE = 0.65  # of saved activations that torch.compile leaves; 0.60 to 0.67 was measured


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder's config.json that decide memory and time."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    intermediate: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> ModelShape | None:
        """From config.json; None where it is not that of a Llama-like decoder.

        Raises:
            BadInput: there is no config.json, or it is not JSON.
        """
        config = read_json(folder / "config.json")
        try:
            return cls(
                hidden=config["hidden_size"],
                layers=config["num_hidden_layers"],
                heads=config["num_attention_heads"],
                key_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
                intermediate=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                tied=bool(config.get("tie_word_embeddings")),
            )
        except KeyError:
            return None

    @property
    def key_size(self) -> int:
        """Width of all keys of a token."""
        return self.hidden // self.heads * self.key_heads

    @property
    def layer_parameters(self) -> int:
        """Weights of a layer's matrices."""
        return 2 * self.hidden**2 + 2 * self.hidden * self.key_size + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """All of them, without biases and norms (less than a thousandth)."""
        return self.layers * self.layer_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def flops(self, tokens: float, row_tokens: float) -> float:
        """Floating-point operations of forward and backward, nothing computed twice.

        6 for each weight in a matrix product and token, the head once, and causal attention (PaLM, arXiv 2204.02311,
        appendix B).

        Args:
            tokens: all of them.
            row_tokens: of one row, which attention looks at.
        """
        body = self.layers * self.layer_parameters + self.vocabulary * self.hidden
        return tokens * (6 * body + 6 * self.layers * self.hidden * row_tokens)


def memory(
    shape: ModelShape,
    gpus: int,
    trainer: str,
    tokens: int,
    *,
    checkpointing: bool = True,
    reshard: bool = True,
    compiled: bool = False,
    kept: float = 0.0,
    master_bytes: int = 4,
) -> dict[str, float]:
    """GiB on each GPU at the peak of a step, by cause.

    Args:
        shape: of the model.
        gpus: over which FSDP shards weights, gradients and Adam's two moments.
        trainer: fsdp or engine.
        tokens: of one forward pass on one GPU, padding included (fsdp: micro batch x max_length).
        checkpointing: GRADIENT_CHECKPOINTING.
        reshard: the engine's reshard_after_forward.
        compiled: COMPILE=1.
        kept: ACTIVATION_MEMORY_BUDGET.
        master_bytes: of a parameter in the master weights.
    """
    per_parameter = {"weights": master_bytes, "gradients": master_bytes, "optimizer": 2 * master_bytes}
    found = {name: shape.parameters * size / gpus for name, size in per_parameter.items()}
    table = shape.vocabulary * shape.hidden
    # Embeddings and head stay gathered from the forward to the end of the backward pass, and two layers at a time.
    ends = table * (1 if shape.tied else 2)
    found["gathered"] = 2 * (ends + 2 * shape.layer_parameters if reshard else shape.parameters)
    # Saved for the backward pass, in bytes a token and layer: two norms (input in fp32, product and output in bf16),
    # queries and attention's output, keys and values, four of the MLP's width.
    layer = float(tokens * (16 * shape.hidden + 4 * shape.hidden + 4 * shape.key_size + 8 * shape.intermediate))
    if compiled:  # torch.compile recomputes what is cheap instead of saving it
        layer *= COMPILED_SHARE
    found["activations"] = shape.layers * layer
    if checkpointing:
        inputs = shape.layers * tokens * 2 * shape.hidden
        # The compiler keeps whole tensors and stops short of its budget: at .08 by 2%, at .5 by 15%, as measured.
        used = kept * (1 - 0.3 * min(kept, 0.5))
        found["activations"] = inputs + max(layer, used * shape.layers * layer)
    if trainer == "fsdp":  # logits and their shifted copy in bf16, log-softmax and its gradient in fp32
        found["logits"] = tokens * shape.vocabulary * (2 + 2 + 4 + 4)
    else:  # one block's logits; the head's gradient in fp32 and twice in bf16
        found["logits"] = min(tokens, LOSS_BLOCK_TOKENS) * shape.vocabulary * 2 + table * (4 + 2 + 2)
    return {name: size / GIB for name, size in found.items()}


def peak_tflops(gpu: str) -> float | None:
    """The bf16 peak of a GPU by the name that nvidia-smi prints, None where it is not in the table."""
    return next((tflops for piece, tflops in PEAK_TFLOPS.items() if piece in gpu), None)


def expected_mfu(trainer: str, compiled: bool, kept: float = 0.0) -> float:
    """Share of the GPUs' peak to count with.

    engine: what 7B reached over real tokens (docs/02), on two GPUs and, with half of the activations kept, on four.
    fsdp: a guess on the high side, over padded tokens, of which 21% at 1.5B is the most that was measured.
    """
    if trainer == "fsdp":
        return 0.30
    if compiled and kept >= 0.5:
        return 0.48
    return 0.44 if compiled else 0.37


def checkpoint_bytes(
    parameters: int, master_bytes: int, *, separate_head: int = 0, contents: Iterable[str] = SAVE_CONTENTS
) -> int:
    """Bytes of one checkpoint.

    Args:
        parameters: of the model.
        master_bytes: of one of them.
        separate_head: entries of the head that verl 0.7.0 writes a second time into a tied model's huggingface/.
        contents: verl's save_contents.
    """
    contents = list(contents)
    copies = sum(CHECKPOINT_COPIES[content] for content in contents)
    return (copies * parameters + (separate_head if "hf_model" in contents else 0)) * master_bytes


def hours(shape: ModelShape, gpus: int, tokens: float, *, row_tokens: float, mfu: float, tflops: float) -> float:
    """Wall-clock hours for `tokens` tokens in rows of `row_tokens` at a share `mfu` of the GPUs' peak `tflops`."""
    return shape.flops(tokens, row_tokens) / (gpus * tflops * 1e12 * mfu) / 3600
