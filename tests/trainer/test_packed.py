"""Packed weights compute what the layers compute, and only for as long as they are asked to."""

import torch
from torch import nn

from trainer.packed import packed


def test_packed_layers_give_the_same_and_are_given_back() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(64, 96), nn.Linear(96, 32, bias=False)
    model = nn.Sequential(first, second).bfloat16()
    x = torch.randn(5, 2, 64).bfloat16()
    with torch.no_grad():
        exact = (x.double() @ first.weight.double().T + first.bias.double()) @ second.weight.double().T
        for rows in (1, 10):
            with packed(model, rows):
                found = model(x)
            assert found.shape == (5, 2, 32)
            assert (found.double() - exact).norm() < 0.01 * exact.norm()
        second.weight.zero_()
        assert (model(x) == 0).all(), "reads its own weights again"


def test_wide_layers_stay_as_they_are() -> None:
    layer = nn.Linear(8, 8)
    with packed(layer, 4):
        assert "forward" not in vars(layer)
