"""Hostile raters do not move what is learned; honest, harsh, rare and lonely ones lose nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foldback.v1 import feedback_pb2
from settings.reward import RewardSettings
from tests.trainer.reward_tastes import FEATURES, correlation, example, normal, rankings, taste
from trainer.reward import RewardExample, RewardModel
from trainer.reward.heads import fit
from trainer.reward.reliability import reliability

SETTINGS = RewardSettings()
ALL_BELIEVED = RewardSettings(reliability_floor=1.0)


def crowd(taste_F: Tensor, raters: int, each: int, *, seed: int, name: str = "user") -> list[RewardExample]:
    return [
        judged
        for rater in range(raters)
        for judged in rankings(taste_F, each, seed=1000 * seed + rater, rater=f"{name}{rater}", noise=0.1, held_out=0)
    ]


def inverted(examples: list[RewardExample]) -> list[RewardExample]:
    """The same raters, who always say the opposite."""
    return [
        replace(e, tiers=tuple(reversed(e.tiers)), score=None if e.score is None else 1 - e.score) for e in examples
    ]


def agreement(examples: list[RewardExample], taste_F: Tensor, settings: RewardSettings = SETTINGS) -> float:
    """How well heads learned from `examples` rank fresh answers, as the correlation with the true utility."""
    believed = reliability(examples, settings, seed=0)
    heads = fit(examples, settings, seed=0, reliability=believed)
    fresh_BF = normal(2000, seed=77)
    return correlation(heads.scores(fresh_BF).mean(dim=1), fresh_BF @ taste_F)


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [1, 4])
@pytest.mark.parametrize("seed", range(2))
def test_hostile_raters_move_what_is_learned_no_more_than_noise(hostile: int, seed: int) -> None:
    """5 and 20 % of twenty raters, who judge five times as often as the honest: what they cost beside what it costs
    that an honest rater is missing or another one is there."""
    taste_F = taste(seed)
    honest = crowd(taste_F, 20 - hostile, 8, seed=seed)
    liars = inverted(crowd(taste_F, hostile, 40, seed=50 + seed, name="liar"))
    without = agreement(honest, taste_F)
    spread = [agreement(crowd(taste_F, 20 - hostile, 8, seed=100 + 10 * seed + i), taste_F) for i in range(2)]
    noise = max(*spread, without) - min(*spread, without)

    among_them = agreement(honest + liars, taste_F)

    assert without - among_them < max(noise, 0.02)
    believed_all = agreement(honest + liars, taste_F, ALL_BELIEVED)
    assert believed_all < among_them, "they would have done harm"


def test_liars_sink_to_the_floor_and_the_others_stay() -> None:
    taste_F = taste(5)
    honest, liars = crowd(taste_F, 16, 10, seed=1), inverted(crowd(taste_F, 4, 10, seed=2, name="liar"))
    found = reliability(honest + liars, SETTINGS, seed=0)
    assert all(weight == pytest.approx(0.1) for rater, weight in found.items() if rater.startswith("liar"))
    others = [weight for rater, weight in found.items() if rater.startswith("user")]
    assert sum(others) / len(others) > 0.9
    assert min(others) > 0.6


def test_who_clicks_at_random_counts_for_less_than_half() -> None:
    taste_F = taste(6)
    random = rankings(taste_F, 40, seed=9, rater="random", noise=1.0, held_out=0)
    assert reliability(crowd(taste_F, 12, 10, seed=3) + random, SETTINGS, seed=0)["random"] < 0.5


def test_a_rater_with_one_judgement_keeps_most_of_their_weight_whatever_it_says() -> None:
    taste_F = taste(7)
    once = inverted(rankings(taste_F, 1, seed=4, rater="once", held_out=0))
    assert reliability(crowd(taste_F, 12, 10, seed=4) + once, SETTINGS, seed=0)["once"] > 0.6


@pytest.mark.slow
def test_a_harsh_rater_is_no_liar() -> None:
    taste_F = taste(8)
    generator = torch.Generator().manual_seed(1)
    thumbs = []
    for index in range(40):
        x_AF = normal(1, generator)
        up = float((x_AF @ taste_F).item() > 3)
        thumbs.append(example(x_AF, name=f"h{index}", rater="harsh", kind="thumbs", score=up, held_out=0))
    everyone = crowd(taste_F, 12, 10, seed=5) + thumbs
    assert reliability(everyone, SETTINGS, seed=0)["harsh"] > 0.9
    backwards = everyone[: -len(thumbs)] + inverted(thumbs)
    assert reliability(backwards, SETTINGS, seed=0)["harsh"] < 0.5


def test_without_a_majority_everybody_counts() -> None:
    few = crowd(taste(1), 2, 20, seed=6) + inverted(crowd(taste(1), 2, 20, seed=7, name="other"))
    assert set(reliability(few, SETTINGS, seed=0).values()) == {1.0}, "four raters are no crowd"
    strangers = [e for i in range(8) for e in crowd(taste(100 + i), 1, 15, seed=i, name=f"stranger{i}-")]
    weights = reliability(strangers, SETTINGS, seed=0)
    assert sum(weights.values()) / len(weights) > 0.5, "eight tastes that have nothing in common"


def test_annotators_are_believed_and_help_to_tell() -> None:
    taste_F = taste(2)
    team = [
        replace(e, source=feedback_pb2.FEEDBACK_SOURCE_ANNOTATOR) for e in rankings(taste_F, 60, seed=1, rater="team")
    ]
    users = inverted(crowd(taste_F, 6, 10, seed=8))
    assert "team" not in reliability(team + users, SETTINGS, seed=0)


@pytest.mark.slow
def test_the_reward_model_itself_withstands_them() -> None:
    taste_F = taste(3)
    honest, liars = crowd(taste_F, 15, 8, seed=11), inverted(crowd(taste_F, 4, 30, seed=12, name="liar"))
    fresh_BF = normal(1000, seed=5)
    found = {}
    for name, settings in (("believed", ALL_BELIEVED), ("doubted", SETTINGS)):
        model = RewardModel(FEATURES, settings, seed=0)
        model.update(honest + liars)
        found[name] = correlation(model.score(fresh_BF)[0], fresh_BF @ taste_F)
    assert found["doubted"] > found["believed"] + 0.02
