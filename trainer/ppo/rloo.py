"""REINFORCE leave-one-out (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740, section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rloo(rewards_BT: Tensor, mask_BT: Tensor, groups_B: Sequence[int]) -> Tensor:
    """Advantages_BT: a response's whole reward less the mean of the others' of its prompt, at each of its tokens.

    A response that is alone in its group has nothing to be compared with: its advantage is 0.
    """
    return_B = (rewards_BT * mask_BT).sum(-1)
    groups = torch.tensor(groups_B, device=rewards_BT.device)
    same_BB = (groups[:, None] == groups[None, :]).to(return_B.dtype)
    others_B = same_BB.sum(-1) - 1
    baseline_B = (same_BB @ return_B - return_B) / others_B.clamp(min=1)
    advantage_B = torch.where(others_B > 0, return_B - baseline_B, torch.zeros_like(return_B))
    return advantage_B[:, None] * mask_BT
