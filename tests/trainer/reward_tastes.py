"""Made-up judgements: raters with a linear taste over random features."""

import random
from itertools import count

import torch
from torch import Tensor

from feedback.judgement import Kind
from settings.reward import RewardSettings
from trainer.holdout import place
from trainer.reward import RewardExample, RewardModel, feature_dim

HIDDEN = 5
FEATURES = feature_dim(HIDDEN)
DENSE = [*range(3 * HIDDEN), FEATURES - 1]
"""All features but the token counts and the style."""
HELD_OUT = 0.15
"""Share of conversations that are never trained on, unless a test says otherwise."""
_SEQUENCE = count(1)


def example(
    features_AF: Tensor,
    *,
    name: str,
    rater: str = "rater",
    kind: Kind = "ranking",
    tiers: tuple[tuple[int, ...], ...] = (),
    rejected_all: bool = False,
    score: float | None = None,
    source: int = 1,
    held_out: float = HELD_OUT,
) -> RewardExample:
    """An example in a conversation of its own, which may be among the `held_out` share."""
    return RewardExample(
        feedback_id=name,
        sequence=next(_SEQUENCE),
        key=name,
        conversation=name,
        held_out=place((), name) < held_out,
        rater=rater,
        source=source,
        kind=kind,
        tiers=tiers,
        rejected_all=rejected_all,
        score=score,
        lengths=(10,) * len(features_AF),
        features_AF=features_AF,
    )


def taste(seed: int) -> Tensor:
    """Weights [F] that give the features of `normal` a utility of deviation 3."""
    weight_F = normal(1, seed)[0]
    taste_F: Tensor = 3 * weight_F / weight_F.norm()
    return taste_F


def rankings(
    taste_F: Tensor,
    count: int,
    *,
    seed: int,
    answers: int = 4,
    noise: float = 0.0,
    rater: str = "rater",
    held_out: float = HELD_OUT,
) -> list[RewardExample]:
    """Rankings by utility; with probability `noise` one is shuffled instead."""
    generator = torch.Generator().manual_seed(seed)
    rng = random.Random(seed)
    examples = []
    for index in range(count):
        features_AF = normal(answers, generator)
        order = (features_AF @ taste_F).argsort(descending=True).tolist()
        if rng.random() < noise:
            rng.shuffle(order)
        tiers = tuple((answer,) for answer in order)
        name = f"{rater}-{seed}-{index}"
        examples.append(example(features_AF, name=name, rater=rater, tiers=tiers, held_out=held_out))
    return examples


def normal(count: int, seed: int | torch.Generator) -> Tensor:
    """Features [count, F] of answers that say nothing: the dense ones are standard normal."""
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    features_BF = torch.zeros(count, FEATURES)
    features_BF[:, DENSE] = torch.randn(count, len(DENSE), generator=generator)
    return features_BF


def model_of(examples: list[RewardExample], settings: RewardSettings | None = None) -> RewardModel:
    model = RewardModel(FEATURES, settings or RewardSettings(), seed=0)
    model.update(examples)
    return model


def correlation(a_B: Tensor, b_B: Tensor) -> float:
    return torch.corrcoef(torch.stack([a_B, b_B]))[0, 1].item()
