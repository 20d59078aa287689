"""An ensemble of linear heads on standardised features, each a sample of what the judgements leave possible.

Member m minimises  Σ_j ω_mj · w_j · NLL_j(v_m) + ½‖v_m − a_m‖²  with its own anchor a_m ~ N(0, 1) and its own
bootstrap weights ω_mj ~ Exp(1): anchored ensembling (Pearce et al. 2018, arXiv 1810.05546) with the Bayesian bootstrap
(Rubin 1981). Where judgements decide, members agree; along features that no judgement has spoken of they keep their
anchors and disagree, more the further an answer is from what was judged. The problem is convex: a warm start only
saves time.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from settings.reward import RewardSettings
from trainer.reward.examples import RewardExample
from trainer.reward.features import prior_deviation
from trainer.reward.problem import Problem, choice_nll, lay_out
from trainer.reward.raters import rater_weights


@dataclass(frozen=True, slots=True)
class Heads:
    """M members' scores: scale_F · (features − mean_F) · weight_MF, in nats."""

    mean_F: Tensor
    scale_F: Tensor
    weight_MF: Tensor
    intercept_M: Tensor
    """What pleases every rater alike: P(thumb up) = σ(score + intercept + the rater's bias)."""
    bias_RM: Tensor
    raters: tuple[str, ...]

    def scores(self, features_BF: Tensor) -> Tensor:
        """[B, M]."""
        return ((features_BF - self.mean_F) * self.scale_F) @ self.weight_MF.T

    def pleased(self, raters: Sequence[str]) -> Tensor:
        """Intercept plus bias of each rater, [R, M]; of one never heard the bias is 0."""
        known = {rater: index for index, rater in enumerate(self.raters)}
        bias_RM = torch.zeros(len(raters), len(self.intercept_M))
        for row, rater in enumerate(raters):
            if rater in known:
                bias_RM[row] = self.bias_RM[known[rater]]
        return bias_RM + self.intercept_M

    def state_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def fit(examples: Sequence[RewardExample], settings: RewardSettings, *, seed: int, start: Heads | None = None) -> Heads:
    """Heads that explain the examples, started from `start`. The same arguments give the same heads."""
    problem = lay_out(examples)
    features_NF = problem.features_NF
    mean_F, scale_F = _standardise(features_NF, settings.prior_scale)
    x_NF = (features_NF - mean_F) * scale_F
    anchor_MF = _anchors(settings.members, features_NF.shape[1], seed)
    weight_CM = _weights(examples, problem, settings, seed)
    pleased_RM = start.pleased(problem.raters) if start else torch.zeros(len(problem.raters), settings.members)
    intercept_M = start.intercept_M.clone() if start else torch.zeros(settings.members)
    bias_RM = pleased_RM - intercept_M
    weight_MF = _rescale(start, scale_F) if start else anchor_MF.clone()

    parameters = [weight_MF, intercept_M, bias_RM]
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=settings.max_iterations, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        nll_CM = choice_nll(x_NF @ weight_MF.T, intercept_M + bias_RM, problem)
        prior = (weight_MF - anchor_MF).square().sum() + (intercept_M / settings.prior_scale).square().sum()
        prior = prior + (bias_RM / settings.rater_bias_scale).square().sum()
        loss = (weight_CM * nll_CM).sum() + 0.5 * prior
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(objective)  # type: ignore[no-untyped-call]
    weight_MF, intercept_M, bias_RM = (parameter.detach() for parameter in parameters)
    return Heads(mean_F, scale_F, weight_MF, intercept_M, bias_RM, problem.raters)


def _standardise(features_NF: Tensor, prior_scale: float) -> tuple[Tensor, Tensor]:
    """Mean and scale that give N(0, 1) weights a score of standard deviation `prior_scale`."""
    std_F, mean_F = torch.std_mean(features_NF, dim=0, correction=0)
    deviation_F = prior_scale * prior_deviation(features_NF.shape[1])
    return mean_F, torch.where(std_F > 1e-6, deviation_F / std_F.clamp_min(1e-6), 0.0)


def _rescale(heads: Heads, scale_F: Tensor) -> Tensor:
    """Weights of the same function of the features, up to a constant, for another scale; [M, F]."""
    return torch.where(scale_F > 0, heads.weight_MF * heads.scale_F / scale_F, 0.0)


def _anchors(members: int, features: int, seed: int) -> Tensor:
    """N(0, 1) each, summing to zero over the members so that an unlearned ensemble is indifferent."""
    generator = torch.Generator().manual_seed(seed)
    anchor_MF = torch.randn(members, features, generator=generator)
    return (anchor_MF - anchor_MF.mean(dim=0)) * math.sqrt(members / (members - 1))


def _weights(examples: Sequence[RewardExample], problem: Problem, settings: RewardSettings, seed: int) -> Tensor:
    """Weight of every choice for every member, [C, M]."""
    of_kind = {
        "thumbs": settings.thumbs_weight,
        "rating": settings.rating_weight,
        "ranking": 1.0,
        "demonstration": settings.demonstration_weight,
    }
    of_rater = rater_weights(
        [example.rater for example in examples], floor=settings.rater_floor, ratio=settings.rater_ratio
    )
    weight_J = torch.tensor([of_kind[e.kind] * weight for e, weight in zip(examples, of_rater, strict=True)])
    bootstrap_JM = torch.stack([_bootstrap(example.feedback_id, settings.members, seed) for example in examples])
    weight_JM = weight_J.unsqueeze(1) * bootstrap_JM
    weight_CM: Tensor = problem.weight_C.unsqueeze(1) * weight_JM[problem.judgement_C]
    return weight_CM


def _bootstrap(feedback_id: str, members: int, seed: int) -> Tensor:
    """Exp(1) for each member: a property of the judgement, so that it stays the same in every update."""
    rng = random.Random(f"{seed}/{feedback_id}")
    return torch.tensor([rng.expovariate(1.0) for _ in range(members)])
