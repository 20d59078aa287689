"""The reward of each token: leaving the reference costs, and the score comes at the end, or by and by.

r_t = −β (log π(y_t) − log π_ref(y_t)) + [t is the last token] · score (Ziegler et al. 2019, arXiv:1909.08593). The
KL is in the reward (its k1 estimate) and nowhere in the loss: in both, it would count twice. With potentials Φ the
score is spread: token t gets Φ_t − Φ_{t−1}, where Φ is 0 before the first token and the score after the last.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.tokens import Rollout


def token_rewards(
    scores_B: Tensor,
    logprobs_BT: Tensor,
    reference_logprobs_BT: Tensor,
    mask_BT: Tensor,
    kl_coefficient: float,
    potentials_BT: Tensor | None = None,
) -> Tensor:
    """Rewards_BT, 0 past the end. Without potentials, `scores_B` is added at each row's last response token."""
    known_BT = torch.zeros_like(logprobs_BT) if potentials_BT is None else potentials_BT.to(logprobs_BT.dtype)
    last_B1 = mask_BT.sum(-1, keepdim=True) - 1
    known_BT = known_BT.scatter(-1, last_B1, scores_B[:, None].to(known_BT.dtype))
    gained_BT = known_BT.diff(dim=-1, prepend=known_BT.new_zeros(len(known_BT), 1))
    return (gained_BT - kl_coefficient * (logprobs_BT - reference_logprobs_BT)) * mask_BT


def penalise_missing_eos(scores: Sequence[float], rollouts: Sequence[Rollout], penalty: float) -> Tensor:
    """Scores_B less `penalty` where the response was cut at the token limit."""
    return torch.tensor(
        [
            score - (penalty if rollout.finish_reason == "length" else 0.0)
            for score, rollout in zip(scores, rollouts, strict=True)
        ]
    )
