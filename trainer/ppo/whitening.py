"""Advantages brought to mean 0 and deviation 1 over the tokens that exist."""

from torch import Tensor


def whiten(values_BT: Tensor, mask_BT: Tensor, epsilon: float = 1e-8) -> Tensor:
    """(x − mean) / √(variance + ε) with moments over the mask alone; 0 outside it."""
    count = mask_BT.sum()
    mean = (values_BT * mask_BT).sum() / count
    centred_BT = (values_BT - mean) * mask_BT
    variance = centred_BT.square().sum() / count
    return centred_BT * (variance + epsilon).rsqrt()
