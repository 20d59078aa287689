"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equations 11 to 16)."""

import torch
from torch import Tensor


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of right-padded responses.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, both 0 past the last token (the episode ends there, also
    where it was cut at the limit); the return is A_t + V_t.

    Args:
        mask_BT: true at response tokens, a prefix of every row.

    Returns:
        (advantages_BT, returns_BT), 0 past the end.
    """
    rewards_BT, values_BT = rewards_BT * mask_BT, values_BT * mask_BT
    advantages_BT = torch.zeros_like(rewards_BT)
    next_value_B = next_advantage_B = torch.zeros_like(rewards_BT[:, 0])
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + discount * next_value_B - values_BT[:, t]
        next_advantage_B = delta_B + discount * gae_lambda * next_advantage_B
        advantages_BT[:, t] = next_advantage_B
        next_value_B = values_BT[:, t]
    return advantages_BT, advantages_BT + values_BT
