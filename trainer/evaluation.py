"""How a policy answers the gate's prompts: all that does not change as the reward model learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import torch
from torch import Tensor

from trainer.backbone import Backbone
from trainer.reward.features import pool
from trainer.tokens import Sample


@dataclass(frozen=True, slots=True)
class Evaluation:
    samples: tuple[Sample, ...]
    features_PF: Tensor
    kl_nats: float
    """Mean over responses of Σ_t log π/π_ref: the Monte Carlo estimate of KL(π‖π_ref) a response."""
    entropy_nats: float
    """Mean over tokens."""

    @property
    def mean_length(self) -> float:
        return fmean(len(sample.response_ids) for sample in self.samples)

    @property
    def distinct_2(self) -> float:
        return fmean(distinct_bigrams(sample.response_ids) for sample in self.samples)


def evaluate(
    backbone: Backbone, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int, temperature: float, seed: int
) -> Evaluation:
    """Let the backbone's present policy answer `prompts` (token ids), once each."""
    samples = backbone.generate(list(prompts), max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    frozen = backbone.frozen(samples, temperature=temperature, pool=pool)
    log_ratios, entropies = [], []
    with torch.no_grad():
        for batch in backbone.micro_batches(samples):
            passes = [frozen[index] for index in batch]
            logprobs_BT, entropy_BT, mask_BT = backbone.policy_logprobs(
                [samples[index] for index in batch], temperature, passes
            )
            for logprobs_T, mask_T, passed in zip(logprobs_BT, mask_BT, passes, strict=True):
                log_ratios.append((logprobs_T[mask_T] - passed.reference_logprobs_T).sum().item())
            entropies.append(entropy_BT[mask_BT])
    return Evaluation(
        tuple(samples),
        torch.stack([passed.features_F for passed in frozen if passed.features_F is not None]),
        fmean(log_ratios),
        torch.cat(entropies).mean().item(),
    )


def distinct_bigrams(tokens: Sequence[int]) -> float:
    """Distinct bigrams over bigrams, in (0, 1]; 1 where there are none (Li et al. 2016, distinct-2)."""
    bigrams = list(pairwise(tokens))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0
