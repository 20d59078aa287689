"""Draws tokens: temperature, then top-k, then top-p, then one uniform number a row through the inverse CDF."""

from collections.abc import Sequence

import torch
from torch import Tensor

from server.engines.base import Sampling


def processed_logprobs(logits_BV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Log-probabilities [B, V] float32 of the distribution each row is drawn from; excluded tokens have -inf.

    A greedy row (temperature 0) keeps temperature 1 and the whole vocabulary: its token is the argmax, and its
    logprob says how likely the policy itself finds it (as vLLM's `processed_logprobs` has it).
    """
    device = logits_BV.device
    temperature_B1 = torch.tensor([[s.temperature or 1.0] for s in samplings], device=device)
    logits_BV = logits_BV.float() / temperature_B1
    for row, sampling in enumerate(samplings):
        if sampling.temperature > 0 and (sampling.top_k or sampling.top_p < 1):
            logits_BV[row] = _truncate(logits_BV[row], sampling.top_k, sampling.top_p)
    return logits_BV.log_softmax(dim=-1)


def draw(logprobs_BV: Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """Token ids [B]: the argmax where greedy, else the inverse CDF at the row's uniform number in [0, 1)."""
    cdf_BV = logprobs_BV.double().exp().cumsum(dim=-1)
    uniform_B1 = torch.tensor(uniforms, dtype=torch.float64, device=cdf_BV.device)[:, None]
    # `right`: the first token whose CDF exceeds the number, so a token of probability zero is never drawn.
    drawn_B = torch.searchsorted(cdf_BV, uniform_B1 * cdf_BV[:, -1:], right=True)[:, 0]
    greedy_B = torch.tensor([s.temperature == 0 for s in samplings], device=cdf_BV.device)
    return torch.where(greedy_B, logprobs_BV.argmax(dim=-1), drawn_B)


def _truncate(logits_V: Tensor, top_k: int, top_p: float) -> Tensor:
    sorted_V, order_V = logits_V.sort(descending=True)
    if top_k:
        sorted_V[top_k:] = -torch.inf
    # At 1 there is nothing to cut, but a rounded sum can reach 1 before the last token.
    if top_p < 1:
        probability_V = sorted_V.softmax(dim=-1)
        # Kept: tokens before the mass reaches top_p, and the one that reaches it (Holtzman et al. 2020).
        before_V = probability_V.cumsum(dim=-1) - probability_V
        sorted_V[before_V >= top_p] = -torch.inf
    return torch.empty_like(logits_V).scatter_(0, order_V, sorted_V)
