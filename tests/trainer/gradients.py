"""What autograd left behind."""

from torch import Tensor


def gradient(of: Tensor) -> Tensor:
    """Its gradient, of the same shape, which a backward pass must have made."""
    assert of.grad is not None, "no backward pass has reached it"
    return of.grad
