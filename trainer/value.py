"""The critic: what return to expect from here on.

It reads the *frozen* trunk's final hidden state at the position that predicts each response token. The reference pass
computes these states anyway, so the critic costs no forward or backward pass of the trunk, its inputs stay the same
over all epochs and while the policy changes, and it cannot disturb the policy as a shared trainable trunk would. What
it gives up is features learned for the value alone.
"""

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """LayerNorm → Linear → tanh → Linear, whose last layer starts at zero: the first advantages are the returns.

    Args:
        dimension: D of the hidden states.
        seed: of the first layer.
    """

    def __init__(self, dimension: int, hidden: int = 256, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.norm = nn.LayerNorm(dimension, elementwise_affine=False)
            self.inner = nn.Linear(dimension, hidden)
            self.outer = nn.Linear(hidden, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden_D: Tensor) -> Tensor:
        """[…, D] of any dtype → […], float32."""
        inner = torch.tanh(self.inner(self.norm(hidden_D.float())))
        return self.outer(inner).squeeze(-1)  # type: ignore[no-any-return]
