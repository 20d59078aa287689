"""Attention's hand-written backward pass against autograd through plain matrix products in float64."""

import pytest
import torch
from torch import nn

from tests.trainer.gradients import gradient
from trainer.attention import attention


@pytest.mark.parametrize("masked", ["causal", "bool", "float"])
def test_output_and_gradients_agree_with_autograd(masked: str) -> None:
    torch.manual_seed(0)
    batch, heads, key_heads, size, width = 2, 6, 2, 7, 8
    query = torch.randn(batch, heads, size, width, requires_grad=True)
    key, value = (torch.randn(batch, key_heads, size, width, requires_grad=True) for _ in range(2))
    upstream = torch.randn(batch, size, heads, width)
    sees = torch.ones(size, size, dtype=torch.bool).tril().expand(batch, 1, size, size).clone()
    if masked != "causal":
        sees[1, 0, 4:, 2:4] = False
    additive = torch.zeros(sees.shape).masked_fill(~sees, -torch.inf)
    mask = {"causal": None, "bool": sees, "float": additive}[masked]

    out, _ = attention(nn.Module(), query, key, value, mask, scaling=0.3)
    (out * upstream).sum().backward()

    exact = [t.detach().double().requires_grad_() for t in (query, key, value)]
    wide_key, wide_value = (t.repeat_interleave(heads // key_heads, 1) for t in exact[1:])
    probs = torch.softmax(0.3 * exact[0] @ wide_key.transpose(-1, -2) + additive.double(), -1)
    expected = (probs @ wide_value).transpose(1, 2)
    (expected * upstream.double()).sum().backward()

    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    for found, reference in zip((query, key, value), exact, strict=True):
        torch.testing.assert_close(gradient(found).double(), gradient(reference), rtol=1e-4, atol=1e-5)
