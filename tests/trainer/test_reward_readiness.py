"""When the reward model may steer the policy: evidence of comparisons, or of thumbs where there is little else."""

import math
import random
from dataclasses import replace

import pytest
import torch

from settings.reward import RewardSettings
from tests.trainer.reward_tastes import FEATURES, correlation, example, model_of, normal, rankings, taste
from trainer.reward import RewardExample, RewardModel


@pytest.mark.slow
def test_no_taste_is_not_ready() -> None:
    """Rankings drawn at random: over eight sets of them chance alone may look ready once or twice."""
    ready = 0
    for seed in range(8):
        model = model_of(rankings(taste(0), 150, seed=seed, noise=1.0, held_out=0.3))
        ready += model.ready
    assert ready <= 3


def test_ready_ends_when_held_out_raters_turn_away() -> None:
    model = model_of(rankings(taste(0), 120, seed=0, held_out=0.3), RewardSettings(heldout_capacity=40))
    assert model.ready
    assert not model.update(rankings(-taste(0), 120, seed=7, held_out=1.0)).ready


def thumbs(taste_F: torch.Tensor, count: int, *, seed: int, chance: bool = False) -> list[RewardExample]:
    """One answer each, liked where its utility is positive, or by the toss of a coin."""
    coin = random.Random(seed)
    features_BF = normal(count, seed=seed)
    liked = [coin.random() < 0.5 if chance else bool(features_F @ taste_F > 0) for features_F in features_BF]
    return [
        example(features_BF[index : index + 1], name=f"thumb-{seed}-{index}", kind="thumbs", score=float(up))
        for index, up in enumerate(liked)
    ]


@pytest.mark.slow
def test_thumbs_alone_are_enough_to_become_ready() -> None:
    """Many an application asks for nothing else."""
    model = model_of(thumbs(taste(0), 200, seed=0))
    assert model.ready
    features_BF = normal(300, seed=9)
    assert correlation(model.score(features_BF)[0], features_BF @ taste(0)) > 0.5
    assert sum(model_of(thumbs(taste(0), 200, seed=seed, chance=True)).ready for seed in range(6)) <= 2


def test_held_out_judgements_that_tell_nothing_apart_do_not_end_readiness() -> None:
    """Most of a sparse taste's rankings are ties: the few held-out ones that are none must not decide by luck."""
    ties = [
        example(normal(4, seed=seed), name=f"tie-{seed}", tiers=((0, 1, 2, 3),), held_out=1.0) for seed in range(40)
    ]
    wrong = rankings(-taste(0), 1, seed=5, held_out=1.0)
    model = model_of(rankings(taste(0), 60, seed=0, held_out=0.0))
    assert model.ready
    assert model.update([*ties, *wrong]).accuracy < 0.5
    assert model.ready


def test_too_few_judgements_are_not_ready() -> None:
    assert not model_of(rankings(taste(0), 12, seed=0)).ready


def test_with_nothing_held_out_cross_validation_decides() -> None:
    examples = rankings(taste(0), 35, seed=0, held_out=0.0)
    model = RewardModel(FEATURES, RewardSettings(), seed=0)
    figures = model.update(examples)
    assert figures.promoted
    assert figures.ready
    random.Random(0).shuffle(tiers := [example.tiers for example in examples])
    nonsense = [replace(example, tiers=order) for example, order in zip(examples, tiers, strict=True)]
    assert not RewardModel(FEATURES, RewardSettings(), seed=0).update(nonsense).ready
    assert math.isnan(figures.accuracy)


def test_one_long_conversation_is_not_ready() -> None:
    examples = [replace(example, conversation="one") for example in rankings(taste(0), 60, seed=0)]
    assert not model_of(examples).ready
