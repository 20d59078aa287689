"""The value head."""

import torch

from trainer.value import ValueHead


def test_starts_at_zero_and_learns_a_linear_value() -> None:
    torch.manual_seed(0)
    head = ValueHead(32, 64, seed=1)
    hidden = torch.randn(4, 7, 32, dtype=torch.bfloat16)
    assert head(hidden).shape == (4, 7)
    assert (head(hidden) == 0).all()

    target = hidden.float()[..., 0] - 0.5 * hidden.float()[..., 3]
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (head(hidden) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * target.var()


def test_its_seed_is_its_own() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = ValueHead(8, 4, seed=3), ValueHead(8, 4, seed=3)
    assert torch.equal(first.inner.weight, second.inner.weight)
    assert torch.equal(torch.get_rng_state(), before)
