"""Rollouts as tensors [B, T], responses right-padded with zeros."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainer.backbone import FrozenPass
from trainer.tokens import Rollout


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    rollouts: Sequence[Rollout]
    frozen: Sequence[FrozenPass]
    behaviour_logprobs_BT: Tensor
    reference_logprobs_BT: Tensor
    hidden_BTD: Tensor
    mask_BT: Tensor
    current_BT: Tensor
    """True where the current policy drew the token."""

    @classmethod
    def of(cls, rollouts: Sequence[Rollout], frozen: Sequence[FrozenPass], current: Collection[str]) -> "RolloutBatch":
        """`current`: the versions that are the current policy."""
        if not rollouts:
            raise ValueError("no rollouts; an update needs at least one")
        device = frozen[0].hidden_TD.device
        lengths = torch.tensor([len(rollout.sample.response_ids) for rollout in rollouts], device=device)
        drawn_now = [[version in current for version in rollout.policy_version] for rollout in rollouts]
        return cls(
            rollouts,
            frozen,
            _pad([torch.tensor(rollout.behaviour_logprobs) for rollout in rollouts]).to(device),
            _pad([each.reference_logprobs_T for each in frozen]),
            _pad([each.hidden_TD for each in frozen]),
            torch.arange(int(lengths.max()), device=device) < lengths[:, None],
            _pad([torch.tensor(row) for row in drawn_now]).to(device),
        )

    @property
    def temperature(self) -> float:
        """Of all rollouts. Raises ValueError where they differ: their logprobs would not compare."""
        found = {rollout.temperature for rollout in self.rollouts}
        if len(found) != 1:
            raise ValueError(f"rollouts of temperatures {sorted(found)}; an update needs one temperature")
        return found.pop()

    @property
    def groups(self) -> list[int]:
        return [rollout.group for rollout in self.rollouts]


def _pad(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)
