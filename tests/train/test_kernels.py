"""The kernels of patches/phase1_kernels.py against float64. On a CPU their torch paths; on a GPU, if there is one, the
kernels."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "patches"))
import phase1_kernels
from phase1_kernels import packed_attention, sum_log_probs, transformers_attention

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.detach().cpu().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("tokens", "block"), [(1, 4096), (37, 8), (64, 64), (65, 64)])
def test_loss_and_both_gradients_equal_those_of_float64(device, dtype, tokens, block):
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, 24), torch.randn(301, 24)
    labels = torch.randint(0, 301, (tokens,))
    given = [x.to(device, dtype).requires_grad_() for x in (hidden, weight)]
    total = sum_log_probs(*given, labels.to(device), block=block)
    got = (total, *torch.autograd.grad(total * -0.25, given))
    exact_in = [x.detach().cpu().double().requires_grad_() for x in given]
    exact_total = torch.log_softmax(exact_in[0] @ exact_in[1].t(), dim=1).gather(1, labels[:, None]).sum()
    exact = (exact_total, *torch.autograd.grad(exact_total * -0.25, exact_in))
    for a, b in zip(got, exact, strict=True):
        assert error(a, b) < TOLERANCE[dtype]


def test_a_batch_without_answer_tokens_has_loss_and_gradient_zero():
    hidden, weight = torch.randn(0, 24, requires_grad=True), torch.randn(301, 24, requires_grad=True)
    total = sum_log_probs(hidden, weight, torch.empty(0, dtype=torch.long))
    total.backward()
    assert total == 0 and not weight.grad.any()


def test_a_validation_computes_no_gradient(monkeypatch):
    """Under no_grad a parameter still counts as needing one: the head's would cost as much memory as the weights, and
    the time of two products."""
    asked = []
    plain = phase1_kernels.log_probs_
    monkeypatch.setattr(
        phase1_kernels,
        "log_probs_",
        lambda logits, labels, gradient: asked.append(gradient) or plain(logits, labels, gradient),
    )
    weight = torch.nn.Parameter(torch.randn(301, 24))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            sum_log_probs(torch.randn(5, 24), weight, torch.arange(5))
    assert asked == [True, False]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("heads", "kv"), [(4, 4), (4, 2), (6, 1)])
def test_attention_of_packed_rows_equals_that_of_each_row_alone_in_float64(device, heads, kv):
    torch.manual_seed(0)
    lengths, dtype = [5, 1, 17, 64], torch.bfloat16 if device == "cuda" else torch.float32
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    given = [torch.randn(sum(lengths), h, 32, device=device, dtype=dtype).requires_grad_() for h in (heads, kv, kv)]
    upstream = torch.randn(sum(lengths), heads, 32, device=device, dtype=dtype)
    out = packed_attention(*given, starts.to(device), max(lengths))
    got = (out, *torch.autograd.grad(out, given, upstream))
    q, k, v = exact_in = [x.detach().cpu().double().requires_grad_() for x in given]
    rows = []
    for a, b in zip(starts.tolist(), starts.tolist()[1:], strict=False):
        keys, values = (x[a:b].repeat_interleave(heads // kv, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[a:b], keys) / 32**0.5
        scores = scores.masked_fill(torch.ones(b - a, b - a, dtype=torch.bool).triu(1), float("-inf"))
        rows.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values))
    exact_out = torch.cat(rows)
    exact = (exact_out, *torch.autograd.grad(exact_out, exact_in, upstream.cpu().double()))
    for a, b in zip(got, exact, strict=True):
        assert error(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "refused",
    [{"attention_mask": torch.ones(1)}, {"dropout": 0.1}, {"cu_seq_lens_q": None}, {"sliding_window": 2}],
    ids=str,
)
def test_what_the_packed_attention_cannot_do_is_refused(refused):
    x = torch.randn(1, 2, 4, 8)
    given = {
        "attention_mask": None,
        "cu_seq_lens_q": torch.tensor([0, 4], dtype=torch.int32),
        "max_length_q": 4,
    } | refused
    with pytest.raises(ValueError, match="packed rows only"):
        transformers_attention(None, x, x, x, **given)
