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

_MARGIN = 0.98
"""A little further back than the estimate says, so that one step is mostly enough."""
_STEPS = 6


def lead_back(
    backbone: Backbone, look: Callable[[], Look], drift: Callable[[Look], float], *, most: float
) -> tuple[Look, float]:
    """Scale the adapters until they have drifted by no more than `most`, if they have.

    Args:
        look: at the present policy, which may be costly.
        drift: of what was seen: a measure that grows about as the square of the way from the base, as KL does, and the
            logarithm of a perplexity ratio. So κ² = most / drift, and again from there.

    Returns:
        (what was seen last, share of the way that was kept: 1 where nothing had to be done). The drift is over `most`
        only where no share would do: weights that are not finite.
    """
    kept, seen = 1.0, look()
    for _ in range(_STEPS):
        far = drift(seen)
        if far <= most or not math.isfinite(far):
            break
        share = _MARGIN * math.sqrt(most / far)
        backbone.scale_adapter(share)
        kept, seen = kept * share, look()
    return seen, kept


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
