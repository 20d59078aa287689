"""Losses a token; the caller averages them over tokens (Schulman et al. 2017, arXiv:1707.06347)."""

import torch
from torch import Tensor


def policy_loss(
    logprobs: Tensor,
    proximal_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    clip: float,
    dual_clip: float | None,
) -> tuple[Tensor, Tensor]:
    """w · max(−A ρ, −A clip(ρ, 1 ± ε)) with ρ = π / π_proximal.

    With dual clip (Ye et al. 2020, arXiv:1912.09729, equation 4), a token of negative advantage loses at most −c A,
    however far ρ has run off.

    Args:
        weights: of decoupled PPO, from `importance_weights`; 1 for tokens of the current policy.

    Returns:
        (losses, clipped): clipped is true where the clip has taken the gradient away.
    """
    ratio = (logprobs - proximal_logprobs).exp()
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip, 1 + clip)
    losses = torch.maximum(free, bounded)
    clipped = bounded > free
    if dual_clip is not None:
        limit = -dual_clip * advantages
        beyond = (advantages < 0) & (losses > limit)
        losses = torch.where(beyond, limit, losses)
        clipped = clipped | beyond
    return weights * losses, clipped


def entropy_loss(logprobs: Tensor, entropy: Tensor, weights: Tensor) -> Tensor:
    """w · (log π + H) · log π with the first two factors held fixed: in expectation its gradient is that of −H.

    ∇H = −Σ_v π(v) (log π(v) + H) ∇ log π(v), since Σ_v π(v) ∇ log π(v) = 0: an average over tokens that π draws, so
    the drawn token stands for all of them, and its log-probability is all that needs a gradient. H is a baseline.

    Args:
        entropy: of the distribution each token was drawn from.
        weights: π / π_behaviour a token, truncated.
    """
    return weights * (logprobs + entropy).detach() * logprobs


def importance_weights(proximal_logprobs: Tensor, behaviour_logprobs: Tensor, cap: float) -> Tensor:
    """min(π_proximal / π_behaviour, cap) a token: decoupled PPO (Hilton et al. 2022, arXiv:2110.00641), truncated."""
    return (proximal_logprobs - behaviour_logprobs).exp().clamp(max=cap)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """½ max((V − R)², (V_old + clip(V − V_old, ±c) − R)²): no gain from running further than c at once."""
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (near - returns).square())
