"""Logprobs of chosen tokens from final hidden states, without ever holding the whole logits matrix."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]

TILE = 2048
"""Vocabulary entries whose logits exist at a time: for 1024 positions 8 MB, twice, which stay in a CPU's cache."""


def token_logprobs(hidden_ND: Tensor, head_VD: Tensor, tokens_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-softmax of fp32 logits / temperature at `tokens_N`, and the entropy of each distribution, in nats.

    The vocabulary is gone through once, a tile at a time, all sums being kept relative to the greatest logit so far
    (Milakov and Gimelshein 2018, arXiv:1805.02867). The head is frozen, so all that the backward pass needs is
    ∂logprob/∂hidden, one vector a position, whose sum over the vocabulary grows along with the others. Gradients flow
    to `hidden_ND` through the logprobs; the entropy carries none.

    Returns:
        (logprobs_N, entropy_N), float32.
    """
    return _TokenLogprobs.apply(hidden_ND, head_VD, tokens_N, temperature)  # type: ignore[no-any-return, no-untyped-call]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, tokens_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        inputs_ND, chosen_ND = hidden_ND.float(), head_VD[tokens_N].float()
        logits_N1 = torch.linalg.vecdot(inputs_ND, chosen_ND)[:, None] / temperature
        # Relative to the greatest logit so far: Σ exp l, Σ l exp l and Σ exp l · (the token's row of the head).
        greatest_N1 = logits_N1
        total_N1, weighted_N1 = torch.zeros_like(logits_N1), torch.zeros_like(logits_N1)
        rows_ND = torch.zeros_like(inputs_ND) if ctx.needs_input_grad[0] else None
        buffers = inputs_ND.new_empty(2, len(inputs_ND) * min(TILE, len(head_VD)))
        with _exact_products(head_VD.dtype):
            for start in range(0, len(head_VD), TILE):
                tile_VD = head_VD[start : start + TILE]
                logits_NV, exp_NV = (b[: len(inputs_ND) * len(tile_VD)].view(-1, len(tile_VD)) for b in buffers)
                torch.mm(inputs_ND, tile_VD.float().T, out=logits_NV).div_(temperature)
                before_N1, greatest_N1 = greatest_N1, torch.maximum(greatest_N1, logits_NV.amax(-1, keepdim=True))
                shift_N1 = before_N1 - greatest_N1
                scale_N1 = shift_N1.exp()
                torch.exp(logits_NV.sub_(greatest_N1), out=exp_NV)
                weighted_N1 = (weighted_N1 + shift_N1 * total_N1) * scale_N1
                weighted_N1 += torch.linalg.vecdot(exp_NV, logits_NV)[:, None]
                total_N1 = total_N1 * scale_N1 + exp_NV.sum(-1, keepdim=True)
                if rows_ND is not None:
                    rows_ND.mul_(scale_N1).add_(exp_NV.to(tile_VD.dtype) @ tile_VD)
        logprobs_N = (logits_N1 - greatest_N1 - total_N1.log()).squeeze(-1)
        entropy_N = (total_N1.log() - weighted_N1 / total_N1).squeeze(-1)
        if rows_ND is not None:
            ctx.jacobian_ND = ((chosen_ND - rows_ND / total_N1) / temperature).to(hidden_ND.dtype)
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.jacobian_ND * grad_N[:, None].to(ctx.jacobian_ND.dtype), None, None, None


@contextmanager
def _exact_products(dtype: torch.dtype) -> Iterator[None]:
    """Lets fp32 matrix products on CPU take bf16 factors where they are of bf16 already: the same products, summed in
    fp32 as before, at the speed of bf16."""
    before = _MATMUL.fp32_precision
    _MATMUL.fp32_precision = "bf16" if dtype == torch.bfloat16 else before
    try:
        yield
    finally:
        _MATMUL.fp32_precision = before
