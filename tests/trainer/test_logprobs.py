"""Logprobs by tiles of the vocabulary with a hand-written gradient, against log_softmax and autograd in float64."""

from typing import Any

import pytest
import torch

from tests.trainer.gradients import gradient
from trainer import logprobs
from trainer.logprobs import token_logprobs


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_agrees_with_log_softmax_and_its_gradient(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    monkeypatch.setattr(logprobs, "TILE", 7)  # several tiles, the last one short
    torch.manual_seed(0)
    hidden, head = torch.randn(10, 16), torch.randn(50, 16)
    tokens, upstream = torch.randint(50, (10,)), torch.randn(10)

    exact = hidden.double().requires_grad_()
    expected = torch.log_softmax(exact @ head.double().T / temperature, -1)
    chosen = expected.gather(-1, tokens[:, None]).squeeze(-1)
    (chosen * upstream).sum().backward()

    hidden.requires_grad_()
    found, entropy = token_logprobs(hidden, head, tokens, temperature)
    (found * upstream).sum().backward()

    torch.testing.assert_close(found.double(), chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), -(expected.exp() * expected).sum(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(hidden).double(), gradient(exact), rtol=1e-4, atol=1e-5)
    assert not entropy.requires_grad


def test_bf16_inputs_give_fp32_logprobs_of_the_unrounded_logits() -> None:
    torch.manual_seed(0)
    hidden, head = (torch.randn(8, 64) * 4).bfloat16(), torch.randn(100, 64).bfloat16()
    tokens = torch.randint(100, (8,))
    found, _ = token_logprobs(hidden, head, tokens, 1.0)
    exact = torch.log_softmax(hidden.double() @ head.double().T, -1).gather(-1, tokens[:, None]).squeeze(-1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


def test_far_apart_logits_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TILE", 2)
    logits = torch.tensor([[-300.0, 0.0, 250.0, 249.0, -1000.0], [5.0, -90.0, 5.0, 5.0, 5.0]])
    tokens = torch.tensor([0, 1])
    found, entropy = token_logprobs(logits, torch.eye(5), tokens, 1.0)
    exact = torch.log_softmax(logits.double(), -1)
    torch.testing.assert_close(found.double(), exact.gather(-1, tokens[:, None]).squeeze(-1), rtol=1e-6, atol=0)
    torch.testing.assert_close(entropy.double(), -(exact.exp() * exact).sum(-1), rtol=1e-5, atol=0)


def test_bf16_gradient_is_right_to_rounding_and_leaves_the_precision_of_others_alone() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 64).bfloat16().requires_grad_(), torch.randn(100, 64).bfloat16()
    tokens = torch.randint(100, (6,))
    library: Any = torch.backends.mkldnn
    before = library.matmul.fp32_precision
    token_logprobs(hidden, head, tokens, 0.7)[0].sum().backward()
    assert library.matmul.fp32_precision == before
    exact = hidden.detach().double().requires_grad_()
    expected = torch.log_softmax(exact @ head.double().T / 0.7, -1).gather(-1, tokens[:, None])
    expected.sum().backward()
    assert (gradient(hidden).double() - gradient(exact)).norm() < 0.01 * gradient(exact).norm()
