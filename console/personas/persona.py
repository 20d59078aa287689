"""A simulated user: a taste, and how reliably they act on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from console.personas.tastes import readable

Tiers = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Persona:
    """Ranks and rates texts by `taste`, with the noise of a person.

    A ranking is a Plackett–Luce draw (Plackett 1975; Luce 1959): utilities over `noise` plus Gumbel noise, sorted.
    Now and then (`random_rate`) the order is a coin toss, and often (`abstain_rate`) there is no answer at all.
    """

    name: str
    taste: Callable[[str], float]
    noise: float = 0.1
    """Scale of the Gumbel noise on a ranking and of the logistic noise on a thumb, in utility."""
    indifference: float = 0.02
    """Neighbours in a ranking whose utilities differ by no more than this share a tier."""
    thumb_threshold: float = 0.5
    """The utility at which a thumb is as likely to go up as down."""
    random_rate: float = 0.05
    abstain_rate: float = 0.1

    @property
    def likes(self) -> str:
        return (self.taste.__doc__ or "").strip()

    def utility(self, text: str) -> float:
        """How much this user likes `text`, in [0, 1]."""
        return self.taste(text) * readable(text)

    def abstains(self, random: Random) -> bool:
        return random.random() < self.abstain_rate

    def rank(self, texts: Sequence[str], random: Random) -> Tiers:
        """Indices into `texts`, best tier first; every index once."""
        order = list(range(len(texts)))
        if random.random() < self.random_rate:
            random.shuffle(order)
            return tuple((index,) for index in order)
        utilities = [self.utility(text) for text in texts]
        felt = [utility + self.noise * gumbel(random) for utility in utilities]
        order.sort(key=lambda index: -felt[index])
        tiers: list[tuple[int, ...]] = []
        for index in order:
            if tiers and abs(utilities[tiers[-1][-1]] - utilities[index]) <= self.indifference:
                tiers[-1] += (index,)
            else:
                tiers.append((index,))
        return tuple(tiers)

    def thumbs_up(self, text: str, random: Random) -> bool:
        """A logistic choice around `thumb_threshold`."""
        if random.random() < self.random_rate:
            return random.random() < 0.5
        margin = (self.utility(text) - self.thumb_threshold) / self.noise
        return random.random() < 1 / (1 + math.exp(-max(-50.0, min(50.0, margin))))


def gumbel(random: Random) -> float:
    """A standard Gumbel variate; argmax of utilities plus these is a softmax draw."""
    return -math.log(random.expovariate(1.0))
