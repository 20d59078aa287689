"""Figures gathered over the optimiser steps of one update."""

from typing import TypedDict

import torch
from torch import Tensor

from trainer.ppo.imitation import mean_nll


class StepSummary(TypedDict):
    """The fields of PpoFigures that come from the steps."""

    entropy: float
    policy_loss: float
    clip_fraction: float
    ratio_mean: float
    ratio_max: float
    approximate_kl: float
    grad_norm: float
    sampler_gap: float
    demonstration_nll: float | None
    favourite_nll: float | None


class StepFigures:
    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._log_ratios: list[Tensor] = []
        self._entropies: list[Tensor] = []
        self._clipped: list[Tensor] = []
        self._sampler_gaps: list[Tensor] = []
        self._grad_norms: list[float] = []
        self.demonstrations: list[Tensor] = []
        self.favourites: list[Tensor] = []
        """Negative log likelihoods of what is imitated, a tensor a pass."""

    def observe(
        self,
        losses_N: Tensor,
        logprobs_N: Tensor,
        proximal_N: Tensor,
        behaviour_N: Tensor,
        entropy_N: Tensor,
        clipped_N: Tensor,
    ) -> None:
        """Take in the tokens of one pass."""
        logprobs_N = logprobs_N.detach()
        self._losses.append(losses_N.detach())
        self._log_ratios.append(logprobs_N - proximal_N)
        self._entropies.append(entropy_N)
        self._clipped.append(clipped_N.float())
        if not self._grad_norms:
            self._sampler_gaps.append((logprobs_N - behaviour_N).abs())

    def end_step(self, grad_norm: Tensor) -> None:
        self._grad_norms.append(grad_norm.item())

    def summary(self) -> StepSummary:
        log_ratios_N = torch.cat(self._log_ratios)
        ratios_N = log_ratios_N.exp()
        return StepSummary(
            entropy=_mean(self._entropies),
            policy_loss=_mean(self._losses),
            clip_fraction=_mean(self._clipped),
            ratio_mean=ratios_N.mean().item(),
            ratio_max=ratios_N.max().item(),
            approximate_kl=(ratios_N - 1 - log_ratios_N).mean().item(),
            grad_norm=sum(self._grad_norms) / len(self._grad_norms),
            sampler_gap=_mean(self._sampler_gaps),
            demonstration_nll=mean_nll(self.demonstrations),
            favourite_nll=mean_nll(self.favourites),
        )


def _mean(parts: list[Tensor]) -> float:
    return torch.cat(parts).mean().item()
