"""Which tokens of a response earned its reward.

A score at the end tells all tokens the same. The reward model is asked about every prefix, too, which costs little: its
features are means over states that are computed anyway. A token then earns what it adds: potential-based shaping (Ng,
Harada and Russell 1999, "Policy invariance under reward transformations"; for language models, Chan et al. 2024,
arXiv:2402.00782). The tokens' rewards sum to the score, so the best policy stays the best.
"""

from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from torch import Tensor

from trainer.backbone import Backbone, FrozenPass
from trainer.reward.features import AnswerPool
from trainer.tokens import Sample


class _PrefixRewards:
    """A `Pool`: the rewards [B, T] of every response's prefixes; what stands past a response's end means nothing."""

    def __init__(self, pool: AnswerPool, reward: Callable[[Tensor], Tensor]) -> None:
        self._pool = pool
        self._reward = reward

    def layers(self, depth: int) -> tuple[int, ...]:
        return self._pool.layers(depth)

    def __call__(self, states_BTD: tuple[Tensor, ...], tokens_BT: Tensor, response_mask_BT: Tensor) -> Tensor:
        # Row by row: all rows' features at once would be B·T·F.
        return torch.stack(
            [
                self._reward(self._pool.prefixes(states_TD, tokens_T))
                for states_TD, tokens_T in zip(zip(*states_BTD, strict=True), tokens_BT, strict=True)
            ]
        )


def of_prefixes(
    backbone: Backbone,
    samples: Sequence[Sample],
    pool: AnswerPool,
    reward: Callable[[Tensor], Tensor],
    *,
    temperature: float,
) -> tuple[list[FrozenPass], list[Tensor]]:
    """The trunk's passes over `samples`, and rewards_T of each response's prefixes; the last is the response's own.

    Args:
        reward: of features [B, F], as `pool` makes them.
    """
    frozen = backbone.frozen(samples, temperature=temperature, pool=_PrefixRewards(pool, reward))
    rewards = [
        passed.pooled[: len(sample.response_ids)]
        for sample, passed in zip(samples, frozen, strict=True)
        if passed.pooled is not None
    ]
    return frozen, rewards


def potentials(prefix_rewards: Sequence[Tensor]) -> list[Tensor]:
    """Φ after each token of every response, from the rewards_T of its prefixes.

    Φ_t = min(1, t / t̄) · reward_t, with t̄ the responses' mean length: a few words do not say yet how an answer will be.
    """
    typical = fmean(len(reward_T) for reward_T in prefix_rewards)
    return [
        reward_T * (torch.arange(1, len(reward_T) + 1, device=reward_T.device) / typical).clamp(max=1)
        for reward_T in prefix_rewards
    ]
