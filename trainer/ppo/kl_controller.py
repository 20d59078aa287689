"""β that keeps the policy near a chosen distance from the reference (Ziegler et al. 2019, section 2.2)."""

from dataclasses import dataclass

_ERROR_BOUND = 0.2


@dataclass(slots=True)
class KlController:
    """β ← β · (1 + e · n / horizon), with e = KL / target − 1 bounded to ±0.2, after n responses.

    Ziegler et al. begin near the target. Online learning begins at 0 nats, and a β that had shrunk all the way to the
    target would be too weak to hold the policy there: β has a least value.
    """

    coefficient: float
    """β: reward a nat."""
    target: float | None
    """Nats a response; None leaves β as it is."""
    horizon: float
    """Responses."""
    least: float = 0.0

    def update(self, kl: float, responses: int) -> None:
        """Take in the mean KL (nats a response) of a batch of `responses`."""
        if self.target is None:
            return
        error = min(max(kl / self.target - 1, -_ERROR_BOUND), _ERROR_BOUND)
        self.coefficient = max(self.least, self.coefficient * (1 + error * responses / self.horizon))
