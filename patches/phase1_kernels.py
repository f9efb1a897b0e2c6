"""The two kernels that padding-free training needs where flash-attn is not installed: attention over packed rows, and
the loss of a large vocabulary without its logits.

- `packed_attention`: causal attention within each row of a pack, by the FlashAttention-2 kernels that torch itself
  carries (torch >= 2.10, the op behind torch.nn.attention.varlen). On a CPU the same rows go through
  scaled_dot_product_attention.
- `sum_log_probs`: hidden states x head -> sum of log p(label), with both gradients computed in the forward pass, a
  block of tokens at a time (the scheme of Liger Kernel's fused linear cross-entropy, arXiv 2410.10989, section 3.2).
  152k logits of 24,000 tokens are 7.3 GB in bf16 and as much again for each copy; here 4,096 tokens' logits exist at
  once.

tests/train/test_kernels.py checks both against float64; tests/bench/bench_train.py does so on the GPU it measures.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU builds of torch come without it
    triton = None

BLOCK_TOKENS = 4096  # tokens whose logits exist at once: 1.2 GB in bf16 for 152k entries


# -------------------------------------------------------------------------------------------------------- attention
def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    longest: int,
    scale: float | None = None,
) -> torch.Tensor:
    """Causal attention of several rows packed end to end; no row sees another.

    query (tokens, heads, size), key and value (tokens, key heads, size), cu_seqlens int32 (rows + 1) row starts and the
    end, `longest` at least the longest row. Returns (tokens, heads, size). Fewer key heads than heads: grouped queries.
    """
    if query.is_cuda:
        # The op's Python wrapper changed its arguments in torch 2.10, 2.11 and 2.13; the op's own first twelve stayed.
        return torch.ops.aten._flash_attention_forward(
            query, key, value, cu_seqlens, cu_seqlens, longest, longest, 0.0, True, False, scale=scale
        )[0]
    return row_by_row(query, key, value, cu_seqlens, scale)


# Compiled, every new set of row lengths would be another program. The decorator has no types where torch is not read.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def row_by_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """`packed_attention` on a CPU."""
    ends = cu_seqlens.tolist()
    rows = (tuple(x[a:b].transpose(0, 1) for x in (query, key, value)) for a, b in zip(ends, ends[1:], strict=False))
    return torch.cat(
        [
            F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True).transpose(0, 1)
            for q, k, v in rows
        ]
    )


def transformers_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    sliding_window: int | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """`packed_attention` under the interface of transformers' ALL_ATTENTION_FUNCTIONS: tensors are (1, heads, tokens,
    size)."""
    only = "phase1_packed attends within packed rows only"
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None or dropout:
        raise ValueError(f"{only}: cu_seq_lens_q is needed, no mask, no dropout")
    if sliding_window and sliding_window < max_length_q:
        raise ValueError(f"{only}: no sliding window")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return packed_attention(q, k, v, cu_seq_lens_q, max_length_q, scaling)[None], None


# ------------------------------------------------------------------------------------------------------------- loss
class SumLogProbs(torch.autograd.Function):
    """See sum_log_probs."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, block: int, grad: bool
    ) -> torch.Tensor:
        learning = grad and any(ctx.needs_input_grad)  # the latter is true of a parameter under no_grad too
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden if learning else hidden[:0])
        d_weight = torch.zeros(weight.shape if learning else (0,), dtype=torch.float32, device=weight.device)
        for start in range(0, len(hidden), block):
            rows = slice(start, start + block)
            logits = hidden[rows] @ weight.t()
            total += log_probs_(logits, labels[rows], learning).sum()
            if learning:  # logits now hold d(log p) / d(logits)
                torch.mm(logits, weight, out=d_hidden[rows])
                d_weight += logits.t() @ hidden[rows]
        if learning:
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, d_total: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * d_total.to(d_hidden.dtype), d_weight * d_total.to(d_weight.dtype), None, None, None


def sum_log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, block: int = BLOCK_TOKENS
) -> torch.Tensor:
    """Sum over tokens of log softmax(hidden @ weight.T)[label], a float32 scalar.

    hidden (tokens, size), weight (vocabulary, size), labels int64 (tokens). The gradients are exact up to the dtype of
    the inputs; the weight's is summed over blocks in float32. Under no_grad, as in a validation, neither is computed.
    """
    return SumLogProbs.apply(hidden, weight, labels, block, torch.is_grad_enabled())


def log_probs_(logits: torch.Tensor, labels: torch.Tensor, gradient: bool) -> torch.Tensor:
    """log p(label) of each row, float32; with `gradient` the logits are overwritten with its derivative by them."""
    if logits.is_cuda and triton is not None:
        out = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        if len(logits):
            _log_probs_kernel[(len(logits),)](
                logits, labels, out, logits.stride(0), logits.shape[1], gradient, BLOCK=8192, num_warps=16
            )
        return out
    scores = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    normaliser = scores.logsumexp(dim=1, keepdim=True)
    out = scores.gather(1, labels[:, None]) - normaliser
    if gradient:
        derivative = (scores - normaliser).exp_().neg_()
        derivative.scatter_add_(1, labels[:, None], torch.ones_like(out))
        logits.copy_(derivative)
    return out[:, 0].float()


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]  # triton comes without types
    def _log_probs_kernel(  # type: ignore[no-untyped-def]  # triton takes an annotation for the argument's type on the GPU
        logits, labels, out, stride, entries, GRADIENT: tl.constexpr, BLOCK: tl.constexpr
    ):
        """One program a row: one pass for maximum and sum together (online softmax), one more to write the
        derivative."""
        row = tl.program_id(0).to(tl.int64)
        x = logits + row * stride
        label = tl.load(labels + row)
        score = tl.load(x + label).to(tl.float32)  # before the first reduction, hence before any warp overwrites it
        high = -float("inf")
        total = 0.0
        for start in range(0, entries, BLOCK):
            at = start + tl.arange(0, BLOCK)
            a = tl.load(x + at, mask=at < entries, other=-float("inf")).to(tl.float32)
            higher = tl.maximum(high, tl.max(a, 0))
            total = total * tl.exp(high - higher) + tl.sum(tl.exp(a - higher), 0)
            high = higher
        normaliser = high + tl.log(total)
        tl.store(out + row, score - normaliser)
        if GRADIENT:
            for start in range(0, entries, BLOCK):
                at = start + tl.arange(0, BLOCK)
                a = tl.load(x + at, mask=at < entries, other=-float("inf")).to(tl.float32)
                d = tl.where(at == label, 1.0, 0.0) - tl.exp(a - normaliser)
                tl.store(x + at, d.to(logits.dtype.element_ty), mask=at < entries)
