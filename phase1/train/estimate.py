"""How much memory, time and disk a training run will take, from the model's config.json and the run's settings.

    python -m phase1.train.estimate MODEL_DIR --gpus 8 --trainer engine --tokens 16384    # a table, nothing is started

What the formulas leave out is the CUDA context and the allocator's slack, together 2 to 4 GiB a GPU. They are held
against measured peaks and step times in tests/train/test_estimate.py and docs/02_training_config_and_flow.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from phase1.files import BadInput, read_json, run_script

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
CHECKPOINT_COPIES = {
    "model": 1,
    "optimizer": 2,
    "extra": 0,
    "hf_model": 1,
}  # of the parameters, in the masters' dtype, by what verl saves
LOSS_BLOCK_TOKENS = 4096  # BLOCK_TOKENS of patches/phase1_kernels.py


@dataclass(frozen=True)
class ModelShape:
    """What of a decoder's config.json decides memory and time."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    intermediate: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> ModelShape | None:
        """From config.json; None where it is not that of a Llama-like decoder."""
        c = read_json(folder / "config.json")
        try:
            return cls(
                c["hidden_size"],
                c["num_hidden_layers"],
                c["num_attention_heads"],
                c.get("num_key_value_heads", c["num_attention_heads"]),
                c["intermediate_size"],
                c["vocab_size"],
                bool(c.get("tie_word_embeddings")),
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
        """All of them, biases and norms left out (less than a thousandth)."""
        return self.layers * self.layer_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def flops(self, tokens: float, row_tokens: float) -> float:
        """Forward and backward of `tokens` tokens in rows of `row_tokens`: 6 per weight in a matrix product, the head
        once, and causal attention; no recomputation (PaLM, arXiv 2204.02311, appendix B)."""
        body = self.layers * self.layer_parameters + self.vocabulary * self.hidden
        return tokens * (6 * body + 6 * self.layers * self.hidden * row_tokens)


def memory(
    shape: ModelShape,
    gpus: int,
    trainer: str,
    tokens: int,
    *,
    checkpointing: bool = True,
    fused_loss: bool = True,
    reshard: bool = True,
    compiled: bool = False,
    kept: float = 0.0,
    master_bytes: int = 4,
    answer_share: float = 1.0,
) -> dict[str, float]:
    """GiB on each GPU at the peak of a step, by cause. `tokens` are those of one forward pass on one GPU, padding
    included (fsdp: micro batch x max_length). FSDP shards weights, gradients and Adam's two moments over the GPUs.
    `kept`: ACTIVATION_MEMORY_BUDGET."""
    per_parameter = {"weights": master_bytes, "gradients": master_bytes, "optimizer": 2 * master_bytes}
    found = {name: shape.parameters * size / gpus for name, size in per_parameter.items()}
    table = shape.vocabulary * shape.hidden
    ends = table * (
        1 if shape.tied else 2
    )  # embeddings and head stay gathered from the forward to the end of the backward
    found["gathered"] = 2 * (shape.parameters if not reshard else ends + 2 * shape.layer_parameters)
    # Saved for the backward pass, a token and a layer, in bytes: two norms (fp32 input, bf16 product, bf16 output),
    # queries
    # and attention's output, keys and values, four of the MLP's width.
    layer: float = tokens * (16 * shape.hidden + 4 * shape.hidden + 4 * shape.key_size + 8 * shape.intermediate)
    if compiled:  # torch.compile recomputes what is cheap instead of saving it: 0.60 to 0.67 of it was left, measured
        layer *= 0.65
    every = shape.layers * layer
    found["activations"] = (
        shape.layers * tokens * 2 * shape.hidden + max(layer, kept * every) if checkpointing else every
    )
    if trainer == "fsdp":  # logits and their shifted copy in bf16, log-softmax and its gradient in fp32
        found["logits"] = tokens * shape.vocabulary * (2 + 2 + 4 + 4)
    elif not fused_loss:
        found["logits"] = tokens * answer_share * shape.vocabulary * (2 + 4 + 4)
    else:  # one block's logits; the head's gradient in fp32 and twice in bf16
        found["logits"] = min(tokens, LOSS_BLOCK_TOKENS) * shape.vocabulary * 2 + table * (4 + 2 + 2)
    return {name: size / GIB for name, size in found.items()}


def peak_tflops(gpu: str) -> float | None:
    """The bf16 peak of a GPU by the name that nvidia-smi prints, None where it is not in the table."""
    return next((tflops for piece, tflops in PEAK_TFLOPS.items() if piece in gpu), None)


def expected_mfu(trainer: str, compiled: bool) -> float:
    """Share of the peak to count with: for the engine what 7B reached on two GPUs, over real tokens (docs/02); for fsdp
    a guess on the high side, over padded ones, of which 21% at 1.5B is the most that was measured."""
    if trainer == "fsdp":
        return 0.30
    return 0.44 if compiled else 0.37


def checkpoint_bytes(
    parameters: int, master_bytes: int, separate_head: int = 0, contents: Iterable[str] = tuple(CHECKPOINT_COPIES)
) -> int:
    """One checkpoint of `contents` (verl's save_contents): weights, Adam's two moments, huggingface/. `separate_head`:
    entries of the head that verl 0.7.0 writes a second time into a tied model's huggingface/."""
    copies = sum(CHECKPOINT_COPIES[content] for content in contents)
    return (copies * parameters + (separate_head if "hf_model" in contents else 0)) * master_bytes


def hours(
    shape: ModelShape, gpus: int, tokens: float, row_tokens: float, mfu: float, peak_tflops: float = PEAK_TFLOPS["H100"]
) -> float:
    """Wall-clock hours for `tokens` tokens at a share `mfu` of the GPUs' peak."""
    return shape.flops(tokens, row_tokens) / (gpus * peak_tflops * 1e12 * mfu) / 3600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with config.json")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--trainer", choices=("engine", "fsdp"), default="engine")
    parser.add_argument(
        "--tokens", type=int, default=16384, help="of one forward pass on one GPU; fsdp: micro batch x max_length"
    )
    parser.add_argument("--no_checkpointing", action="store_true", help="keep all activations")
    parser.add_argument("--compiled", action="store_true", help="COMPILE=1")
    parser.add_argument("--kept", type=float, default=0, help="ACTIVATION_MEMORY_BUDGET, with --compiled")
    parser.add_argument("--rows", type=int, default=95_629, help="training rows")
    parser.add_argument("--row_tokens", type=float, default=760, help="mean length of a row")
    parser.add_argument("--max_length", type=int, default=4096, help="fsdp pads every row to it")
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    for name in ("gpus", "tokens", "rows", "row_tokens", "max_length", "epochs"):
        if not getattr(args, name) >= 1:
            raise BadInput(f"--{name} {getattr(args, name)}: at least 1 is needed")
    if not 0 <= args.kept <= 1 or (args.kept and (args.no_checkpointing or not args.compiled)):
        raise BadInput(f"--kept {args.kept}: a share from 0 to 1, with --compiled and without --no_checkpointing")
    shape = ModelShape.of(args.model)
    if shape is None:
        raise BadInput(
            f"{args.model}/config.json: not that of a decoder this can estimate; name a Hugging Face directory"
        )
    parts = memory(
        shape,
        args.gpus,
        args.trainer,
        args.tokens,
        checkpointing=not args.no_checkpointing,
        compiled=args.compiled,
        kept=args.kept,
    )
    length = args.max_length if args.trainer == "fsdp" else args.row_tokens
    spent = hours(shape, args.gpus, args.rows * args.epochs * length, length, expected_mfu(args.trainer, args.compiled))
    print(
        json.dumps(
            {
                "gib_per_gpu": {k: round(v, 1) for k, v in parts.items()} | {"all": round(sum(parts.values()), 1)},
                "hours": round(spent, 1),
                "gpu_hours": round(spent * args.gpus, 1),
                "checkpoint_gb": round(checkpoint_bytes(shape.parameters, 4) / 1e9, 1),
            },
            indent=2,
        )
    )
    return 0


if __name__ == "__main__":
    run_script(main)
