"""Every kind of judgement as choices from sets, so that one scalar score explains them all.

Luce's choice rule: of a set, option i is picked with probability exp(s_i) / Σ exp(s_j). The options are answers and,
for absolute judgements, the **outside option**: "none of these", whose score is minus what pleases the rater easily.

- A ranking is Plackett–Luce: pick the best, then the best of the rest, … (K = 2 is Bradley–Terry).
- A thumb up picks the answer against the outside option: P(up) = σ(s + bias), which fixes the zero of s.
- A rating r in [0, 1] is that choice with target probability r.
- `rejected_all` picks the outside option from all of them.
- Members of a tied tier are each picked against the worse tiers alone; among themselves each is as likely as another
  (two tied answers: half a win each way).
"""

from dataclasses import dataclass

OUTSIDE = -1
"""Stands among a choice's options for "none of these"."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`options` are row indices of answers, or OUTSIDE; `target` holds their probabilities and sums to 1."""

    options: tuple[int, ...]
    target: tuple[float, ...]
    weight: float = 1.0


def ranking(tiers: tuple[tuple[int, ...], ...], rejected_all: bool = False) -> list[Choice]:
    """The choices that make a ranking, best tier first. A strict one's likelihood is Plackett–Luce's."""
    choices = []
    everyone = tuple(i for tier in tiers for i in tier)
    if rejected_all:
        choices.append(Choice((OUTSIDE, *everyone), (1.0, *[0.0] * len(everyone))))
    for rank, tier in enumerate(tiers):
        worse = tuple(i for later in tiers[rank + 1 :] for i in later)
        if worse:
            choices += [Choice((i, *worse), (1.0, *[0.0] * len(worse))) for i in tier]
        if len(tier) > 1:
            choices.append(Choice(tier, (1 / len(tier),) * len(tier)))
    return choices


def absolute(answers: int, score: float) -> list[Choice]:
    """A thumb or a rating `score` in [0, 1]; one on several answers counts once, spread evenly over them."""
    return [Choice((i, OUTSIDE), (score, 1 - score), weight=1 / answers) for i in range(answers)]
