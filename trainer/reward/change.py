"""Since when people like something else: until that is noticed, what they liked before outvotes what they say now.

Each way to split the judgements in earlier and later ones is tried: heads that were learned from the later ones alone
against heads that were learned from all, by how well they predict later ones that neither has seen. It is a likelihood
ratio test for a change point (Page 1955, "A test for a change in a parameter occurring at an unknown point"), over
shorter and shorter windows, as in ADWIN (Bifet and Gavaldà 2007, "Learning from time-changing data with adaptive
windowing"). While tastes stay, fewer judgements predict worse, so nothing is noticed.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch import Tensor

from settings.reward import RewardSettings
from trainer.reward.crossvalidation import TooFewConversations, unseen_losses
from trainer.reward.examples import RewardExample

_LEAST = 48
"""Judgements after a change: heads that were learned from fewer predict little."""
_SHORTER = 0.7
"""Each window of later judgements, of the one before."""
_ODDS = math.log(1000)
"""Nats by which the later heads must be the likelier. Where all come from one taste, of which the others know more,
they are by so much with a probability of a thousandth at most (Markov's inequality)."""
_CLEARLY = 2.5
"""Standard errors of the gain: a few judgements must not decide, nor that a policy which has learned is judged by finer
points than it was."""


def changed_at(examples: Sequence[RewardExample], settings: RewardSettings, *, seed: int) -> int | None:
    """The index of the first example after people came to like something else, None where they did not.

    Args:
        examples: in the order in which they were said.
    """
    best, found = 0.0, None
    starts = list(_starts(len(examples)))
    if not starts:
        return None
    try:
        by_all_J = unseen_losses(examples, settings, seed=seed)
        for start in starts:
            later = examples[start:]
            gain_J = by_all_J[start:] - unseen_losses(later, settings, seed=seed)
            gain = gain_J.sum().item()
            error = gain_J.std().item() * len(gain_J) ** 0.5
            if gain > max(best, _ODDS, _CLEARLY * error) and _of_most_raters(gain_J, examples, start):
                best, found = gain, start
    except TooFewConversations:
        pass  # of the shorter windows: what longer ones showed stands
    return found


def _starts(count: int) -> Iterator[int]:
    later = count // 2
    while later >= _LEAST:
        yield count - later
        later = int(later * _SHORTER)


def _of_most_raters(gain_J: Tensor, examples: Sequence[RewardExample], start: int) -> bool:
    """Whether most who spoke since `start` changed their mind, and they are not few: at least half as many as have
    ever said so many things one after the other. A few who flood the log have changed nobody's."""
    later, count = examples[start:], len(examples) - start
    by_rater: defaultdict[str, float] = defaultdict(float)
    for example, gain in zip(later, gain_J.tolist(), strict=True):
        by_rater[example.rater] += gain
    agree = sum(gain > 0 for gain in by_rater.values())
    once = max(len({e.rater for e in examples[max(0, end - count) : end]}) for end in range(start, 0, -count))
    return 2 * agree > len(by_rater) and 2 * len(by_rater) >= once
