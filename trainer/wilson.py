"""How sure a share is that was seen in a few trials."""

import math
from statistics import NormalDist


def wilson_bounds(rate: float, count: int, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper bound, each at `confidence`, of a share seen as `rate` in `count` trials.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    z = NormalDist().inv_cdf(confidence)
    shrink = 1 + z * z / count
    centre = (rate + z * z / (2 * count)) / shrink
    reach = z / shrink * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return centre - reach, centre + reach
