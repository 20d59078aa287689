"""Logprobs of chosen tokens from final hidden states, without ever holding the whole logits matrix."""

from typing import Any

import torch
from torch import Tensor

CHUNK = 256
"""Positions whose logits exist at a time: 256 × 49152 × 4 bytes = 50 MB for SmolLM2, twice."""


def token_logprobs(hidden_ND: Tensor, head_VD: Tensor, tokens_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-softmax of fp32 logits / temperature at `tokens_N`, and the entropy of each distribution, in nats.

    The head is frozen, so all that the backward pass needs is ∂logprob/∂hidden, one vector a position, which is
    computed while the logits are at hand. Gradients flow to `hidden_ND` through the logprobs; the entropy carries none.

    Returns:
        (logprobs_N, entropy_N), float32.
    """
    return _TokenLogprobs.apply(hidden_ND, head_VD, tokens_N, temperature)  # type: ignore[no-any-return, no-untyped-call]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, tokens_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        head_DV = head_VD.float().T
        positions, vocabulary = len(tokens_N), len(head_VD)
        logprobs_N = hidden_ND.new_empty(positions, dtype=torch.float32)
        entropy_N = torch.empty_like(logprobs_N)
        jacobian_ND = torch.empty_like(hidden_ND) if ctx.needs_input_grad[0] else None
        # Two buffers for all chunks: on CPU, fresh pages cost as much as the arithmetic on them.
        buffers = hidden_ND.new_empty(2, min(CHUNK, positions), vocabulary, dtype=torch.float32)
        for start in range(0, positions, CHUNK):
            part = slice(start, start + CHUNK)
            tokens_C1 = tokens_N[part, None]
            logprobs_CV, probs_CV = buffers[:, : len(tokens_C1)]
            torch.mm(hidden_ND[part].float(), head_DV, out=logprobs_CV).div_(temperature)
            torch.log_softmax(logprobs_CV, -1, out=logprobs_CV)
            torch.exp(logprobs_CV, out=probs_CV)
            logprobs_N[part] = logprobs_CV.gather(-1, tokens_C1).squeeze(-1)
            entropy_N[part] = -torch.bmm(probs_CV[:, None], logprobs_CV[:, :, None]).flatten()
            if jacobian_ND is not None:
                probs_CV.scatter_add_(-1, tokens_C1, probs_CV.new_full(tokens_C1.shape, -1.0))
                jacobian_ND[part] = (probs_CV.to(head_VD.dtype) @ head_VD).div_(-temperature)
        ctx.jacobian_ND = jacobian_ND
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.jacobian_ND * grad_N[:, None].to(ctx.jacobian_ND.dtype), None, None, None
