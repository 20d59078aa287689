"""The supervised term: what users wrote, or liked, becomes likelier (see Ouyang et al. 2022, section 3.5)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.backbone import Backbone
from trainer.tokens import Sample


def add_gradient(backbone: Backbone, samples: Sequence[Sample], temperature: float, coefficient: float) -> list[Tensor]:
    """Add the adapters' gradient of coefficient · (mean negative log likelihood of the samples' response tokens).

    At the rollouts' temperature, so that what grows is the probability with which the policy, as it is served, says it.

    Returns the tokens' negative log likelihoods in nats, a tensor a pass.
    """
    tokens = sum(len(sample.response_ids) for sample in samples)
    parts = []
    for part in backbone.micro_batches(samples):
        logprobs_bt, _, mask_bt = backbone.policy_logprobs([samples[i] for i in part], temperature)
        nll_N = -logprobs_bt[mask_bt]
        (coefficient * nll_N.sum() / tokens).backward()  # type: ignore[no-untyped-call]
        parts.append(nll_N.detach())
    return parts


def dealt(samples: Sequence[Sample], hands: int) -> list[Sequence[Sample]]:
    """The samples dealt out to `hands` optimiser steps; with fewer samples than steps, to as many as there are."""
    return [samples[hand::hands] for hand in range(hands)]


def mean_nll(parts: Sequence[Tensor]) -> float | None:
    """Nats a token; None of nothing."""
    return torch.cat(list(parts)).mean().item() if parts else None
