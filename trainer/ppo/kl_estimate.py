"""How far the policy is from the reference, from rollouts that may be an older policy's."""

import torch
from torch import Tensor


def kl_estimate(
    logprobs_BT: Tensor, behaviour_logprobs_BT: Tensor, reference_logprobs_BT: Tensor, mask_BT: Tensor
) -> float:
    """KL(π‖π_ref) in nats a response: Σ_b w_b Σ_t log π/π_ref / Σ_b w_b with w_b = Π_t π/π_behaviour.

    Where π itself drew every token all weights are 1, and this is the plain mean (the k1 estimate, which has no bias).
    Otherwise the responses are what another policy says: that mean can even be negative, and only weighting each
    response by how much likelier it is today makes it a figure of today's policy (self-normalised importance sampling;
    Owen, Monte Carlo theory, methods and examples, section 9.2).
    """
    log_weight_B = ((logprobs_BT - behaviour_logprobs_BT) * mask_BT).sum(-1)
    log_ratio_B = ((logprobs_BT - reference_logprobs_BT) * mask_BT).sum(-1)
    return (torch.softmax(log_weight_B, 0) * log_ratio_B).sum().item()
