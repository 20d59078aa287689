"""An ensemble of linear heads on standardised features, each a sample of what the judgements leave possible.

Member m minimises  Σ_j ω_mj · w_j · NLL_j(v_m) + ½‖v_m − a_m‖²  with its own anchor a_m ~ N(0, 1) and its own
bootstrap weights ω_mj ~ Exp(1): anchored ensembling (Pearce et al. 2018, arXiv 1810.05546) with the Bayesian bootstrap
(Rubin 1981). Where judgements decide, members agree; along features that no judgement has spoken of they keep their
anchors and disagree, more the further an answer is from what was judged. The problem is convex: a warm start only
saves time.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from settings.reward import RewardSettings
from trainer.reward.examples import RewardExample
from trainer.reward.features import Standardiser, prior_deviation
from trainer.reward.problem import Problem, choice_nll, lay_out
from trainer.reward.raters import rater_weights

_INTERCEPT_SCALE = 2.0
"""Prior deviation in nats: raters at large may be pleased with 1 answer in 8, or with 7."""


@dataclass(frozen=True, slots=True)
class Heads:
    """M members' scores: weight_MF · standardised features, in nats."""

    standardise: Standardiser
    weight_MF: Tensor
    intercept_M: Tensor
    """What pleases every rater alike: P(thumb up) = σ(score + intercept + the rater's bias)."""
    bias_RM: Tensor
    raters: tuple[str, ...]

    def scores(self, features_BF: Tensor) -> Tensor:
        """[B, M]."""
        return self.standardise(features_BF) @ self.weight_MF.T

    def biases(self, raters: Sequence[str]) -> Tensor:
        """[R, M]; 0 of raters not heard yet."""
        known = dict(zip(self.raters, self.bias_RM, strict=True))
        unknown_M = torch.zeros_like(self.intercept_M)
        return torch.stack([known.get(rater, unknown_M) for rater in raters])

    def state_dict(self) -> dict[str, Any]:
        return {
            "mean_F": self.standardise.mean_F,
            "std_F": self.standardise.std_F,
            "length_range_2": self.standardise.length_range_2,
            "weight_MF": self.weight_MF,
            "intercept_M": self.intercept_M,
            "bias_RM": self.bias_RM,
            "raters": self.raters,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "Heads":
        standardiser = ("mean_F", "std_F", "length_range_2")
        rest = {name: value for name, value in state.items() if name not in standardiser}
        return cls(standardise=Standardiser(*(state[name] for name in standardiser)), **rest)


def fit(
    examples: Sequence[RewardExample],
    settings: RewardSettings,
    *,
    seed: int,
    start: Heads | None = None,
    reliability: Mapping[str, float] | None = None,
    shares: Sequence[float] | None = None,
) -> Heads:
    """Heads that explain the examples, started from `start`. The same arguments give the same heads.

    `reliability` scales the weight of a rater's judgements; of a rater it does not name, not at all. `shares` scales
    each judgement's.
    """
    problem = lay_out(examples)
    standardise = Standardiser.of(problem.features_NF)
    deviation_F = prior_deviation(problem.features_NF.shape[1], settings)
    z_NF = standardise(problem.features_NF) * deviation_F
    anchor_MF = _anchors(settings.members, len(deviation_F), seed)
    weight_CM = _weights(examples, problem, settings, seed, reliability or {}, shares or [1.0] * len(examples))
    if start is None:
        v_MF, intercept_M = anchor_MF.clone(), torch.zeros(settings.members)
        bias_RM = torch.zeros(len(problem.raters), settings.members)
    else:
        # Where nothing may be said, by scales that were others when `start` was fitted, no weight is taken over: it
        # would be that over nothing, from where there is no way back.
        v_MF = torch.where(deviation_F > 0, start.weight_MF / deviation_F, anchor_MF)
        intercept_M, bias_RM = start.intercept_M.clone(), start.biases(problem.raters)

    def objective() -> Tensor:
        nll_CM = choice_nll(z_NF @ v_MF.T, intercept_M + bias_RM, problem)
        prior = (v_MF - anchor_MF).square().sum()
        prior = prior + (intercept_M / _INTERCEPT_SCALE).square().sum()
        prior = prior + (bias_RM / settings.rater_bias_scale).square().sum()
        return (weight_CM * nll_CM).sum() + 0.5 * prior

    _minimise(objective, [v_MF, intercept_M, bias_RM], settings.max_iterations)
    return Heads(standardise, v_MF.detach() * deviation_F, intercept_M.detach(), bias_RM.detach(), problem.raters)


def _minimise(objective: Callable[[], Tensor], parameters: list[Tensor], iterations: int) -> None:
    """Move the parameters to the objective's minimum, or as near as L-BFGS comes."""
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.LBFGS(parameters, max_iter=iterations, tolerance_change=1e-6, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        optimiser.zero_grad()
        loss = objective()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(evaluate)  # type: ignore[no-untyped-call]


def _anchors(members: int, features: int, seed: int) -> Tensor:
    """N(0, 1) each, summing to zero over the members so that an unlearned ensemble is indifferent."""
    generator = torch.Generator().manual_seed(seed)
    anchor_MF = torch.randn(members, features, generator=generator)
    return (anchor_MF - anchor_MF.mean(dim=0)) * math.sqrt(members / (members - 1))


def _weights(
    examples: Sequence[RewardExample],
    problem: Problem,
    settings: RewardSettings,
    seed: int,
    reliability: Mapping[str, float],
    shares: Sequence[float],
) -> Tensor:
    """Weight of every choice for every member, [C, M]."""
    of_rater = rater_weights(examples, floor=settings.rater_floor, ratio=settings.rater_ratio, shares=shares)
    weight_J = torch.tensor(
        [
            settings.weight_of(example.kind) * weight * reliability.get(example.rater, 1.0) * share
            for example, weight, share in zip(examples, of_rater, shares, strict=True)
        ]
    )
    bootstrap_JM = torch.stack([_bootstrap(example.feedback_id, settings.members, seed) for example in examples])
    weight_JM = weight_J.unsqueeze(1) * bootstrap_JM
    weight_CM: Tensor = problem.weight_C.unsqueeze(1) * weight_JM[problem.judgement_C]
    return weight_CM


def _bootstrap(feedback_id: str, members: int, seed: int) -> Tensor:
    """Exp(1) for each member: a property of the judgement, so that it stays the same in every update."""
    rng = random.Random(f"{seed}/{feedback_id}")
    return torch.tensor([rng.expovariate(1.0) for _ in range(members)])
