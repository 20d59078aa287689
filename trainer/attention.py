"""Attention that is fast on CPU where PyTorch's is not: in its backward pass, and in decoding.

PyTorch's fused CPU kernel takes five times its forward pass for its backward pass in bf16, more than plain matrix
products do. So the forward pass stays the fused one, and the backward pass recomputes the probabilities and applies
the formulas of Dao et al. 2022 (arXiv:2205.14135, appendix B.2). Nothing of size S² outlives a layer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "foldback_sdpa"

LARGEST_SQUARE = 2**26
"""Elements of B·H·S² up to which the backward pass may hold them, one layer at a time (a few bytes each)."""


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface: [B, H, S, K] query, [B, G, S, K] key and value → [B, S, H, K]."""
    if query.device.type == "cpu" and query.shape[2] == 1 and attention_mask is not None:
        return _decode(query, key, value, attention_mask, kwargs["scaling"]), None
    square = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    plain = query.device.type == "cpu" and query.requires_grad and query.shape[2] == key.shape[2]
    if not plain or square > LARGEST_SQUARE:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    repeats = query.shape[1] // key.shape[1]
    out = _CpuAttention.apply(  # type: ignore[no-untyped-call]
        query, repeat_kv(key, repeats), repeat_kv(value, repeats), attention_mask, kwargs["scaling"]
    )
    return out.transpose(1, 2).contiguous(), None


def _decode(query_BH1K: Tensor, key: Tensor, value: Tensor, mask_B11S: Tensor, scaling: float) -> Tensor:
    """One new token a row: the query heads that share a key head take the place of positions, and no key is copied."""
    batch, heads, _, width = query_BH1K.shape
    grouped = query_BH1K.view(batch, key.shape[1], -1, width)
    out = scaled_dot_product_attention(grouped, key, value, attn_mask=mask_B11S, scale=scaling)
    return out.reshape(batch, 1, heads, -1)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _CpuAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling)
        ctx.save_for_backward(query, key, value, out, mask)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, mask = ctx.saved_tensors
        scores_BHSS = (query @ key.transpose(-1, -2)).float().mul_(ctx.scaling)
        if mask is None:
            size = query.shape[2]
            mask = torch.ones(size, size, dtype=torch.bool, device=query.device).tril()
        if mask.dtype == torch.bool:
            scores_BHSS.masked_fill_(~mask, -torch.inf)
        else:
            scores_BHSS.add_(mask)
        probs_BHSS = torch.softmax(scores_BHSS, -1)
        low_probs_BHSS = probs_BHSS.to(grad.dtype)
        grad_value = low_probs_BHSS.transpose(-1, -2) @ grad
        grad_probs_BHSS = (grad @ value.transpose(-1, -2)).float()
        along_BHS1 = (grad.float() * out.float()).sum(-1, keepdim=True)
        grad_scores_BHSS = grad_probs_BHSS.sub_(along_BHS1).mul_(probs_BHSS).mul_(ctx.scaling).to(grad.dtype)
        return grad_scores_BHSS @ key, grad_scores_BHSS.transpose(-1, -2) @ query, grad_value, None, None
