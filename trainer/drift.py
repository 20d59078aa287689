"""A policy that has drifted too far from the base model is led back, by as much as it must.

What the adapters add is scaled down: W + κ s B A with κ < 1. On the straight line to the base the reward falls about as
it rose on the way out (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903; WARP, Ramé et al. 2024, arXiv:2406.16768). So
what was learned since the last version is kept as far as the bound allows, where a refusal would lose it.
"""

import math
from collections.abc import Callable, Container
from typing import TypeVar

from settings.gate import GateSettings
from trainer.backbone import Backbone
from trainer.evaluation import Evaluation, distinct_beside

Look = TypeVar("Look")
Place = tuple[float, float]
"""A share of the way, and the drift that was seen there."""

_MARGIN = 0.96
"""A little further back than the estimate says, so that one step is mostly enough."""
_STEPS = 6
_LEAST_POWER = 0.5
"""The drift is estimated from a few answers: between two places near each other it may seem not to grow at all."""
_TOO_FAR, _AIM = 0.5, 0.8
"""Of the bound: led back to less than the one, a candidate is given some of the way again, to about the other."""


def lead_back(
    backbone: Backbone, look: Callable[[], Look], drift: Callable[[Look], float], *, most: float
) -> tuple[Look, float]:
    """Scale the adapters until they have drifted by no more than `most`, if they have, and by not much less.

    Args:
        look: at the present policy, which may be costly.
        drift: of what was seen: a measure that grows about as the square of the way from the base, as KL does, and the
            logarithm of a perplexity ratio. So κ² = most / drift at first; then a power law through the last two places
            says how far, or through the nearest ones on either side of the bound.

    Returns:
        (what was seen last, share of the way that was kept: 1 where nothing had to be done). The drift is over `most`
        only where no share would do: weights that are not finite.
    """
    kept, seen = 1.0, look()

    def go(share: float) -> tuple[float, Look]:
        backbone.scale_adapter(share / kept)
        return share, look()

    further = beyond = within = None
    for _ in range(_STEPS):
        far = drift(seen)
        if not math.isfinite(far) or (far <= most and (beyond is None or far >= _TOO_FAR * most)):
            break
        if far > most:
            further, beyond = beyond, (kept, far)
        else:
            within = kept, far
        if within and beyond:
            kept, seen = go(_between(within, beyond, _AIM * most))
        else:
            kept, seen = go(kept * (_MARGIN * most / far) ** (1 / _power(further, (kept, far))))
    if within and drift(seen) > most:
        kept, seen = go(within[0])
    return seen, kept


def _power(further: Place | None, nearer: Place) -> float:
    """With which power of the share the drift grows, by two places beyond the bound. Of a single one: the square."""
    if further is None:
        return 2.0
    power = math.log(further[1] / nearer[1]) / math.log(further[0] / nearer[0])
    return min(max(power, _LEAST_POWER), 2.0)


def _between(within: Place, beyond: Place, aim: float) -> float:
    """The share at which the drift is `aim`, by the power law through two places. A drift that was estimated at
    nothing, or less, counts as a hundredth of the aim."""
    (near, little), (far, much) = within, beyond
    little = max(little, aim / 100)
    along = math.log(aim / little) / math.log(much / little)
    return near * (far / near) ** along


def of_answers(
    candidate: Evaluation, reference: Evaluation, settings: GateSettings, form: Container[int] = frozenset()
) -> float:
    """How far a candidate's answers are from the base model's, over how far they may be: in nats, and in saying the
    same to everybody. What is more counts. The latter is noisy, as answers are few: it may be led back further than it
    must."""
    nats = candidate.kl_nats / settings.max_kl_nats
    if not settings.min_reference_distinct_2:
        return nats
    distinct = distinct_beside(candidate.samples, reference.samples, form)
    return max(nats, math.log(distinct) / math.log(settings.min_reference_distinct_2))
