"""A policy that has drifted too far from the base model is led back, by as much as it must.

What the adapters add is scaled down: W + κ s B A with κ < 1. On the straight line to the base the reward falls about as
it rose on the way out (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903; WARP, Ramé et al. 2024, arXiv:2406.16768). So
what was learned since the last version is kept as far as the bound allows, where a refusal would lose it.
"""

import math

from trainer.backbone import Backbone
from trainer.evaluation import Reference, perplexity_ratio

_MARGIN = 0.98
"""A little further back than the estimate says, so that one step is mostly enough."""
_STEPS = 6


def lead_back(backbone: Backbone, reference: Reference, temperature: float, *, most: float) -> tuple[float, float]:
    """Scale the adapters until `perplexity_ratio` is at most `most`, if it is not.

    Its logarithm grows about as the square of the way from the base: κ² = log most / log ratio, and again from there.

    Returns:
        (perplexity ratio, share of the way that was kept: 1 where nothing had to be done). The ratio is over `most`
        only where no share would do: weights that are not finite.
    """
    kept, ratio = 1.0, perplexity_ratio(backbone, reference, temperature)
    for _ in range(_STEPS):
        if ratio <= most or not math.isfinite(ratio):
            break
        share = _MARGIN * math.sqrt(math.log(most) / math.log(ratio))
        backbone.scale_adapter(share)
        kept, ratio = kept * share, perplexity_ratio(backbone, reference, temperature)
    return ratio, kept
