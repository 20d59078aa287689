"""How much each judgement counts, so that no rater shouts."""

from collections import Counter
from collections.abc import Sequence
from statistics import median


def rater_weights(raters: Sequence[str], *, floor: int, ratio: float) -> list[float]:
    """A weight in (0, 1] for every judgement, given who made it.

    A rater's judgements together weigh at most max(floor, ratio · m), with m the median number of judgements a rater
    made: whoever judges more than that counts no more for it.
    """
    counts = Counter(raters)
    cap = max(float(floor), ratio * median(counts.values())) if counts else 0.0
    return [min(1.0, cap / counts[rater]) for rater in raters]
